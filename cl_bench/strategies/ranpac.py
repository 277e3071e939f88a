"""RanPAC: ridge regression on randomly projected features."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cl_bench.core.errors import ConfigError, RunError
from cl_bench.core.kinds import Count, Fraction, Positive
from cl_bench.core.learner import Learner
from cl_bench.core.types import Batch, Experience, Output, Stream
from cl_bench.strategies.answers import below
from cl_bench.strategies.base import Strategy
from cl_bench.strategies.frozen import Still
from cl_bench.strategies.lora import LoRA
from cl_bench.strategies.passes import features, width


class RanPAC(Strategy):
    """RanPAC (2307.02251): H = relu(f W), W ~ N(0, 1); over all tasks G += H'H, Q += H'Y; logits H (G + lambda I)^-1 Q.

    lambda: least squared error on a held-out share of the newest task after a fit to the rest of it. First of all an ordinary head
    may learn the first task, together with low-rank changes of the network (the paper: other adapters) or with all of it.
    """

    needs_logits: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = True

    def __init__(self, *, size: Count, ridges: list[Positive], held_out: Fraction, adapt_first_task: bool | LoRA, batch_size: Count):
        if not isinstance(adapt_first_task, bool | LoRA):
            name = type(adapt_first_task).__name__
            raise ConfigError(f"strategy.adapt_first_task is a {name}; give false, true for the whole network, or strategy=ranpac_lora")
        self.size, self.ridges, self.held_out, self.batch_size = size, sorted(ridges), held_out, batch_size
        self.adapter = adapt_first_task if isinstance(adapt_first_task, LoRA) else Strategy() if adapt_first_task else None

    def prepare(self, learner: Learner, stream: Stream) -> None:
        if not self.ridges:
            raise ConfigError("strategy.ridges=[] leaves no lambda to choose; give one or more numbers above 0")
        for e in stream.experiences:
            if not 0 < self.number_fitted(e) < len(e.train):
                raise ConfigError(
                    f"strategy.held_out={self.held_out} of the {len(e.train)} examples of {e.name} leaves nothing to fit or "
                    "nothing to choose lambda by; give a share between 0 and 1 and tasks of 2 examples or more"
                )
        if self.adapter is not None and not all(e.announced for e in stream.experiences):
            raise ConfigError("strategy.adapt_first_task needs task boundaries, which this stream hides; give false")
        if learner.device.type == "mps":
            raise ConfigError("strategy=ranpac solves in float64, which runtime.device=mps has not; give runtime.device=cpu")
        learner.reseed("projection")
        self.first = stream.experiences[0].index
        projection = torch.randn(width(learner, stream), self.size, dtype=learner.parameters[0].dtype)
        if self.adapter is None:
            learner.network.backbone = Still(learner.network.backbone, learner, stream, self.batch_size)
        else:
            self.adapter.prepare(learner, stream)
        learner.network.head = self.ridge = Ridge(learner.network.head, projection, stream.num_classes).to(learner.device)

    def number_fitted(self, task: Experience) -> int:
        return round(len(task.train) * (1 - self.held_out))

    def learns(self, task: Experience) -> bool:
        return self.adapter is not None and task.index == self.first

    def loss(self, learner: Learner, batch: Batch) -> Output:
        assert self.adapter is not None
        return self.adapter.loss(learner, batch)

    def after_task(self, learner: Learner, task: Experience) -> None:
        order = torch.randperm(len(task.train), generator=learner.rng).to(task.train.y.device)
        number = self.number_fitted(task)
        fit, check = (self.moments(learner, task, index) for index in (order[:number], order[number:]))
        self.ridge.total += fit + check
        if task.looked:  # a weight that is never asked need not be solved for
            self.ridge.learn(fit, check, self.ridges)

    def moments(self, learner: Learner, task: Experience, index: Tensor) -> Tensor:
        """[H Y]'[H Y] of the examples at index, [size + C, size + C]: G, Q and the number of each class."""
        total = torch.zeros_like(self.ridge.total)
        for found, y in features(learner, task.train.take(index), self.batch_size):
            targets = F.one_hot(y, self.ridge.num_classes)
            both = torch.cat([self.ridge.project(found).to(total), targets.to(total)], 1)
            total.addmm_(both.t(), both)
        return total


class Ridge(nn.Module):
    """Random projection and the closed-form layer after it; `start` answers only while the first task adapts the backbone."""

    projection: Tensor
    total: Tensor
    weight: Tensor

    def __init__(self, start: nn.Module, projection: Tensor, num_classes: int):
        super().__init__()
        self.start, self.num_classes, self.size = start, num_classes, projection.shape[1]
        side = self.size + num_classes
        self.register_buffer("projection", projection)
        self.register_buffer("total", torch.zeros(side, side, dtype=torch.float64))  # lambda may be far below float32's rounding of G
        self.register_buffer("weight", torch.zeros(self.size, num_classes, dtype=projection.dtype))

    def project(self, found: Tensor) -> Tensor:
        with torch.autocast(found.device.type, enabled=False):
            return F.relu(found.to(self.projection) @ self.projection)

    def learn(self, fit: Tensor, check: Tensor, ridges: list[float]) -> None:
        errors = torch.stack([self.error(self.solve(fit, ridge), check) for ridge in ridges])
        for ridge in ridges[int(errors.argmin()) :]:  # what was enough for one task may be too small for the sum
            weight = self.solve(self.total, ridge)
            if weight.isfinite().all():
                self.weight.copy_(weight)
                return
        raise RunError(f"strategy.ridges: {ridges[-1]} is still too small for the precision; add larger ones, up to 1e8")

    def solve(self, moments: Tensor, ridge: float) -> Tensor:
        """(G + ridge I)^-1 Q [size, C], or infinite where ridge is too small for the precision."""
        gram, products = moments[: self.size, : self.size], moments[: self.size, self.size :]
        factor, failed = torch.linalg.cholesky_ex(gram + ridge * torch.eye(self.size).to(gram))
        return torch.where(failed > 0, torch.inf, torch.cholesky_solve(products, factor))

    def error(self, weight: Tensor, moments: Tensor) -> Tensor:
        """Sum of (H weight - Y)^2 from the moments of [H Y]: trace(A' M A), A = [weight; -I]."""
        change = torch.cat([weight, -torch.eye(self.num_classes).to(weight)])
        return (change * (moments @ change)).sum().nan_to_num(torch.inf)

    def forward(self, found: Tensor) -> Tensor:
        if self.training:
            return self.start(found)
        hidden = self.project(found)
        with torch.autocast(found.device.type, enabled=False):
            logits = hidden @ self.weight
        return below(logits, self.total.diagonal()[self.size :] > 0)
