"""Dark experience replay: old examples beside the outputs they once had."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from cl_bench.core.errors import ConfigError
from cl_bench.core.kinds import Count, NonNegative
from cl_bench.core.learner import Learner, View
from cl_bench.core.types import Batch, Output, Stream
from cl_bench.strategies.rehearsal import Rehearsal


class DER(Rehearsal):
    """DER (2004.07211): loss(new) + alpha * mean (logits now - logits when it was stored)^2, over examples and logits.

    Without labels these are features (2110.06976). light: through what a stored image is seen again; null: the run's own view.
    """

    keeps_outputs: ClassVar[bool] = True

    def __init__(
        self, *, memory: Literal["reservoir", "balanced"], memory_size: Count, batch_size: Count, alpha: NonNegative, light: View | None
    ):
        super().__init__(memory=memory, memory_size=memory_size, batch_size=batch_size)
        self.alpha, self.light = alpha, light

    def prepare(self, learner: Learner, stream: Stream) -> None:
        if stream.is_text and self.light is not None:
            raise ConfigError("strategy.light is a view of images, and text is seen as it is; use strategy=der, or strategy.light=null")
        super().prepare(learner, stream)

    def terms(self, learner: Learner, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        if not len(self.memory) or not self.alpha:
            return {}
        old, (outputs,) = self.recall(learner, batch.task)
        return {"logits": self.alpha * F.mse_loss(learner.outputs(old.raw, self.light), outputs)}
