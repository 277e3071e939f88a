"""Nearest class mean: no training at all."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cl_bench.core.kinds import Count
from cl_bench.core.learner import Learner
from cl_bench.core.types import Experience, Stream
from cl_bench.strategies.answers import below
from cl_bench.strategies.base import Strategy
from cl_bench.strategies.frozen import Still, choose_parameters
from cl_bench.strategies.passes import features, width


class NMC(Strategy):
    """Nearest class mean on the features of the first weights (2210.04428).

    logit_c = -|f - m_c|^2 / 2, less its -|f|^2 / 2 which is the same for all c; `cosine` (2303.07338): of f and m_c at length 1.
    """

    needs_logits: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = True

    def __init__(self, *, metric: Literal["euclidean", "cosine"], batch_size: Count):
        self.metric, self.batch_size = metric, batch_size

    def prepare(self, learner: Learner, stream: Stream) -> None:
        dim = width(learner, stream)
        learner.network.backbone = Still(learner.network.backbone, learner, stream, self.batch_size)
        learner.network.head = self.means = Means(dim, stream.num_classes, self.metric).to(learner.parameters[0])
        choose_parameters(learner)

    def learns(self, task: Experience) -> bool:
        return False

    def after_task(self, learner: Learner, task: Experience) -> None:
        for found, y in features(learner, task.train, self.batch_size):
            self.means.add(found, y)


class Means(nn.Module):
    """Sums and counts per class; a class that returns goes on where it was."""

    sums: Tensor
    counts: Tensor

    def __init__(self, dim: int, num_classes: int, metric: str):
        super().__init__()
        self.metric = metric
        self.register_buffer("sums", torch.zeros(num_classes, dim))
        self.register_buffer("counts", torch.zeros(num_classes, dtype=torch.int64))

    def add(self, found: Tensor, y: Tensor) -> None:
        self.sums.index_add_(0, y, found.to(self.sums))
        self.counts += torch.bincount(y, minlength=len(self.counts))

    def forward(self, found: Tensor) -> Tensor:
        with torch.autocast(found.device.type, enabled=False):  # differences of large numbers
            means, f = self.sums / self.counts.clamp(min=1)[:, None], found.to(self.sums)
            if self.metric == "cosine":
                means, f = F.normalize(means), F.normalize(f)
            logits = f @ means.t() - means.square().sum(1) / 2
        return below(logits, self.counts > 0)
