"""Cross-entropy over the logits a task may use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cl_bench.core.types import Batch, Output, Stream


class Supervised:
    """loss_over: `all` classes of the stream, those `seen` so far, or the task's `own`."""

    num_views = 1
    needs_labels = True

    def __init__(self, *, loss_over: Literal["all", "seen", "own"]):
        self.loss_over = loss_over
        self.shares_logits = loss_over != "own"

    def head(self, dim: int, num_classes: int) -> nn.Module:
        return nn.Linear(dim, num_classes)

    def begin(self, head: nn.Module, backbone: nn.Module, stream: Stream) -> None:
        """As drawn."""

    def masks(self, stream: Stream) -> Tensor | None:
        """bool [experiences, num_classes], or None where nothing is masked."""
        if self.loss_over == "all":
            return None
        rows = torch.zeros(max(e.index for e in stream.experiences) + 1, stream.num_classes, dtype=torch.bool)
        for e in stream.experiences:
            rows[e.index, list(e.classes if self.loss_over == "own" else stream.seen(e.index))] = True
        return rows

    def output_shape(self, stream: Stream) -> tuple[int, ...]:
        return stream.output_shape

    def outputs(self, network: nn.Module, view: Tensor) -> Tensor:
        return network(view)

    def warning(self, output: Output) -> str:
        return ""

    def targets(self, batch: Batch) -> Tensor:
        return batch.y

    def __call__(self, network: nn.Module, views: Sequence[Tensor], batch: Batch) -> Output:
        logits = network(views[0])
        scores = logits if batch.allowed is None else logits.masked_fill(~batch.allowed, -torch.inf)
        return Output(F.cross_entropy(scores, batch.y), logits)
