"""Help, what a run leaves, and experiment=smoke."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from programs import run

from cl_bench import cli, overrides
from cl_bench.core.errors import ConfigError

FOLDER = "outputs/split_digits/mlp/supervised_sequential/default/seed0"
FIGURES = [
    "average_accuracy",
    "average_forgetting",
    "forgetting_last_minus_learned",
    "forgetting_largest",
    "forgetting_over_T",
    "forgetting_best_ever",
    "forgetting_best_ever_over_T",
    "backward_transfer",
    "forward_transfer",
    "learning_accuracy",
    "anytime_accuracy",
]


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(folder of the default run, what was printed)."""
    folder = tmp_path_factory.mktemp("default")
    status, out, err = run(folder, "train.epochs=1")
    assert (status, err) == (0, "")
    return folder / FOLDER, out


def test_help_lists_groups_and_five_examples(tmp_path: Path) -> None:
    began = time.perf_counter()
    status, out, err = run(tmp_path, "--help")
    assert (status, err) == (0, "") and time.perf_counter() - began < 2
    for group in overrides.GROUPS:
        line = next(line for line in out.splitlines() if line.startswith(f"  {group} "))
        assert all(name.rpartition("/")[2] in line for name in overrides.choices(group))
    assert out.count("  python -m cl_bench") == 5


def test_what_answers_at_once_imports_no_torch() -> None:
    code = "import sys, cl_bench.__main__, cl_bench.cli; cl_bench.cli.check(['strategy=ewc']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["strategy=ewc", "model=vit_b"],
        ["-m", "model=vit_xs,vit_s,vit_b", "strategy=sequential,ewc,er", "seed=0,1,2"],
        ["seed=0,1", "-m"],
        ["experiment=demo"],
        ["experiment=ewc_mnist_fashion", "full=true"],
        ["-m", "model=glob(vit*)", "seed=range(0,2)"],
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "-m", "seed=0,1"],
    ],
    ids=" ".join,
)
def test_copied_commands_are_accepted(words: list[str]) -> None:
    ordered, sweep = cli.check(words)
    assert sorted(ordered) == sorted(words)
    assert (sweep is not None) == ("-m" in words or any(w.startswith("experiment") for w in words))


@pytest.mark.parametrize(("word", "meant"), [("experimnt=smoke", "did you mean experiment"), ("foo=1", ", experiment")])
def test_a_misspelt_key_hears_of_experiment(word: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=meant):
        cli.check([word])


def test_cfg_prints_the_configuration(tmp_path: Path) -> None:
    status, out, err = run(tmp_path, "--cfg", "job", "strategy=ewc")
    assert (status, err) == (0, "") and yaml.safe_load(out)["strategy"]["_target_"].endswith(".EWC")
    assert not any(tmp_path.iterdir())


def test_default_run_leaves_the_contract(default: tuple[Path, str]) -> None:
    folder, printed = default
    tables = {f"{kind}_{reading}.csv" for kind in ("accuracy", "forgetting") for reading in ("class_il", "task_il")}
    assert {p.name for p in folder.iterdir()} == {"config.yaml", "provenance.json", "metrics.jsonl", "summary.csv", "run.log"} | tables
    for name in tables:
        header, *rows = list(csv.reader((folder / name).open()))
        assert header == ["after", "task0", "task1", "task2", "task3", "task4"]
        assert [row[0] for row in rows] == list("01234")
        assert all(bool(cell) == (task <= after) for after, row in enumerate(rows) for task, cell in enumerate(row[1:]))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(list(line) == ["after", "on", "metric", "value"] for line in lines) and len(lines) == 2 * 15
    header, *rows = list(csv.reader((folder / "summary.csv").open()))
    assert header == ["metric", "value"]
    assert {row[0] for row in rows} == {f"{reading}_{name}" for reading in ("class_il", "task_il") for name in FIGURES}
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["train"]["epochs"] == 1 and "hydra" not in config
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["command"] == ["train.epochs=1"] and provenance["parameters"] > 1000
    assert {"commit", "versions", "device", "cpu", "threads", "data", "weights", "seconds", "peak_memory_mib"} <= set(provenance)
    assert "accuracy, class_il" in printed and "average_forgetting" in printed


