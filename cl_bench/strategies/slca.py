"""SLCA: a slow backbone, and after each task a head aligned to all classes by what is remembered of their features."""

from __future__ import annotations

import copy
import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cl_bench.core.kinds import Count, Fraction, NonNegative, Positive, Whole
from cl_bench.core.learner import Learner
from cl_bench.core.types import Experience, Stream
from cl_bench.strategies.answers import own_classes
from cl_bench.strategies.masked import OwnClasses
from cl_bench.strategies.passes import features, width

SHORTEST = 1e-7  # length of logits; GengDavid/SLCA adds as much


class SLCA(OwnClasses):
    """SLCA (2303.05118): a slow backbone (train.backbone_rate), and after each task an aligned copy of the head, which answers.

    The copy learns from draws of N(s_t m, S), a Gaussian for each class of each task so far, s_t = 1 - shrink (1 - t / tasks so far),
    by the cross-entropy of l / (temperature * mean over the tasks of |l of the task's classes|). Training goes on with the head itself.
    """

    needs_boundaries: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = True
    needs_logits: ClassVar[bool] = True
    remembers = ("means", "factors", "counts")

    def __init__(
        self,
        *,
        samples: Count,
        epochs: Whole,
        rate: Positive,
        momentum: Fraction,
        decay: NonNegative,
        temperature: Positive | None,
        shrink: Fraction,
        ridge: Positive,
        class_mask: bool,
        batch_size: Count,
    ):
        super().__init__(class_mask=class_mask)
        self.samples, self.epochs, self.rate, self.momentum, self.decay = samples, epochs, rate, momentum, decay
        self.temperature, self.shrink, self.ridge, self.batch_size = temperature, shrink, ridge, batch_size

    def prepare(self, learner: Learner, stream: Stream) -> None:
        super().prepare(learner, stream)
        self.place = {e.index: n for n, e in enumerate(stream.experiences)}
        self.groups = own_classes(stream).to(learner.device)
        pairs = [(n, c) for n, e in enumerate(stream.experiences) for c in e.classes]  # a row below for each
        self.tasks, self.labels = torch.tensor(pairs, device=learner.device).t()
        zeros = learner.parameters[0].detach().new_zeros
        dim = width(learner, stream)
        self.means, self.factors = zeros(len(pairs), dim), zeros(len(pairs), dim, dim)
        self.counts = torch.zeros_like(self.tasks)
        learner.network.head = self.head = Aligned(learner.network.head)

    def after_task(self, learner: Learner, task: Experience) -> None:
        place = self.place[task.index]
        found = list(features(learner, task.train, self.batch_size))
        x, y = torch.cat([f for f, _ in found]).double(), torch.cat([y for _, y in found])
        for row in (self.tasks == place).nonzero().flatten().tolist():
            self.keep(row, x[y == self.labels[row]])
        self.head.copy.load_state_dict(self.head.start.state_dict())
        if place:
            self.align(learner, place)

    def keep(self, row: int, x: Tensor) -> None:
        """The Gaussian of features [N, D]; of a class without examples none."""
        if not len(x):
            return
        centred = x - x.mean(0)
        covariance = centred.t() @ centred / max(1, len(x) - 1) + self.ridge * torch.eye(x.shape[1]).to(x)
        self.means[row], self.factors[row], self.counts[row] = x.mean(0), torch.linalg.cholesky(covariance), len(x)

    def align(self, learner: Learner, place: int) -> None:
        rows = (self.counts > 0).nonzero().flatten()
        shrunk = 1 - self.shrink * (1 - (self.tasks[rows] + 1) / (place + 1))
        means, y = shrunk[:, None] * self.means[rows], self.labels[rows].repeat_interleave(self.samples)
        head = self.head.copy.requires_grad_(True)
        optimizer = torch.optim.SGD(head.parameters(), lr=self.rate, momentum=self.momentum, weight_decay=self.decay)
        for epoch in range(self.epochs):
            optimizer.param_groups[0]["lr"] = self.rate * (1 + math.cos(math.pi * epoch / self.epochs)) / 2
            noise = torch.randn(len(rows), self.samples, means.shape[1], dtype=means.dtype, generator=learner.rng).to(learner.device)
            x = (means[:, None] + noise @ self.factors[rows].mT).flatten(0, 1)
            for index in torch.randperm(len(x), generator=learner.rng).to(learner.device).split(self.samples):
                optimizer.zero_grad()
                self.judge(head(x[index]), y[index], self.groups[: place + 1]).backward()
                optimizer.step()
        head.requires_grad_(False)

    def judge(self, logits: Tensor, y: Tensor, groups: Tensor) -> Tensor:
        """Cross-entropy among the classes of groups [T, C]."""
        if self.temperature is not None:
            lengths = torch.linalg.vector_norm(logits[:, None] * groups, dim=2).mean(1, keepdim=True)
            logits = logits / (self.temperature * lengths.clamp(min=SHORTEST))
        return F.cross_entropy(logits.masked_fill(~groups.any(0), -torch.inf), y)


class Aligned(nn.Module):
    """The head `start` while it is trained, its aligned copy where the network is asked."""

    def __init__(self, start: nn.Module):
        super().__init__()
        self.start, self.copy = start, copy.deepcopy(start).requires_grad_(False)

    def forward(self, found: Tensor) -> Tensor:
        head: nn.Module = self.start if self.training else self.copy
        return head(found)
