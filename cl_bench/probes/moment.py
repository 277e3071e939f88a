"""Probes that compare tests, or moments: they get the features of every test of a moment at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cl_bench.core.errors import ConfigError
from cl_bench.core.learner import Learner
from cl_bench.core.types import Examples, Stream
from cl_bench.mistakes import nearest
from cl_bench.strategies.passes import evaluating, features

Row = dict[str, Any]
PENULTIMATE = ""  # the layer that has no name: what the head reads
WHOLE = "all"  # `on` of rows about all tests together; the summary takes the last of them


@dataclass(frozen=True)
class Held:
    """One test's features: layer -> [N, D]. learned: the moment from which on its task counts as learned; task: its own."""

    on: str
    classes: tuple[int, ...]
    learned: int
    y: Tensor
    features: Mapping[str, Tensor]
    task: int = 0


@dataclass(frozen=True)
class Moment:
    """All tests looked at after experience `after`; folder: where a probe may keep files of its own.

    learner: to look through, not to change. last: whether none comes after. kept: features of further examples, by name.
    """

    after: int
    seed: int
    folder: Path
    held: Sequence[Held]
    learner: Learner | None = None
    batch_size: int = 0
    last: bool = False
    kept: dict[str, Tensor] = field(default_factory=dict)

    def features(self, name: str, data: Examples) -> Tensor:
        """[N, D] of other examples than the tests', read once for all probes that ask for them by this name."""
        assert self.learner is not None
        if name not in self.kept:
            self.kept[name] = torch.cat([found for found, _ in features(self.learner, data, self.batch_size)]).float()
        return self.kept[name]

    def row(self, on: str, metric: str, value: Tensor | float) -> Row:
        return {"after": self.after, "on": on, "metric": metric, "value": float(value)}


class MomentProbe(ABC):
    """Called once a moment; layers: modules of the backbone whose outputs it wants beside the penultimate features."""

    layers: Sequence[str] = ()
    said: Sequence[str] = ()  # remarks of the last moment, for the run's log

    @abstractmethod
    def prepare(self, learner: Learner, stream: Stream, held_out: Mapping[str, Examples]) -> None:
        """Refuse, before training, what it could not look at; the stream is as the scenario made it."""

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
    with evaluating(learner.network), tap(learner.network, layers) as tapped, learner.fabric.autocast():
        width = learner.network.features(learner.view(data.raw[:1].to(learner.device), None)).shape[-1]
    for name, batches in tapped.items():
        if len(batches) != 1:
            raise ConfigError(f"probe.cka.layers: {name} runs {len(batches)} times in a pass and not once; name another module")
    return {PENULTIMATE: width, **{name: batches[0].shape[1] for name, batches in tapped.items()}}
