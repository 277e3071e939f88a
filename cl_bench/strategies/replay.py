"""Rehearsal: old examples beside the new ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from cl_bench.core.kinds import Count, NonNegative
from cl_bench.core.learner import Learner
from cl_bench.core.types import Batch, Output
from cl_bench.strategies.rehearsal import Rehearsal


class ER(Rehearsal):
    """Experience replay (1902.10486): loss(new) + strength * loss(remembered)."""

    def __init__(self, *, memory: Literal["reservoir", "balanced"], memory_size: Count, batch_size: Count, strength: NonNegative):
        super().__init__(memory=memory, memory_size=memory_size, batch_size=batch_size)
        self.strength = strength

    def terms(self, learner: Learner, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        if not len(self.memory) or not self.strength:
            return {}
        old, _ = self.recall(learner, batch.task)
        return {"replay": self.strength * learner.teach(old).loss}
