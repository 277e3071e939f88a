"""Whole runs of any strategy on toy streams, and what they leave."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

import cl_bench.run
from cl_bench.checks import problems
from cl_bench.cli import check
from cl_bench.core.errors import Interrupted
from cl_bench.core.stop import Stop
from cl_bench.folder import RunFolder
from cl_bench.overrides import CONF, choices
from cl_bench.resolve import resolve

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


def attempt(path: Path, *overrides: str) -> None:
    """What `python -m cl_bench <overrides>` does, in this process."""
    check([*overrides])
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = resolve(compose("config", overrides=[*overrides, "runtime.progress=false"]), [CONF], named=False)
    config["name"] = {"model": "mlp"}
    cl_bench.run.execute(config, RunFolder(path), Stop())


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

    def restarted(self, config: dict[str, Any], path: Path, calls: int = 1) -> int:
        """Stopped after every so many looks at the signal, until nothing is left to do; how often."""
        for stopped in range(200):
            try:
                self(config, path, calls)
                return stopped
            except Interrupted:
                pass
        raise AssertionError("200 restarts, and no end")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(t.shape) for name, t in self.learner.network.state_dict().items()}

    def weights(self) -> dict[str, Tensor]:
        return {name: t.clone() for name, t in self.learner.network.state_dict().items()}


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
