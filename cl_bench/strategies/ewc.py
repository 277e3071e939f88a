"""Elastic weight consolidation: weights that mattered are held where they were."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from cl_bench.core.errors import ConfigError
from cl_bench.core.kinds import Count, Fraction, NonNegative
from cl_bench.core.learner import Learner
from cl_bench.core.types import Batch, Experience, Output, Stream
from cl_bench.strategies.base import Strategy
from cl_bench.strategies.fisher import fisher
from cl_bench.strategies.weights import Quadratic, flatten


class EWC(Strategy):
    """EWC (1612.00796): strength/2 * F (theta - theta*)^2, F by one of five estimators (2502.11756).

    mode `separate`: one penalty per old task; `online` (1805.06370): F <- decay F + F_new, one centre.
    """

    needs_boundaries: ClassVar[bool] = True
    needs_logits: ClassVar[bool] = True

    def __init__(
        self,
        *,
        strength: NonNegative,
        estimator: Literal["exact", "sample", "empirical", "batched", "legacy"],
        samples: Count | None,
        batch_size: Count,
        mode: Literal["separate", "online"],
        decay: Fraction,
    ):
        self.strength, self.estimator, self.samples = strength, estimator, samples
        self.batch_size, self.mode, self.decay = batch_size, mode, decay
        self.num_tasks = 0

    def prepare(self, learner: Learner, stream: Stream) -> None:
        if stream.is_text and self.estimator in ("exact", "legacy"):
            raise ConfigError(
                f"strategy.estimator={self.estimator} would differentiate every text of {stream.output_shape[0]} tokens there could be; "
                "give sample, empirical or batched"
            )
        self.penalty = Quadratic(learner.parameters)

    def terms(self, learner: Learner, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        if not self.num_tasks:
            return {}
        return {"ewc": self.penalty.value()}

    def after_backward(self, learner: Learner) -> None:
        if self.num_tasks:
            self.penalty.pull()

    def after_task(self, learner: Learner, task: Experience) -> None:
        if not self.strength:
            return  # sequential training: no Fisher will be asked for
        number = len(task.train) if self.samples is None else min(self.samples, len(task.train))
        order = torch.randperm(len(task.train), generator=learner.rng)[:number]
        new = self.strength * fisher(self.estimator, learner, task, order, self.batch_size)  # once, not at every step
        if self.mode == "separate":
            self.penalty.add(new, flatten(learner.parameters))
        else:
            self.penalty.replace(self.decay * self.penalty.weight + new, flatten(learner.parameters))
        self.num_tasks += 1

    def state_dict(self) -> dict[str, Any]:
        return {"num_tasks": self.num_tasks, **self.penalty.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.num_tasks = state["num_tasks"]
        self.penalty.load_state_dict(state)
