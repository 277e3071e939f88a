"""Split, with few examples a task."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch

from cl_bench.core.errors import ConfigError
from cl_bench.core.kinds import Count, Fraction
from cl_bench.core.seeds import generator
from cl_bench.core.types import Experience, Stream
from cl_bench.data.resident import Dataset
from cl_bench.scenarios.split import Split


class Few(Split):
    """Of each task's training examples `images` are kept, drawn by order_seed; fewer are a part of more."""

    def __init__(
        self,
        *,
        tasks: int | list[int],
        order: Literal["natural", "seeded"],
        order_seed: int,
        valid_fraction: Fraction,
        announced: bool,
        images: Count,
    ):
        super().__init__(tasks=tasks, order=order, order_seed=order_seed, valid_fraction=valid_fraction, announced=announced)
        self.images = images

    def __call__(self, dataset: Dataset) -> Stream:
        stream = super().__call__(dataset)
        return replace(stream, experiences=tuple(map(self._cut, stream.experiences)))

    def _cut(self, e: Experience) -> Experience:
        if len(e.train) < self.images:
            raise ConfigError(f"scenario.images={self.images} is more than the {len(e.train)} of {e.name}; give that or less")
        order = torch.randperm(len(e.train), generator=generator(self.order_seed, "few", e.index))
        return replace(e, train=e.train.take(order[: self.images].sort().values))
