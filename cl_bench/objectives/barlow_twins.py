"""Barlow Twins: two views agree in each dimension, and dimensions differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from cl_bench.core.kinds import Count, NonNegative
from cl_bench.core.types import Batch, Output
from cl_bench.objectives.pairs import Behind, Pairs, projector


class BarlowTwins(Pairs):
    """Barlow Twins (2103.03230): sum_i (1 - C_ii)^2 + off_diagonal * sum_{i != j} C_ij^2, C the correlation of two projections
    over the batch (columns standardised by the unbiased deviation, products over N: 2110.06976's code)."""

    self_supervised: ClassVar[bool] = True

    def __init__(self, *, width: Count, layers: Count, off_diagonal: NonNegative, least_spread: NonNegative, least_rank: NonNegative):
        super().__init__(least_spread=least_spread, least_rank=least_rank)
        self.width, self.layers, self.off_diagonal = width, layers, off_diagonal

    def head(self, dim: int, num_classes: int) -> nn.Module:
        self.dim = dim
        return Behind(projector([dim] + [self.width] * self.layers), None)

    def __call__(self, network: nn.Module, views: Sequence[Tensor], batch: Batch) -> Output:
        (features, z1), (_, z2) = (network(view).split([self.dim, self.width], 1) for view in views)
        correlation = standardised(z1).T @ standardised(z2) / len(z1)
        agree = correlation.diagonal()
        whole = correlation.square().sum()
        return Output((1 - agree).square().sum() + self.off_diagonal * (whole - agree.square().sum()), features)


def standardised(z: Tensor) -> Tensor:
    """Each column to mean 0 and deviation 1."""
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    return (z - z.mean(0)) / z.std(0)
