"""One batched forward pass per test, shared by every probe. Probes observe and change nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from cl_bench.core.errors import DivergenceError
from cl_bench.core.learner import Learner
from cl_bench.core.types import Examples, Stream
from cl_bench.objectives.causal_lm import token_losses
from cl_bench.probes.moment import PENULTIMATE, Held, Moment, MomentProbe, tap
from cl_bench.strategies import passes


@dataclass(frozen=True)
class Readout:
    """What the network says of one task's held-out examples after experience `after` (-1: before any).

    features [N, D], logits [N, C], y [N]; of text features and logits are empty, losses [N] has the nats per token of each block.
    classes: the task's own; seen: all classes up to now, or up to the task where it lies ahead.
    """

    after: int
    on: str
    task: int
    classes: tuple[int, ...]
    seen: tuple[int, ...]
    features: Tensor
    logits: Tensor
    y: Tensor
    losses: Tensor = field(default_factory=lambda: torch.empty(0))


class Probe(Protocol):
    def __call__(self, readout: Readout) -> Mapping[str, Tensor | float]: ...


@torch.inference_mode()
def read(learner: Learner, data: Examples, batch_size: int) -> tuple[Tensor, Tensor]:
    """(features [N, D], logits [N, C]) in evaluation mode. Logits that are not finite stop the run."""
    features, logits = [], []
    with passes.evaluating(learner.network):
        for raw in data.raw.split(batch_size):
            with learner.fabric.autocast():
                f = learner.network.features(learner.view(raw.to(learner.device), None))
                features.append(f)
                logits.append(learner.network.head(f))
    return torch.cat(features), finite(torch.cat(logits))


@torch.inference_mode()
def read_losses(learner: Learner, data: Examples, batch_size: int) -> Tensor:
    """[N]: nats per token of each block of text, in evaluation mode; never more than one batch of logits."""
    losses = []
    with passes.evaluating(learner.network):
        for raw in data.raw.split(batch_size):
            on_device = raw.to(learner.device)
            with learner.fabric.autocast():
                logits = learner.network(learner.view(on_device, None))
            batch = learner.batch(on_device, data.y, 0)
            losses.append(token_losses(logits, learner.objective.targets(batch)).mean(1))
    return finite(torch.cat(losses))


def finite(answers: Tensor) -> Tensor:
    if not answers.isfinite().all():
        raise DivergenceError("the network answers with numbers that are not finite; lower train.optimizer.lr, or set train.clip")
    return answers


def observe(
    learner: Learner,
    stream: Stream,
    held_out: Mapping[str, Examples],
    after: int,
    probes: Mapping[str, Probe | MomentProbe],
    *,
    future: bool,
    batch_size: int,
    folder: Path,
) -> Iterator[dict[str, Any]]:
    """Rows of every probe on every task learned so far (future: on all); folder: where a probe may keep files."""
    learner.reseed("probes", after)
    of_moment = [probe for probe in probes.values() if isinstance(probe, MomentProbe)]
    layers = list(dict.fromkeys(name for probe in of_moment for name in probe.layers))
    of_test = [probe for probe in probes.values() if not isinstance(probe, MomentProbe)]
    held: list[Held] = []
    for on, test in stream.tests.items():
        if not future and test.task > after:  # where tasks are merged, after is the last of them
            continue
        features = logits = losses = torch.empty(0)
        with tap(learner.network, layers) as tapped:
            if stream.is_text:
                losses = read_losses(learner, held_out[on], batch_size)
            elif of_test:
                features, logits = read(learner, held_out[on], batch_size)
            else:  # a head may have no logits
                features = finite(torch.cat([found for found, _ in passes.features(learner, held_out[on], batch_size)]))
        y = held_out[on].y.to(learner.device)
        seen = stream.seen(max(after, test.task))  # a task ahead: as when it comes, so that transfer compares like with like
        readout = Readout(after, on, test.task, test.classes, seen, features, logits, y, losses)
        yield from rows(readout, of_test)
        if of_moment:
            first = min(e.index for e in stream.experiences if e.looked and e.index >= test.task)
            found = {PENULTIMATE: features, **{name: torch.cat(batches) for name, batches in tapped.items()}}
            held.append(Held(on, test.classes, first, y, found, test.task))
    last = after == max(e.index for e in stream.experiences)
    moment = Moment(after, learner.seed, folder, held, learner, batch_size, last)
    for probe in of_moment if held else ():
        yield from probe(moment)


def rows(readout: Readout, probes: Iterable[Probe]) -> Iterable[dict[str, Any]]:
    for probe in probes:
        for metric, value in probe(readout).items():
            yield {"after": readout.after, "on": readout.on, "metric": metric, "value": float(value)}
