"""Probes that compare tests, or moments: they get the features of every test of a moment at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cl_bench.core.errors import ConfigError
from cl_bench.core.learner import Learner
from cl_bench.core.types import Examples, Test
from cl_bench.mistakes import nearest

Row = dict[str, Any]
PENULTIMATE = ""  # the layer that has no name: what the head reads
WHOLE = "all"  # `on` of rows about all tests together; the summary takes the last of them


@dataclass(frozen=True)
class Held:
    """One test's features: layer -> [N, D]. learned: the moment from which on its task counts as learned."""

    on: str
    classes: tuple[int, ...]
    learned: int
    y: Tensor
    features: Mapping[str, Tensor]


@dataclass(frozen=True)
class Moment:
    """All tests looked at after experience `after`; folder: where a probe may keep files of its own."""

    after: int
    seed: int
    folder: Path
    held: Sequence[Held]

    def row(self, on: str, metric: str, value: Tensor | float) -> Row:
        return {"after": self.after, "on": on, "metric": metric, "value": float(value)}


class MomentProbe(ABC):
    """Called once a moment; layers: modules of the backbone whose outputs it wants beside the penultimate features."""

    layers: Sequence[str] = ()
    said: Sequence[str] = ()  # remarks of the last moment, for the run's log

    @abstractmethod
    def prepare(self, learner: Learner, tests: Mapping[str, Test], held_out: Mapping[str, Examples]) -> None:
        """Refuse, before training, what it could not look at."""

    @abstractmethod
    def __call__(self, moment: Moment) -> Iterable[Row]: ...


@contextmanager
def tap(network: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, list[Tensor]]]:
    """What these modules of the backbone put out while it is open, [B, D] a batch, the mean over tokens or pixels."""
    found: dict[str, list[Tensor]] = {name: [] for name in layers}
    modules = dict(network.get_submodule("backbone").named_modules())

    def keep(name: str) -> Any:
        def hook(module: nn.Module, given: Any, out: Tensor) -> None:
            pooled = out.flatten(2).mean(2) if out.ndim == 4 else out.flatten(1, -2).mean(1) if out.ndim > 2 else out
            found[name].append(pooled)

        return hook

    with ExitStack() as hooks:
        for name in found:
            hooks.callback(modules[name].register_forward_hook(keep(name)).remove)
        yield found


@torch.inference_mode()
def widths(learner: Learner, data: Examples, layers: Sequence[str]) -> dict[str, int]:
    """layer -> D, from one example; refuses layers that are not there."""
    names = [name for name, _ in learner.network.get_submodule("backbone").named_modules() if name]
    for name in layers:
        if name not in names:
            raise ConfigError(f"probe.cka.layers: {name} is no module of the backbone; {nearest(name, names)}")
    was_training = learner.network.training
    learner.network.eval()
    with tap(learner.network, layers) as tapped, learner.fabric.autocast():
        width = learner.network.features(learner.view(data.raw[:1].to(learner.device), None)).shape[-1]
    learner.network.train(was_training)
    for name, batches in tapped.items():
        if len(batches) != 1:
            raise ConfigError(f"probe.cka.layers: {name} runs {len(batches)} times in a pass and not once; name another module")
    return {PENULTIMATE: width, **{name: batches[0].shape[1] for name, batches in tapped.items()}}
