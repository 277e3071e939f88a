"""What holds for every strategy; a new file in conf/strategy is tested without a line here."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

import cl_bench.run
from cl_bench.checks import problems
from cl_bench.core.errors import Interrupted
from cl_bench.core.stop import Stop
from cl_bench.folder import RunFolder
from cl_bench.overrides import CONF, choices
from cl_bench.resolve import resolve
from cl_bench.signatures import class_flag

VARIANTS = ("l2p_paper", "l2p_torch", "l2p_one_prompt", "l2p_one_long", "l2p_random", "ranpac_lora")  # settings of what is here, with twins
STRATEGIES = [name for name in choices("strategy") if name not in VARIANTS]
BASE = ("data=toy", "runtime.device=cpu", "runtime.progress=false", "runtime.save_backbone=true", "train.batch_size=8", "train.epochs=2")
SETUPS = {
    # rate * strength * Fisher stays below 2, beyond which plain SGD leaves EWC's quadratic
    "plain": ("scenario=toy", "model.hidden=[8]", "probe=[accuracy,loss]", "train.optimizer.lr=0.01"),
    "rich": (  # all that has a state: batch norm, Adam's moments kept, random views, masks, a schedule, looks ahead
        *("scenario=toy", "model=mlp_bn", "model.hidden=[8]", "probe=[accuracy,loss]", "train=adam", "train.renew_optimizer=false"),
        *("train.batch_norm=frozen", "view=crop_flip", "view.padding=1", "objective.loss_over=seen", "train.clip=1.0"),
        *("look.before=true", "look.future=true"),
    ),
}


SMALL = {"ranpac": ["strategy.size=40"], "coda_prompt": ["strategy.size=6"]}  # costly at their own size
VIT = ["model=vit_femto", "model.patch_size=2", "model.width=12", "model.depth=2"]
PROMPTED = ("l2p", "dualprompt", "coda_prompt", "lora")  # what begins so works on vision transformers
SHALLOW = {"dualprompt": ["strategy.general_layers=[0]", "strategy.expert_layers=[1]"], "coda_prompt": ["strategy.layers=[0,1]"]}


class Burn:
    """A probe that draws random numbers wherever it can, and says what accuracy says elsewhere."""

    def __call__(self, readout: Any) -> dict[str, float]:
        torch.rand(int(torch.randint(1, 50, ())))
        torch.nn.functional.dropout(torch.ones(9))
        random.random()
        torch.manual_seed(int(torch.randint(0, 1000, ())))
        return {"burnt": 0.0}


def configure(strategy: str, setup: str = "plain", *more: str) -> dict[str, Any]:
    overrides = [*SETUPS[setup], *BASE, f"strategy={strategy}", *SMALL.get(strategy, []), *SHALLOW.get(strategy, []), *more]
    if strategy.startswith(PROMPTED) or VIT[0] in more:
        overrides = [*VIT, *(o for o in overrides if o not in VIT and not o.startswith(("model=", "model.hidden")))]
    if strategy == "lora":
        pytest.importorskip("peft")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = resolve(compose("config", overrides=overrides), [CONF], named=False)
    config["name"] = {"model": "mlp", "strategy": strategy}
    assert problems(config) == []
    return config


class Runs:
    """execute() with the learner and strategy of the last call kept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        make, build = cl_bench.run.make_learner, cl_bench.run.build

        def kept(*args: Any) -> Any:
            self.learner, weights = make(*args)
            return self.learner, weights

        def built(node: Any, *args: Any, **given: Any) -> Any:
            found = build(node, *args, **given)
            if node is self.config["strategy"]:
                self.strategy, prepare = found, found.prepare

                def prepared(*args: Any) -> None:
                    prepare(*args)
                    self.before = self.shapes()

                found.prepare = prepared
            return found

        monkeypatch.setattr(cl_bench.run, "make_learner", kept)
        monkeypatch.setattr(cl_bench.run, "build", built)

    def __call__(self, config: dict[str, Any], path: Path, calls: int | None = None) -> Path:
        """Stopped by a signal 15 after so many looks at it, where given."""
        self.config, self.looked = config, 0

        class StopAfter(Stop):
            def __call__(_) -> int:  # noqa: N805 - self is the runs
                self.looked += 1
                return 15 if calls is not None and self.looked > calls else 0

        cl_bench.run.execute(config, RunFolder(path), StopAfter())
        return path

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(t.shape) for name, t in self.learner.network.state_dict().items()}

    def weights(self) -> dict[str, Tensor]:
        return {name: t.clone() for name, t in self.learner.network.state_dict().items()}


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    return Runs(monkeypatch)


def outcome(path: Path) -> dict[str, bytes]:
    """What a run leaves that may not depend on how it went."""
    names = [p.name for p in path.iterdir() if p.suffix in (".csv", ".jsonl", ".safetensors")]
    assert {"metrics.jsonl", "summary.csv", "backbone.safetensors"} <= set(names)
    found = {name: (path / name).read_bytes() for name in names}
    return {name: tensors(data) if name.endswith(".safetensors") else data for name, data in found.items()}


def tensors(data: bytes) -> bytes:
    """Of a .safetensors file, without its header, which names the configuration."""
    return data[8 + int.from_bytes(data[:8], "little") :]


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def leaves(state: Any) -> list[Any]:
    return [leaf for value in state.values() for leaf in leaves(value)] if isinstance(state, dict) else [state]


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
    weights, path, stopped = runs.weights(), tmp_path / "stopped", 0
    calls = 5 if runs.looked > 20 else 1  # a method without steps is looked at twice a task
    for _ in range(200):
        try:
            runs(config, path, calls)
            break
        except Interrupted:
            stopped += 1
    assert stopped >= 3 and outcome(path) == whole and same(runs.weights(), weights)


@pytest.mark.parametrize("setup", SETUPS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_probe_changes_nothing(runs: Runs, tmp_path: Path, strategy: str, setup: str) -> None:
    config = configure(strategy, setup)
    plain = outcome(runs(config, tmp_path / "plain"))
    weights = runs.weights()
    burning = copy.deepcopy(config)
    burning["probe"] = {"burn": {"_target_": "test_laws.Burn"}, **config["probe"]}
    burning["runtime"]["allow_targets"] = [*config["runtime"]["allow_targets"], "test_laws."]
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
