"""Synaptic intelligence where the head is thrown away."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from cl_bench.core.kinds import NonNegative, Positive
from cl_bench.core.learner import Learner
from cl_bench.core.types import Experience
from cl_bench.strategies.si import SI
from cl_bench.strategies.weights import flatten


class BackboneSI(SI):
    """SI (1703.04200) of the backbone alone, as 2110.06976 holds it: projector and predictor are free.

    variant: `correct`, or `ucl_2021`, the two faults of 2110.06976's first code: Omega is the last task's alone, and the
    penalty is subtracted from the loss. Its numbers probably come from it; nobody should want it otherwise.
    """

    needs_boundaries: ClassVar[bool] = True

    def __init__(
        self,
        *,
        strength: NonNegative,
        damping: Positive,
        gradient: Literal["task", "total", "squared"],
        cut: Literal["sum", "task", "none"],
        cap: Positive | None,
        variant: Literal["correct", "ucl_2021"],
    ):
        super().__init__(strength=strength, damping=damping, gradient=gradient, cut=cut, cap=cap)
        self.variant = variant

    def held(self, learner: Learner) -> list[Tensor]:
        inside = {id(p) for p in learner.network.get_submodule("backbone").parameters()}
        return [p for p in learner.parameters if id(p) in inside]

    @torch.no_grad()
    def after_task(self, learner: Learner, task: Experience) -> None:
        if self.variant == "ucl_2021":
            self.importance.zero_()
        super().after_task(learner, task)
        if self.variant == "ucl_2021":
            self.penalty.replace(-self.penalty.weight, flatten(self.theta))
