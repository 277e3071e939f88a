"""Mistakes about patching through the real command line: one line, status 2, nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import run, seeds

TOY = ("experiment=smoke", "strategy=paint", "strategy.supported=[task0]")
EARLY = {  # told by the configuration alone
    "strategy.search=quadratic": ["strategy.search=quadratic", "give one of quasiconvex"],
    "strategy.normaliser=inital": ["did you mean initial"],
    "scenario.announced=false": ["PAINT needs task boundaries"],
    "model.init=/nowhere.safetensors": ["model.init=/nowhere.safetensors", "no file that can be read"],
}
BEFORE_TRAINING = {
    "strategy.coefficient=1.5": ["strategy.coefficient=1.5", "strategy.extrapolate=true"],
    "strategy.supported=[tsk0]": ["no task tsk0", "did you mean task0"],
    "strategy.held_out=0 scenario.valid_fraction=0": ["task0 has no held-out examples", "strategy.held_out"],
    "strategy.supported=[task2]": ["supported tasks come first"],
}


@pytest.mark.parametrize("command", [*EARLY, *BEFORE_TRAINING])
def test_mistakes(command: str, tmp_path: Path) -> None:
    status, _, err = run(tmp_path, *TOY, *command.split())
    assert status == 2 and err.startswith("error: ") and err.count("\n") == 1, err
    assert not [word for word in (EARLY | BEFORE_TRAINING)[command] if word not in err], err
    assert not seeds(tmp_path)


def test_weights_of_another_shape(tmp_path: Path) -> None:
    """The weights before come from a file of another model."""
    assert run(tmp_path, "experiment=smoke", "model.hidden=[7]", "runtime.save_backbone=true", "tag=other")[0] == 0
    (file,) = tmp_path.rglob("backbone.safetensors")
    status, _, err = run(tmp_path, *TOY, f"model.init={file}")
    assert status == 2 and err.count("\n") == 1 and "does not fit this backbone" in err
