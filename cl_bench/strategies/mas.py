"""Memory aware synapses: weights that the output is sensitive to are held where they were."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from cl_bench.core.kinds import Count, Fraction, NonNegative
from cl_bench.core.learner import Learner
from cl_bench.core.types import Batch, Experience, Output, Stream
from cl_bench.strategies.base import Strategy
from cl_bench.strategies.passes import batch_at
from cl_bench.strategies.squares import AbsoluteGradients
from cl_bench.strategies.weights import Quadratic, flatten


class MAS(Strategy):
    """MAS (1711.09601): strength * Omega (theta - theta*)^2, Omega = mean over examples of |d ||f(x)||^2 / d theta|.

    mode `average`: over all examples so far; `sum`: one Omega per task, added; `moving`: Omega <- decay Omega + (1 - decay) new.
    """

    needs_boundaries: ClassVar[bool] = True
    needs_logits: ClassVar[bool] = True
    remembers = ("seen", "importance")

    def __init__(
        self,
        *,
        strength: NonNegative,
        estimator: Literal["exact", "batched"],
        samples: Count | None,
        batch_size: Count,
        mode: Literal["average", "sum", "moving"],
        decay: Fraction,
    ):
        self.strength, self.estimator, self.samples = strength, estimator, samples
        self.batch_size, self.mode, self.decay = batch_size, mode, decay
        self.seen = 0  # examples in the importance

    def prepare(self, learner: Learner, stream: Stream) -> None:
        self.penalty = Quadratic(learner.parameters)
        self.importance = torch.zeros_like(self.penalty.weight)

    def terms(self, learner: Learner, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        return {"mas": self.penalty.value()} if self.seen else {}

    def after_backward(self, learner: Learner) -> None:
        if self.seen:
            self.penalty.pull()

    def after_task(self, learner: Learner, task: Experience) -> None:
        if not self.strength:
            return
        number = len(task.train) if self.samples is None else min(self.samples, len(task.train))
        order = torch.randperm(len(task.train), generator=learner.rng)[:number]
        new = self._sensitivity(learner, task, order)
        if self.mode == "sum":
            self.importance += new
        else:
            share = number / (self.seen + number) if self.mode == "average" else 1 - self.decay
            self.importance.lerp_(new, share if self.seen else 1.0)
        self.penalty.replace(2 * self.strength * self.importance, flatten(learner.parameters))
        self.seen += number

    def _sensitivity(self, learner: Learner, task: Experience, order: Tensor) -> Tensor:
        """[P], over the examples of task at order [N]; `batched` lets gradients of one batch cancel, as most code does."""
        modes = [(module, module.training) for module in learner.network.modules()]
        learner.network.eval()  # a per-example gradient through batch statistics does not exist
        absolute = AbsoluteGradients(learner.network, learner.parameters)
        total, batches = torch.zeros_like(self.importance), order.split(self.batch_size)
        for index in batches:
            batch = batch_at(learner, task, index)

            def norm(logits: Tensor, allowed: Tensor | None = batch.allowed) -> Tensor:
                """[B, 1], over the outputs that the task has, of text over all tokens."""
                return (logits if allowed is None else logits * allowed).square().flatten(1).sum(1, keepdim=True)

            images = learner.view(batch.raw, None)
            if self.estimator == "exact":
                total += absolute(
                    images, norm, lambda norms: [(torch.zeros_like(norms[:, 0], dtype=torch.int64), norms.new_ones(len(norms)))]
                )
            else:
                total += flatten(torch.autograd.grad(norm(learner.network(images)).mean(), learner.parameters)).abs_()
        for module, training in modes:
            module.training = training
        return total / (len(order) if self.estimator == "exact" else len(batches))

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), **self.penalty.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.penalty.load_state_dict(state)
