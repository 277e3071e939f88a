"""Next-token prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cl_bench.core.types import Batch, Output, Stream
from cl_bench.models.hf_lm import Hidden


class CausalLM:
    """Mean over tokens of -log p(token | those before it), in nats; a memory remembers the logits [B, L, vocabulary]."""

    text: ClassVar[bool] = True
    num_views = 1
    needs_labels = False
    shares_logits = True

    def head(self, dim: int, num_classes: int) -> nn.Module:
        return nn.Linear(dim, num_classes)

    @torch.no_grad()
    def begin(self, head: nn.Module, backbone: nn.Module, stream: Stream) -> None:
        """A language model of the hub has a readout of its own."""
        if isinstance(backbone, Hidden):
            assert isinstance(head, nn.Linear)
            head.weight.copy_(backbone.readout)
            head.bias.zero_()

    def masks(self, stream: Stream) -> Tensor | None:
        return None

    def output_shape(self, stream: Stream) -> tuple[int, ...]:
        return stream.output_shape

    def outputs(self, network: nn.Module, view: Tensor) -> Tensor:
        return network(view)

    def warning(self, output: Output) -> str:
        return ""

    def targets(self, batch: Batch) -> Tensor:
        """int64 [B, L]: what comes after each token that the network reads."""
        return batch.raw[:, 1:].long()

    def __call__(self, network: nn.Module, views: Sequence[Tensor], batch: Batch) -> Output:
        logits = network(views[0])
        return Output(F.cross_entropy(logits.flatten(0, 1), self.targets(batch).flatten()), logits)


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Nats [B, L] of logits [B, L, V] and targets [B, L], at full precision."""
    exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(exact.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