def test_run_again_is_skipped_and_another_configuration_refused(default: tuple[Path, str]) -> None:
    folder, _ = default
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    status, out, err = run(folder.parents[5], "train.epochs=1")
    assert (status, err) == (0, "") and "finished already, skipped" in out
    status, _, err = run(folder.parents[5], "train.epochs=2")
    assert status == 2 and err.startswith("error: ") and err.count("\n") == 1
    assert "train.epochs: 1 there, 2 here" in err and "tag=" in err
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_smoke(tmp_path: Path) -> None:
    status, out, err = run(tmp_path, "experiment=smoke", "strategy=er_ewc", "runtime.save_backbone=true")
    assert (status, err) == (0, "") and "summary" in out
    folder = tmp_path / "outputs/toy_toy/mlp/supervised_er_ewc/smoke/seed0"
    assert (folder / "backbone.safetensors").exists()
    summary = dict(csv.reader((folder / "summary.csv").open()))
    assert all(summary[f"class_il_{name}"] for name in FIGURES)  # look.future and look.before: none is empty


MINE = """
import torch
from cl_bench.core.kinds import Count, NonNegative
from cl_bench.core.types import Examples
from cl_bench.data.resident import in_memory
from cl_bench.strategies.base import Strategy

class Mine(Strategy):
    needs_boundaries: ClassVar[bool] = True

    def __init__(self, *, strength: NonNegative):
        self.strength = strength

def tiny(*, input_shape, pretrained, width: Count):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, width), torch.nn.ReLU()), width

class Noise:
    def __init__(self, *, num_classes: Count):
        self.num_classes = num_classes

    def __call__(self):
        y = torch.arange(self.num_classes).repeat(8)
        data = Examples(torch.randint(0, 256, (len(y), 1, 4, 4)).to(torch.uint8), y)
        return in_memory("noise", data, data, self.num_classes)
"""
YAMLS = {
    "strategy/mine": "_target_: mine.parts.Mine\nstrength: 0.5",
    "model/tiny": "_target_: mine.parts.tiny\nwidth: 8\ninit: scratch\nimage_size: null\nchannels: null",
    "model/bare": "_target_: mine.parts.tiny\nwidth: 8",
    "data/noise": "_target_: mine.parts.Noise\nnum_classes: 10",
    "data/bare": "_target_: cl_bench.data.sources.Digits\nname: digits",
    "strategy/broken": "_target_: mine.broken.Mine",
    "scenario/bare": "_target_: cl_bench.scenarios.split.Split\norder: natural",
}


@pytest.fixture
def mine(tmp_path: Path) -> list[str]:
    """A user's package and groups in tmp_path; the words that make them known."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/parts.py").write_text("from typing import ClassVar\n" + MINE)
    (tmp_path / "mine/broken.py").write_text("class Mine:\n  def (self): pass\n")
    for name, text in YAMLS.items():
        (tmp_path / "mc" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mc" / f"{name}.yaml").write_text(text + "\n")
    return ["--config-dir", "mc", "runtime.allow_targets=[cl_bench.,torch.optim.,mine.]"]


def test_parts_of_a_users_own(tmp_path: Path, mine: list[str]) -> None:
    status, _, err = run(tmp_path, *mine, "strategy=mine", "model=tiny", "data=noise", "train.epochs=1")
    assert (status, err) == (0, "") and (tmp_path / "outputs/split_noise/tiny/supervised_mine/default/seed0/summary.csv").exists()
    status, _, err = run(tmp_path, *mine, "scenario=sequence", "scenario.datasets=[noise]", "model=tiny", "train.epochs=1")
    assert (status, err) == (0, "") and (tmp_path / "outputs/sequence_noise").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("model=bare", ["3 mistakes", "model.init is missing", "image_size: null", "channels: null"]),
        ("data=bare", ["data.num_classes is missing"]),
        ("scenario=bare", ["scenario.tasks is missing", "scenario.valid_fraction is missing"]),
        ("scenario=bare look.part=valid", ["scenario.valid_fraction is missing"]),
        ("strategy=mine strategy.strength=-1", ["strategy.strength=-1", "a number of 0 or more"]),
        ("strategy=mine +strategy.strenth=1", ["strategy.strenth", "did you mean strength"]),
        ("strategy=mine strategy._target_=mine.parts.Mien", ["mine.parts.Mien does not exist", "did you mean Mine"]),
        ("strategy=mine strategy._target_=mine.part.Mine", ["no module mine.part", "PYTHONPATH"]),
        ("strategy=broken", ["mine/broken.py, line 2"]),
        ("strategy=mine scenario.announced=false", ["Mine needs task boundaries"]),
    ],
)
def test_mistakes_in_a_users_own_parts(tmp_path: Path, mine: list[str], words: str, told: list[str]) -> None:
    status, _, err = run(tmp_path, *mine, *words.split())
    assert status == 2 and err.startswith("error: ") and err.count("\n") == 1
    assert not [word for word in told if word not in err], err
