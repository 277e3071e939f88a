"""What provenance.json says of a run that several processes worked on, and of its first weights."""

from __future__ import annotations

import json
import os
import platform
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import save_file

from cl_bench import progress, provenance, run
from cl_bench.core.errors import Interrupted
from cl_bench.core.stop import Stop
from cl_bench.folder import RunFolder
from cl_bench.models.mlp import mlp
from cl_bench.overrides import CONF
from cl_bench.resolve import resolve


class After(Stop):
    """A signal that is there from the given look at it on."""

    def __init__(self, looks: int):
        super().__init__()
        self.looks = looks

    def __call__(self) -> int:
        self.looks -= 1
        return signal.SIGTERM if self.looks < 0 else 0


def smoke(folder: Path, stop: Stop, *overrides: str) -> dict[str, Any]:
    """One process of experiment=smoke; its provenance."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=["experiment=smoke", "runtime.device=cpu", *overrides])
        plain = resolve(config, [CONF], named=False) | {"name": {"model": "mlp"}}
    run.execute(plain, RunFolder(folder), stop)
    return json.loads((folder / "provenance.json").read_text())


def interrupted(folder: Path, looks: int) -> dict[str, Any]:
    """What the checkpoint of an interrupted process says."""
    with pytest.raises(Interrupted):
        smoke(folder, After(looks))
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def test_costs_add_up_over_processes(tmp_path: Path) -> None:
    state = interrupted(tmp_path, 3)  # in the midst of the first task
    assert state["place"][0] == 0 and state["place"][1] > 0
    costs = state["costs"]
    assert costs["resumed"] == 0 and costs["peak_memory_mib"] > 0
    assert 0 < costs["seconds"]["train"] < costs["seconds"]["whole"]  # also of a phase that has not ended
    costs["seconds"] |= {"train": 1000.0, "whole": 3000.0}
    costs["peak_memory_mib"] = 10**6
    torch.save(state, tmp_path / "checkpoint.pt")
    costs = interrupted(tmp_path, 8)["costs"]
    assert costs["resumed"] == 1 and 1000 < costs["seconds"]["train"] < 1100
    told = smoke(tmp_path, Stop())
    assert told["resumed"] == 2 and told["peak_memory_mib"] == 10**6
    assert costs["seconds"]["train"] < told["seconds"]["train"] < 1100 and 3000 < told["seconds"]["whole"] < 3100
    assert 0 < told["seconds"]["evaluate"] < 100


def test_a_phase_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    bar = progress.Progress(None, False)
    seen = []
    for length in (2.0, 5.0):
        with bar.phase("train"):
            now[0] += length
            seen.append(bar.costs(torch.device("cpu"))["seconds"])
    now[0] += 10
    seen.append(bar.costs(torch.device("cpu"))["seconds"])
    assert seen == [{"whole": 2, "train": 2}, {"whole": 7, "train": 7}, {"whole": 17, "train": 7}]


def test_an_unbroken_run_and_its_machine(tmp_path: Path) -> None:
    told = smoke(tmp_path, Stop())
    assert told["resumed"] == 0 and 0 < told["seconds"]["train"] < told["seconds"]["whole"]
    assert told["weights_loaded"] == 0 and told["weights_ignored"] == [] and told["device"] == "cpu"
    info = Path("/proc/cpuinfo")
    if info.exists() and "model name" in info.read_text():
        assert f": {told['cpu']}\n" in info.read_text()


def test_cpu_without_a_model_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: str(path) != "/proc/cpuinfo")
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert provenance.cpu() == os.uname().machine


def test_weights_of_a_file_are_told(tmp_path: Path) -> None:
    backbone, _ = mlp(input_shape=(1, 6, 6), hidden=[16], batch_norm=False, pretrained=False)
    file = tmp_path / "w.safetensors"
    save_file(backbone.state_dict() | {"fc.weight": torch.zeros(3, 16)}, file)
    told = smoke(tmp_path / "run", Stop(), "model.hidden=[16]", f"model.init={file}")
    assert told["weights"]["init"] == str(file) and told["weights"]["sha256"]
    assert (told["weights_loaded"], told["weights_ignored"]) == (2, ["fc.weight"])
    assert f"2 tensors from {file.name}, ignoring fc.weight" in (tmp_path / "run/run.log").read_text()
