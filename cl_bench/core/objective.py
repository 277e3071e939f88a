"""What ONE batch should teach, whatever came before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from cl_bench.core.types import Batch, Output, Stream


class Objective(Protocol):
    num_views: int
    shares_logits: bool  # all tasks compete for the same logits
    needs_labels: bool

    def head(self, dim: int, num_classes: int) -> nn.Module: ...

    def begin(self, head: nn.Module, backbone: nn.Module, stream: Stream) -> None: ...  # first weights of the head that come from elsewhere

    def masks(self, stream: Stream) -> Tensor | None: ...

    def output_shape(self, stream: Stream) -> tuple[int, ...]: ...  # of what a memory remembers of one example

    def outputs(self, network: nn.Module, view: Tensor) -> Tensor: ...  # the same of a batch

    def warning(self, output: Output) -> str: ...  # what the user should hear of a batch; "" where all is well

    def targets(self, batch: Batch) -> Tensor: ...  # which logit is right: int64 [B], of text [B, L]

    def __call__(self, network: nn.Module, views: Sequence[Tensor], batch: Batch) -> Output: ...
