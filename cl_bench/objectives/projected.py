"""Cross-entropy behind a projector."""

from __future__ import annotations

from typing import Literal

from torch import nn

from cl_bench.core.kinds import Count
from cl_bench.objectives.pairs import projector
from cl_bench.objectives.supervised import Supervised


class Projected(Supervised):
    """Supervised learning with self-supervision's projector before the logits (2311.13321): features are taken before it."""

    def __init__(self, *, loss_over: Literal["all", "seen", "own"], width: Count, layers: Count):
        super().__init__(loss_over=loss_over)
        self.width, self.layers = width, layers

    def head(self, dim: int, num_classes: int) -> nn.Module:
        return nn.Sequential(projector([dim] + [self.width] * self.layers), nn.ReLU(), nn.Linear(self.width, num_classes))
