"""Synaptic intelligence: weights that brought the loss down are held where they were."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from cl_bench.core.kinds import NonNegative, Positive
from cl_bench.core.learner import Learner
from cl_bench.core.types import Batch, Experience, Output, Stream
from cl_bench.strategies.base import Strategy
from cl_bench.strategies.weights import Quadratic, flatten, split


class SI(Strategy):
    """SI (1703.04200): strength * Omega (theta - theta*)^2, Omega += omega / (moved^2 + damping) at a task's end,
    omega = sum over its steps of -gradient * (theta' - theta); conf/strategy/si.yaml says who cuts what."""

    needs_boundaries: ClassVar[bool] = True
    remembers = ("num_tasks", "path", "importance")

    def __init__(
        self,
        *,
        strength: NonNegative,
        damping: Positive,
        gradient: Literal["task", "total", "squared"],
        cut: Literal["sum", "task", "none"],
        cap: Positive | None,
    ):
        self.strength, self.damping, self.gradient = strength, damping, gradient
        self.cut, self.cap = cut, cap
        self.num_tasks = 0

    def prepare(self, learner: Learner, stream: Stream) -> None:
        self.theta: list[Tensor] = self.held(learner)
        self.penalty = Quadratic(self.theta)
        self.path, self.importance, self.grads, self.before = (torch.zeros_like(self.penalty.weight) for _ in range(4))
        self.views = [split(vector, self.theta) for vector in (self.path, self.grads, self.before)]

    def held(self, learner: Learner) -> list[Tensor]:
        """Which weights."""
        return [*learner.parameters]

    def terms(self, learner: Learner, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        return {"si": self.penalty.value()} if self.num_tasks else {}

    @torch.no_grad()
    def after_backward(self, learner: Learner) -> None:
        """Copies, for clipping and some optimizers change gradients in place."""
        if not self.strength:
            return
        _, grads, before = self.views
        torch._foreach_copy_(before, self.theta)
        if self.num_tasks and self.gradient != "task":
            self.penalty.pull()
        found = [(g, p.grad) for g, p in zip(grads, self.theta, strict=True) if p.grad is not None]
        torch._foreach_copy_([g for g, _ in found], [grad for _, grad in found])
        for g in (g for g, p in zip(grads, self.theta, strict=True) if p.grad is None):
            g.zero_()  # what an earlier step left there is not this step's
        if self.num_tasks and self.gradient == "task":
            self.penalty.pull()

    @torch.no_grad()
    def after_step(self, learner: Learner, batch: Batch, output: Output) -> None:
        if not self.strength:
            return
        path, grads, before = self.views
        if self.gradient == "squared":
            where = {id(p): i for i, p in enumerate(self.theta)}
            for group in learner.optimizer.param_groups:
                mine = [where[id(p)] for p in group["params"] if id(p) in where]
                g = [grads[i] for i in mine]
                torch._foreach_addcmul_([path[i] for i in mine], g, g, value=group["lr"])
        else:
            torch._foreach_sub_(before, self.theta)
            self.path.addcmul_(self.grads, self.before)

    @torch.no_grad()
    def after_task(self, learner: Learner, task: Experience) -> None:
        if not self.strength:
            return
        theta = flatten(self.theta)
        new = self.path / ((theta - self.penalty.centre).square_() + self.damping)
        self.importance += new.clamp_(min=0) if self.cut == "task" else new
        if self.cut == "sum":
            self.importance.clamp_(min=0)
        used = self.importance if self.cap is None else self.importance.clamp(max=self.cap)
        self.penalty.replace(2 * self.strength * used, theta)
        self.path.zero_()
        self.num_tasks += 1

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), **self.penalty.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.penalty.load_state_dict(state)
