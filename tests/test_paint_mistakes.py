"""Mistakes about patching: one line, before the first step, nothing left behind."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from toy_runs import attempt

from cl_bench.cli import check
from cl_bench.core.errors import DivergenceError
from cl_bench.strategies.segment import Segment

TOY = ("experiment=smoke", "strategy=paint", "strategy.supported=[task0]", "runtime.progress=false", "runtime.device=cpu")
BY_CONFIG = {  # told by the configuration alone
    "strategy.search=quadratic": ["strategy.search=quadratic", "give one of quasiconvex"],
    "strategy.normaliser=inital": ["did you mean initial"],
    "strategy.heads=thawed": ["strategy.heads=thawed", "give one of frozen"],
    "strategy.held_out=1.5": ["strategy.held_out=1.5", "from 0 to 1"],
    "strategy.points=0": ["strategy.points=0", "1 or more"],
    "scenario.announced=false": ["PAINT needs task boundaries"],
    "objective=simsiam probe=knn": ["PAINT works on logits"],
    "scenario=text": ["PAINT works on classes"],
    "model.init=/nowhere.safetensors": ["model.init=/nowhere.safetensors", "no file that can be read"],
}
BEFORE_TRAINING = {
    "strategy.coefficient=1.5": ["strategy.coefficient=1.5", "outside 0 to 1", "strategy.extrapolate=true"],
    "strategy.low=-0.5 strategy.high=2": ["strategy.low=-0.5, strategy.high=2", "strategy.extrapolate=true"],
    "strategy.low=0.5 strategy.high=0.5": ["strategy.low=0.5", "give low < high"],
    "strategy.search=grid strategy.points=1": ["strategy.points=1", "2 points or more"],
    "strategy.survey=1": ["strategy.survey=1", "0 or of 2 or more"],
    "strategy.supported=[tsk0]": ["no task tsk0", "did you mean task0"],
    "strategy.supported=[task2]": ["supported tasks come first"],
    "strategy.supported=[task0,task1,task2]": ["supported tasks come first", "at least one other follows"],
    "strategy.held_out=0 scenario.valid_fraction=0": ["task0 has no held-out examples", "strategy.held_out", "scenario.valid_fraction"],
}


@pytest.mark.parametrize("command", BY_CONFIG)
def test_mistakes_of_the_configuration(command: str, error) -> None:
    message = error(lambda: check([*TOY, *command.split()]))
    assert not [word for word in BY_CONFIG[command] if word not in message], message


@pytest.mark.parametrize("command", BEFORE_TRAINING)
def test_mistakes_about_tasks_and_coefficients(command: str, tmp_path: Path, error) -> None:
    message = error(lambda: attempt(tmp_path / "run", *TOY, *command.split()))
    assert not [word for word in BEFORE_TRAINING[command] if word not in message], message
    assert not any(tmp_path.iterdir())


def test_a_loss_that_is_not_finite_along_the_way(tmp_path: Path) -> None:
    far = ("strategy.extrapolate=true", "strategy.high=1e38", "strategy.search=grid", "strategy.points=2")
    with pytest.raises(DivergenceError) as caught:
        attempt(tmp_path / "run", *TOY, *far)
    message = str(caught.value)
    assert "the loss of task0 is" in message and "at coefficient 1e+38" in message and "narrow strategy.low and strategy.high" in message
    assert "\n" not in message


@pytest.mark.parametrize("waves", [0, 10])
def test_a_curve_that_is_not_quasiconvex_is_said(
    waves: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Segment, "_pass", lambda segment, held: (2 + math.cos(waves * segment.at), 0.5))
    attempt(tmp_path / "run", *TOY)
    said = [f"{kept}: not quasi-convex on" for kept in ("task0, patched on task1", "task0+task1, patched on task2")]
    out = capsys.readouterr().out
    assert [out.count(line) for line in said] == [int(waves > 0)] * 2 and out.count("went on to a grid of 11") == 2 * (waves > 0)


def test_weights_of_another_shape(tmp_path: Path, error) -> None:
    """The weights before come from a file of another model."""
    file = tmp_path / "other.safetensors"
    save_file({"1.weight": torch.zeros(7, 36), "1.bias": torch.zeros(7)}, file)
    message = error(lambda: attempt(tmp_path / "run", *TOY, f"model.init={file}"))
    assert "does not fit this backbone" in message and "shapes differ: 1.weight (7, 36)" in message and not (tmp_path / "run").exists()
