"""What holds for every strategy; a new file in conf/strategy is tested without a line here."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toy_runs import PROMPTED, SETUPS, STRATEGIES, VIT, Runs, configure, leaves, outcome, same

from cl_bench.checks import problems
from cl_bench.core.errors import Interrupted
from cl_bench.folder import RunFolder
from cl_bench.signatures import class_flag


@pytest.mark.parametrize("setup", SETUPS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_runs_finite_and_keeps_its_shapes(runs: Runs, tmp_path: Path, strategy: str, setup: str) -> None:
    folder = RunFolder(runs(configure(strategy, setup), tmp_path / "run"))
    assert folder.finished and not folder.checkpoint.exists() and not list(tmp_path.rglob("*.partial"))
    rows = folder.read_rows()
    assert all(torch.isfinite(torch.tensor(row["value"])) for row in rows) and {"class_il", "task_il", "loss"} == {
        r["metric"] for r in rows
    }
    assert {row["on"] for row in rows if row["after"] == 2} == {"task0", "task1", "task2"}
    assert runs.shapes() == runs.before
    assert all(t.isfinite().all() for t in runs.weights().values() if t.is_floating_point())
    values = leaves(runs.strategy.state_dict())
    assert None not in [v for v in values if not isinstance(v, Tensor)]
    assert all(v.isfinite().all() for v in values if isinstance(v, Tensor))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_learns(runs: Runs, tmp_path: Path, strategy: str) -> None:
    """The task just learned is known, among its own classes."""
    more = ["train=adam", "train.optimizer.lr=0.003", "train.epochs=10", "model.hidden=[64]"]
    if strategy.startswith(PROMPTED):  # a frozen transformer of random weights tells nothing of its images
        more[1] = "train.optimizer.lr=0.03"
        runs(configure("joint", "plain", *more, *VIT), tmp_path / "pretrained")
        more += [f"model.init={tmp_path}/pretrained/backbone.safetensors"]
    config = configure(strategy, "plain", *more)
    rows = RunFolder(runs(config, tmp_path / "run")).read_rows()
    (last,) = [r["value"] for r in rows if (r["after"], r["on"], r["metric"]) == (2, "task2", "task_il")]
    assert last > 0.8


@pytest.mark.parametrize("scenario", ["split", "permuted", "rotated"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_runs_on_the_scenarios(runs: Runs, tmp_path: Path, strategy: str, scenario: str) -> None:
    config = configure(strategy, "plain", f"scenario={scenario}", "scenario.tasks=2", "objective.loss_over=own")
    folder = RunFolder(runs(config, tmp_path / "run"))
    assert folder.finished and {row["after"] for row in folder.read_rows()} == ({1} if strategy == "joint" else {0, 1})


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_hidden_boundaries_are_refused_by_those_who_need_them(runs: Runs, tmp_path: Path, strategy: str) -> None:
    config = configure(strategy)
    config["scenario"]["announced"] = False
    parts = config["strategy"].get("parts", {"": config["strategy"]}).values()
    if any(class_flag(part["_target_"], "needs_boundaries") for part in parts):
        assert any("boundaries" in text for text in problems(config))
    else:
        assert problems(config) == [] and RunFolder(runs(config, tmp_path / "run")).finished


@pytest.mark.parametrize("setup", SETUPS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_seeds(runs: Runs, tmp_path: Path, strategy: str, setup: str) -> None:
    one = outcome(runs(configure(strategy, setup), tmp_path / "a"))
    torch.rand(7)  # whatever happened before
    assert outcome(runs(configure(strategy, setup), tmp_path / "b")) == one
    other = outcome(runs(configure(strategy, setup, "seed=1"), tmp_path / "c"))
    assert other["backbone.safetensors"] != one["backbone.safetensors"] and other["metrics.jsonl"] != one["metrics.jsonl"]


@pytest.mark.parametrize("setup", SETUPS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_restart_to_the_bit(runs: Runs, tmp_path: Path, strategy: str, setup: str) -> None:
    config = configure(strategy, setup)
    whole = outcome(runs(config, tmp_path / "whole"))
    weights, looked = runs.weights(), runs.looked
    chance = random.Random(f"{strategy} {setup}")
    stops = sorted({0, looked - 1, *(chance.randrange(looked) for _ in range(4))})
    for calls in stops:
        path = tmp_path / f"stopped{calls}"
        with pytest.raises(Interrupted) as caught:
            runs(config, path, calls)
        assert caught.value.exit_status == 143 and not (path / "summary.csv").exists() and not (path / ".lock").exists()
        state = torch.load(path / "checkpoint.pt", weights_only=True)
        assert None not in [v for v in leaves(state["strategy"]) if not isinstance(v, Tensor)]
        with (path / "metrics.jsonl").open("a") as file:  # rows written after the last save, before a kill
            file.write('{"after": 9, "on": "task0", "metric": "class_il", "value": 0.0}\n')
        assert outcome(runs(config, path)) == whole, f"stopped after {calls} looks"
        assert same(runs.weights(), weights)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_restart_again_and_again(runs: Runs, tmp_path: Path, strategy: str) -> None:
    config = configure(strategy, "rich")
    whole = outcome(runs(config, tmp_path / "whole"))
    weights, path = runs.weights(), tmp_path / "stopped"
    calls = 5 if runs.looked > 20 else 1  # a method without steps is looked at twice a task
    assert runs.restarted(config, path, calls) >= 3 and outcome(path) == whole and same(runs.weights(), weights)


@pytest.mark.parametrize("setup", SETUPS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_probe_changes_nothing(runs: Runs, tmp_path: Path, strategy: str, setup: str) -> None:
    config = configure(strategy, setup)
    plain = outcome(runs(config, tmp_path / "plain"))
    weights = runs.weights()
    burning = copy.deepcopy(config)
    burning["probe"] = {"burn": {"_target_": "toy_runs.Burn"}, **config["probe"]}
    burning["runtime"]["allow_targets"] = [*config["runtime"]["allow_targets"], "toy_runs."]
    path = runs(burning, tmp_path / "burning")
    assert same(runs.weights(), weights)
    lines = (path / "metrics.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if '"burnt"' not in line]
    assert "".join(kept).encode() == plain["metrics.jsonl"] and len(kept) < len(lines)


@pytest.mark.parametrize("setup", SETUPS)
@pytest.mark.parametrize(
    "change",
    [("ewc",), ("ewc", "strategy.mode=online"), ("si",), ("mas",), ("er",), ("er_ewc",), ("lwf",), ("der",), ("derpp",)],
    ids="-".join,
)
def test_strength_zero_is_sequential_to_the_bit(runs: Runs, tmp_path: Path, change: tuple[str, ...], setup: str) -> None:
    strategy, *more = change
    names = {"er_ewc": ("parts.er.strength", "parts.ewc.strength"), "der": ("alpha",), "derpp": ("alpha", "beta")}
    zero = [f"strategy.{name}=0" for name in names.get(strategy, ("strength",))]
    plain = outcome(runs(configure("sequential", setup), tmp_path / "sequential"))
    weights = runs.weights()
    assert outcome(runs(configure(strategy, setup, *more, *zero), tmp_path / "zero")) == plain
    assert same(runs.weights(), weights)


@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if s != "sequential"])
def test_a_strategy_is_not_sequential(runs: Runs, tmp_path: Path, strategy: str) -> None:
    outcomes = [outcome(runs(configure(name), tmp_path / name))["backbone.safetensors"] for name in ("sequential", strategy)]
    assert outcomes[0] != outcomes[1]
