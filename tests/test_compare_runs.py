"""scripts/compare_runs.py on made-up run folders: distances and CKA by hand, pairs of different seeds alone."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pandas as pd
import pytest
import torch
from made_up_runs import make_run
from safetensors.torch import save_file
from test_similarity import slow_cka

SCRIPT = Path(__file__).parents[1] / "scripts" / "compare_runs.py"


def keep(folder: Path, weight: torch.Tensor, features: torch.Tensor) -> None:
    """What runtime.save_backbone and probe=cka leave."""
    save_file({"conv.weight": weight, "bn.running_mean": 100 * weight}, folder / "backbone.safetensors")
    (folder / "probes").mkdir()
    for test, x in (("task0", features), ("task1", features.flip(0))):
        save_file({"y": torch.zeros(len(x)), "layer1": x}, folder / "probes" / f"{test}.last.safetensors")


@pytest.fixture
def compare(tmp_path, monkeypatch):
    """compare(): the script's exit status on tmp_path."""
    spec = importlib.util.spec_from_file_location("compare_runs", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr("sys.argv", ["compare_runs.py", str(tmp_path)])
    return script.main


def test_pairs_of_runs(tmp_path, compare, capsys) -> None:
    rng = torch.Generator().manual_seed(0)
    features = {name: torch.randn(9, 4, generator=rng) for name in ("a0", "a1", "b0")}
    weights = {"a0": torch.tensor([0.0, 0.0]), "a1": torch.tensor([3.0, 4.0]), "b0": torch.tensor([6.0, 8.0])}
    for name, x in features.items():
        strategy = {"a": "sequential", "b": "si"}[name[0]]
        keep(make_run(tmp_path, strategy, int(name[1]), 0.5, objective="simsiam", tag="t"), weights[name], x)
    make_run(tmp_path, "er", 0, 0.5)  # keeps nothing
    assert compare() == 0
    table = pd.read_csv(tmp_path / "pairs.csv").set_index(["one", "other"])
    assert len(table) == 2  # a0 and b0 are of one seed
    same, other = ("simsiam_sequential", "simsiam_sequential"), ("simsiam_sequential", "simsiam_si")
    assert table.loc[same, "l2"] == pytest.approx(5) and table.loc[other, "l2"] == pytest.approx(5)
    for pair, (x, y) in ((same, ("a0", "a1")), (other, ("a1", "b0"))):
        assert table.loc[pair, "cka_layer1"] == pytest.approx(float(slow_cka(features[x].double(), features[y].double())), abs=1e-6)
    assert "l2" in (said := capsys.readouterr().out) and "count" in said


def test_nothing_to_compare(tmp_path, compare, capsys) -> None:
    keep(make_run(tmp_path, "er", 0, 0.5), torch.ones(2), torch.ones(3, 2))
    assert compare() == 2
    said = capsys.readouterr().err
    assert "no two runs" in said and "save_backbone=true" in said and said.count("\n") == 1
