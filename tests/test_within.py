"""Looks within an experience: what they see, that they change nothing, and that a restart repeats none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from toy_runs import Runs, configure, outcome, same

STEPS = [1, 3, 4, 1000]  # the last beyond the end


def parted(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(rows at the ends of experiences, rows within one)."""
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [r for r in rows if "step" not in r], [r for r in rows if "step" in r]


@pytest.mark.parametrize("strategy", ["sequential", "er", "joint"])
def test_they_observe_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, strategy: str) -> None:
    runs, config = Runs(monkeypatch), configure(strategy, "rich")
    plain, weights = outcome(runs(config, tmp_path / "plain")), runs.weights()
    config["look"]["within"] = STEPS
    found = outcome(runs(config, tmp_path / "within"))
    assert same(runs.weights(), weights)
    ends, within = parted(tmp_path / "within")
    assert ends == parted(tmp_path / "plain")[0]
    assert {name: text for name, text in found.items() if name.endswith((".csv", ".safetensors"))} == {
        name: text for name, text in plain.items() if name.endswith((".csv", ".safetensors"))
    }
    afters = [2] if strategy == "joint" else [0, 1, 2]
    assert {(r["after"], r["step"]) for r in within} == {(after, step) for after in afters for step in (1, 3, 4)}
    assert {r["on"] for r in within} == {"task0", "task1", "task2"}  # look.future
    assert {r["metric"] for r in within} == {"class_il", "task_il", "loss"}


def test_a_look_after_a_step_is_the_end_of_a_shorter_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runs, config = Runs(monkeypatch), configure("sequential", "plain")
    config["look"]["within"] = [3]
    _, within = parted(runs(config, tmp_path / "long"))
    config["look"]["within"], config["train"]["epochs"], config["train"]["steps"] = None, None, 3
    ends, none = parted(runs(config, tmp_path / "short"))
    first = [{**row, "step": 3} for row in ends if row["after"] == 0]
    assert len(first) == 3 and none == [] and first == [row for row in within if row["after"] == 0]


def test_restart_again_and_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runs, config = Runs(monkeypatch), configure("er", "rich")
    config["look"]["within"] = STEPS
    whole, path = outcome(runs(config, tmp_path / "whole")), tmp_path / "stopped"
    assert runs.restarted(config, path) >= 3 and outcome(path) == whole
