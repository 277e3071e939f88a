"""What objectives of two views share: a projector behind the features, and no labels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NoReturn

import torch
from torch import Tensor, nn

from cl_bench.core.errors import ConfigError
from cl_bench.core.types import Batch, Output, Stream


class Pairs:
    """Two views of each image are compared behind a projector; a memory remembers the features [B, dim] of the first.

    least_spread, least_rank: of the features of a batch, below which training says that they collapse.
    """

    num_views = 2
    needs_labels = False
    shares_logits = True  # there are none: no task is told apart

    def __init__(self, *, least_spread: float, least_rank: float):
        self.least_spread, self.least_rank = least_spread, least_rank
        self.dim = 0  # of the features, once there is a head

    def begin(self, head: nn.Module, backbone: nn.Module, stream: Stream) -> None:
        """As drawn."""

    def masks(self, stream: Stream) -> Tensor | None:
        few = [e for e in stream.experiences if len(e.train) < 2]
        if few:
            raise ConfigError(f"{few[0].name} has {len(few[0].train)} image, and a batch of two views needs two images; give it more")
        return None

    def targets(self, batch: Batch) -> NoReturn:
        raise ConfigError(f"objective {type(self).__name__} gives no logits; use objective=supervised, or probe=[knn] in place of accuracy")

    def output_shape(self, stream: Stream) -> tuple[int, ...]:
        return (self.dim,)

    def outputs(self, network: nn.Module, view: Tensor) -> Tensor:
        return network.features(view)  # type: ignore[operator]

    def warning(self, output: Output) -> str:
        found = (("spread", spread, self.least_spread), ("effective rank", effective_rank, self.least_rank))
        low = [f"{name} {value:.3g} is below {b:g}" for name, measure, b in found if (value := float(measure(output.outputs))) < b]
        return f"warning: the features collapse: {', '.join(low)}" if low else ""


class Behind(nn.Module):
    """Features [B, D] -> [features, projection, prediction] side by side; no predictor, no prediction."""

    def __init__(self, projector: nn.Module, predictor: nn.Module | None):
        super().__init__()
        self.projector, self.predictor = projector, predictor

    def forward(self, features: Tensor) -> Tensor:
        projection = self.projector(features)
        parts = [features, projection] if self.predictor is None else [features, projection, self.predictor(projection)]
        return torch.cat(parts, 1)


def projector(sizes: Sequence[int]) -> nn.Sequential:
    """Linear, batch norm and ReLU for each pair of sizes, but no ReLU at the end."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def spread(features: Tensor) -> Tensor:
    """Standard deviation of each dimension of the features on the unit sphere, times sqrt(D): 1 spread out, 0 collapsed (2011.10566)."""
    x = nn.functional.normalize(features.detach().float())
    return x.std(0).mean() * x.shape[1] ** 0.5


def effective_rank(features: Tensor) -> Tensor:
    """exp of the entropy of the singular values' shares (Roy and Vetterli 2007), centred: how many directions are in use."""
    x = features.detach().float()
    share = torch.linalg.svdvals(x - x.mean(0))
    share = share / share.sum().clamp(min=1e-12)
    return torch.special.entr(share).sum().exp()
