"""The line between two sets of weights of one network, and what held-out examples say along it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cl_bench.core.errors import ConfigError, DivergenceError
from cl_bench.core.learner import Learner
from cl_bench.core.types import Examples
from cl_bench.strategies.passes import evaluating
from cl_bench.strategies.weights import flatten, split


@dataclass(frozen=True)
class Held:
    """Examples of a task that no step is taken on; closed: bool [C], logits of other heads."""

    name: str
    part: str
    data: Examples
    closed: Tensor


class Segment:
    """w(a) = (1 - a) start + a end over some tensors of the network; every measurement is kept, none is made twice.

    What needs no second pass gets none: all tasks share the weights at a coefficient, and where the head alone differs the
    features too. Batch-norm statistics of a mixture are no mixture of statistics: they are estimated anew, but not at the ends.
    """

    def __init__(self, learner: Learner, tensors: Sequence[Tensor], backbone: int, batch_size: int, norm_examples: int):
        """backbone: how many of the tensors' numbers, the first ones, are the backbone's."""
        self.learner, self.tensors, self.backbone = learner, list(tensors), backbone
        self.batch_size, self.norm_examples = batch_size, norm_examples
        modules = learner.network.get_submodule("backbone").modules()
        self.norms = [m for m in modules if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
        self.flat = flatten(tensors)
        self.views = split(self.flat, tensors)

    def span(self, start: Tensor, end: Tensor, shown: Sequence[Held]) -> None:
        """Begin a line; shown: whose examples the batch-norm statistics are estimated on."""
        if start.shape != end.shape or start.shape != self.flat.shape:
            raise ConfigError(
                f"weights of {start.numel():,}, {end.numel():,} and {self.flat.numel():,} numbers lie on no line; "
                "interpolate between two sets of weights of one model"
            )
        self.start, self.end, self.shown = start, end, list(shown)
        self.shares_features = torch.equal(start[: self.backbone], end[: self.backbone])
        self.at = math.nan
        self.measured: dict[tuple[str, str, float], tuple[float, float]] = {}  # (task, part, a) -> (loss, accuracy)
        self.seconds: dict[tuple[str, str, float], float] = {}
        self.features: dict[tuple[str, str], list[Tensor]] = {}

    @torch.no_grad()
    def move(self, a: float) -> None:
        """The network's weights are w(a); at 0 and 1 they are the two it lies between, to the bit."""
        if a == self.at:
            return
        if a in (0, 1):
            self.flat.copy_(self.end if a else self.start)
        else:
            torch.lerp(self.start, self.end, a, out=self.flat)
        torch._foreach_copy_(self.tensors, self.views)
        if self.norms and a not in (0, 1) and not self.shares_features:
            self.estimate()
        self.at = a

    def estimate(self) -> None:
        """Running statistics as the mean over batches that have as many examples of each task."""
        share = max(1, self.batch_size // len(self.shown))
        before = [m.momentum for m in self.norms]
        with evaluating(self.learner.network), self.learner.fabric.autocast():
            for m in self.norms:
                m.reset_running_stats()
                m.momentum, m.training = None, True  # None: cumulative
            for first in range(0, self.norm_examples, share):
                raw = torch.cat([held.data.raw[first : first + share] for held in self.shown])
                if len(raw) > 1:
                    self.learner.network.features(self.learner.view(raw, None))
        for m, momentum in zip(self.norms, before, strict=True):
            m.momentum = momentum

    def measure(self, held: Held, a: float) -> tuple[float, float]:
        """(mean cross-entropy over the task's own logits, accuracy among them) at w(a)."""
        key = (held.name, held.part, a)
        if key not in self.measured:
            began = time.perf_counter()
            self.move(a)
            loss, accuracy = self._pass(held)
            if not math.isfinite(loss):
                raise DivergenceError(
                    f"the loss of {held.name} is {loss} at coefficient {a:g} between the weights before and after; "
                    "lower train.optimizer.lr, or narrow strategy.low and strategy.high"
                )
            self.measured[key] = loss, accuracy
            self.seconds[key] = time.perf_counter() - began
        return self.measured[key]

    @torch.no_grad()
    def _pass(self, held: Held) -> tuple[float, float]:
        network = self.learner.network
        known = self.features.get((held.name, held.part), [])
        kept, sums = [], torch.zeros(2, dtype=torch.float64, device=self.learner.device)
        with evaluating(network):
            for number, (raw, y) in enumerate(self._batches(held)):
                with self.learner.fabric.autocast():
                    f = known[number] if known else network.features(self.learner.view(raw, None))
                    logits = network.head(f).double().masked_fill(held.closed, -torch.inf)
                sums += torch.stack([F.cross_entropy(logits, y, reduction="sum"), (logits.argmax(1) == y).double().sum()])
                kept += [f] * self.shares_features
        if kept:
            self.features[held.name, held.part] = kept
        loss, accuracy = (sums / len(held.data)).tolist()
        return loss, accuracy

    def slope(self, held: Held) -> tuple[float, float, float]:
        """(cosine between start - end and the loss's gradient at start, length of that gradient, of end - start): over parameters."""
        self.move(0.0)
        network = self.learner.network
        moved = [(t, d) for t, d in zip(self.tensors, split(self.end - self.start, self.tensors), strict=True) if t.requires_grad]
        parameters, directions = [t for t, _ in moved], flatten([d for _, d in moved])
        total = torch.zeros_like(directions)
        with evaluating(network):
            for raw, y in self._batches(held):
                with self.learner.fabric.autocast():
                    logits = network(self.learner.view(raw, None)).masked_fill(held.closed, -torch.inf)
                gradients = torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), parameters, allow_unused=True)
                total += flatten([torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)])
        total /= len(held.data)
        norm, length = total.norm(), directions.norm()
        cosine = -(total @ directions) / (norm * length)
        found = torch.stack([cosine, norm, length]).double().nan_to_num(0.0).tolist()
        return found[0], found[1], found[2]

    def _batches(self, held: Held) -> Iterator[tuple[Tensor, Tensor]]:
        device = self.learner.device
        for raw, y in zip(held.data.raw.split(self.batch_size), held.data.y.split(self.batch_size), strict=True):
            yield raw.to(device), y.to(device)
