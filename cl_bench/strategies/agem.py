"""Averaged gradient episodic memory: no step may raise the loss on what is remembered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from cl_bench.core.kinds import Count
from cl_bench.core.learner import Learner
from cl_bench.core.types import Batch, Experience, Output
from cl_bench.strategies.rehearsal import Rehearsal


class AGEM(Rehearsal):
    """A-GEM (1812.00420): where g . r < 0, g <- g - (g . r) / (r . r) r; r is the gradient on examples of old tasks."""

    needs_boundaries: ClassVar[bool] = True

    def __init__(self, *, memory: Literal["reservoir", "balanced"], memory_size: Count, batch_size: Count):
        super().__init__(memory=memory, memory_size=memory_size, batch_size=batch_size)

    def terms(self, learner: Learner, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        self.now = batch.task  # after_backward is told of no batch
        return {}

    def after_backward(self, learner: Learner) -> None:
        if not len(self.memory):
            return
        learned = [p for p in learner.parameters if p.grad is not None]
        gradients = [p.grad for p in learned if p.grad is not None]
        old, _ = self.recall(learner, self.now)
        reference = torch.autograd.grad(learner.teach(old).loss, learned, materialize_grads=True)
        product = dot(gradients, reference)
        share = torch.where(product < 0, product / dot(reference, reference), 0.0)
        torch._foreach_mul_(reference, share)
        torch._foreach_sub_(gradients, reference)

    def after_step(self, learner: Learner, batch: Batch, output: Output) -> None:
        """Nothing: the memory holds tasks that are over."""

    def after_task(self, learner: Learner, task: Experience) -> None:
        data = task.train.to(learner.device)
        self.memory.add(data.raw, data.y, task.index, learner.rng)


def dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Of two lists as if each were one vector."""
    return torch.stack([torch.dot(x.flatten(), y.flatten()) for x, y in zip(a, b, strict=True)]).sum()
