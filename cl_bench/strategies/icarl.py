"""Incremental classifier and representation learning: exemplars chosen by herding, classes told by the nearest mean."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cl_bench.core.errors import ConfigError
from cl_bench.core.kinds import Count
from cl_bench.core.learner import Learner
from cl_bench.core.types import Batch, Examples, Experience, Output, Stream
from cl_bench.strategies.base import Strategy
from cl_bench.strategies.memory import one_of_each
from cl_bench.strategies.passes import features
from cl_bench.strategies.teacher import Teacher

AT_ONCE = 512  # examples in a forward pass of herding; speed only


class ICaRL(Strategy):
    """iCaRL (1611.07725): sum over the classes seen of binary cross-entropy, mean over new and remembered examples.

    A class of the task is taught by labels, an older one by the old network's sigmoid. Whatever the objective's
    masks say, the loss is over all classes seen. Each class keeps memory_size // (classes seen) exemplars.
    """

    needs_boundaries: ClassVar[bool] = True
    needs_logits: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = True

    def __init__(self, *, memory_size: Count, batch_size: Count):
        self.memory_size, self.batch_size = memory_size, batch_size

    def prepare(self, learner: Learner, stream: Stream) -> None:
        if not learner.objective.needs_labels:
            raise ConfigError(
                f"iCaRL chooses exemplars class by class and needs labels, which objective {type(learner.objective).__name__} "
                "does without; use objective=supervised, or strategy=er"
            )
        one_of_each("iCaRL", self.memory_size, stream)
        self.teacher = Teacher(learner.network)
        learner.network.head = self.head = NearestMean(learner.network.head)
        self.raw = torch.zeros(self.memory_size, *stream.input_shape, dtype=torch.uint8, device=learner.device)
        self.y = torch.zeros(self.memory_size, dtype=torch.int64, device=learner.device)
        self.num_kept = 0
        self.seen, self.old = {}, {}  # experience -> bool [C]: classes met by then; those of them taught by the old network
        for e in stream.experiences:
            self.seen[e.index], self.old[e.index] = torch.zeros(2, stream.num_classes, dtype=torch.bool, device=learner.device)
            self.seen[e.index][list(stream.seen(e.index))] = True
            self.old[e.index][[c for c in stream.seen(e.index) if c not in e.classes]] = True

    def loss(self, learner: Learner, batch: Batch) -> Output:
        assert isinstance(batch.task, int)  # new examples come from one experience
        raw, y, old = batch.raw, batch.y, self.old[batch.task]
        if self.num_kept:
            index = torch.randint(0, self.num_kept, (self.batch_size,), generator=learner.rng).to(learner.device, non_blocking=True)
            raw, y = (torch.cat([new, kept.index_select(0, index)]) for new, kept in ((raw, self.raw), (y, self.y)))
        views = learner.views(raw)
        with learner.fabric.autocast():  # before the pass whose activations stay: the teacher's take memory that the last step left
            told = self.teacher(views[0]).sigmoid() if self.num_kept else None
        output = learner.judge(views, Batch(raw, y, batch.task))
        target = F.one_hot(y, len(old)).to(output.outputs.dtype)
        with learner.fabric.autocast():
            target = target if told is None else torch.where(old, told, target)
            losses = F.binary_cross_entropy_with_logits(output.outputs, target, reduction="none")
        return replace(output, loss=(losses * self.seen[batch.task]).sum() / len(y))

    def after_task(self, learner: Learner, task: Experience) -> None:
        """Choose the new exemplars, shorten the old, and take the means of all."""
        self.teacher.become(learner.network)
        pool = Examples.concatenate([Examples(self.raw[: self.num_kept], self.y[: self.num_kept]), task.train.to(learner.device)])
        found = F.normalize(torch.cat([f for f, _ in features(learner, pool, AT_ONCE)]))
        classes = pool.y.unique().tolist()
        share, kept = self.memory_size // len(classes), []
        for c in classes:
            places = (pool.y == c).nonzero().flatten()
            kept.append(places[herd(found[places], share)] if c in task.classes else places[:share])
            self.head.prototypes[c], self.head.known[c] = F.normalize(found[kept[-1]].mean(0), dim=0), True
        index = torch.cat(kept)
        self.num_kept = len(index)
        self.raw[: self.num_kept], self.y[: self.num_kept] = pool.raw[index], pool.y[index]

    def state_dict(self) -> dict[str, Any]:
        own = {"raw": self.raw, "y": self.y, "num_kept": self.num_kept, "teacher": self.teacher.state_dict()}
        return {**own, "prototypes": self.head.prototypes, "known": self.head.known}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.num_kept = state["num_kept"]
        self.teacher.load_state_dict(state["teacher"])
        for name, mine in (("raw", self.raw), ("y", self.y), ("prototypes", self.head.prototypes), ("known", self.head.known)):
            mine.copy_(state[name])


class NearestMean(nn.Module):
    """The linear head while it trains; in evaluation minus the squared distance between unit features and class means.

    weight and bias stay the head's own, so the optimizer and every checkpoint know them.
    """

    prototypes: Tensor  # [C, D] of length 1
    known: Tensor  # bool [C]

    def __init__(self, head: Any):
        super().__init__()
        self.weight, self.bias = head.weight, head.bias
        self.register_buffer("prototypes", torch.zeros_like(head.weight.detach()), persistent=False)
        self.register_buffer("known", torch.zeros_like(head.bias.detach(), dtype=torch.bool), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        if self.training:
            return F.linear(features, self.weight, self.bias)
        away = 2 - 2 * F.normalize(features.to(self.prototypes.dtype)) @ self.prototypes.t()
        return -torch.where(self.known, away, 4.0)  # no point of the sphere is farther than 4


def herd(features: Tensor, count: int) -> Tensor:
    """Places of the examples whose growing mean stays nearest to the mean of all [N, D]; in the order of choice."""
    mean = F.normalize(features.mean(0), dim=0)
    total, taken, chosen = torch.zeros_like(mean), torch.zeros(len(features), dtype=torch.bool, device=mean.device), []
    for _ in range(min(count, len(features))):
        away = (mean - F.normalize(total + features)).square().sum(1)
        place = away.masked_fill(taken, torch.inf).argmin()
        total, taken[place] = total + features[place], True
        chosen.append(place)
    return torch.stack(chosen)
