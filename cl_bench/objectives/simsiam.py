"""SimSiam: each view predicts what the other became."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from cl_bench.core.kinds import Count, NonNegative
from cl_bench.core.types import Batch, Output
from cl_bench.objectives.pairs import Behind, Pairs, projector


class SimSiam(Pairs):
    """SimSiam (2011.10566): -(cos(p1, stop(z2)) + cos(p2, stop(z1))) / 2, mean over the batch; z a projection, p its prediction."""

    self_supervised: ClassVar[bool] = True

    def __init__(self, *, width: Count, layers: Count, predictor_width: Count, least_spread: NonNegative, least_rank: NonNegative):
        super().__init__(least_spread=least_spread, least_rank=least_rank)
        self.width, self.layers, self.predictor_width = width, layers, predictor_width

    def head(self, dim: int, num_classes: int) -> nn.Module:
        self.dim = dim
        narrow, wide = self.predictor_width, self.width
        predictor = nn.Sequential(nn.Linear(wide, narrow), nn.BatchNorm1d(narrow), nn.ReLU(), nn.Linear(narrow, wide))
        return Behind(projector([dim] + [wide] * self.layers), predictor)

    def __call__(self, network: nn.Module, views: Sequence[Tensor], batch: Batch) -> Output:
        sizes = [self.dim, self.width, self.width]
        (features, z1, p1), (_, z2, p2) = (network(view).split(sizes, 1) for view in views)
        return Output((away(p1, z2) + away(p2, z1)) / 2, features)


def away(p: Tensor, z: Tensor) -> Tensor:
    """Negative cosine, mean over the batch; z is a target and learns nothing."""
    return -F.cosine_similarity(p, z.detach(), dim=1).mean()
