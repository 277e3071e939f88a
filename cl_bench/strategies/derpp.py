"""Dark experience replay with labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from cl_bench.core.kinds import Count, NonNegative
from cl_bench.core.learner import Learner, View
from cl_bench.core.types import Batch, Output
from cl_bench.strategies.der import DER


class DERpp(DER):
    """DER++ (2004.07211): DER + beta * loss(another draw of remembered examples)."""

    def __init__(
        self,
        *,
        memory: Literal["reservoir", "balanced"],
        memory_size: Count,
        batch_size: Count,
        alpha: NonNegative,
        beta: NonNegative,
        light: View | None,
    ):
        super().__init__(memory=memory, memory_size=memory_size, batch_size=batch_size, alpha=alpha, light=light)
        self.beta = beta

    def terms(self, learner: Learner, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        found = super().terms(learner, batch, output)
        if not len(self.memory) or not self.beta:
            return found
        old, _ = self.recall(learner, batch.task)
        return {**found, "replay": self.beta * learner.teach(old).loss}
