"""One data set, another input transform per task (domain-incremental)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from cl_bench.core.kinds import Count, Fraction, Positive
from cl_bench.core.seeds import generator
from cl_bench.core.types import Examples, Stream
from cl_bench.data.resident import Dataset
from cl_bench.scenarios.common import make_stream

BLOCK = 4096  # images that are floats at a time, not the whole data set


class Permuted:
    """Task 0 is the data as it is, each further task permutes all pixels (1312.6211)."""

    def __init__(self, *, tasks: Count, order_seed: int, valid_fraction: Fraction):
        self.tasks, self.order_seed, self.valid_fraction = tasks, order_seed, valid_fraction

    def transform(self, raw: Tensor, task: int) -> Tensor:
        if task == 0:
            return raw
        flat = raw.flatten(2)
        return flat[:, :, torch.randperm(flat.shape[2], generator=generator(self.order_seed, "pixels", task))].view_as(raw)

    def __call__(self, dataset: Dataset) -> Stream:
        classes = tuple(range(dataset.num_classes))
        tasks = []
        for index in range(self.tasks):
            train, test = (Examples(self.transform(part.raw, index), part.y) for part in (dataset.train, dataset.test))
            tasks.append((f"task{index}", train, test, classes))
        return make_stream(tasks, dataset.num_classes, self.valid_fraction, self.order_seed)


class Rotated(Permuted):
    """Tasks turn the images by equal steps from 0 up to, not including, `degrees` (1706.08840 draws the angles)."""

    def __init__(self, *, tasks: Count, degrees: Positive, order_seed: int, valid_fraction: Fraction):
        super().__init__(tasks=tasks, order_seed=order_seed, valid_fraction=valid_fraction)
        self.degrees = degrees

    def transform(self, raw: Tensor, task: int) -> Tensor:
        if task == 0:
            return raw
        degrees = self.degrees * task / self.tasks
        return torch.cat([turned(block.float(), degrees).round_().to(torch.uint8) for block in raw.split(BLOCK)])


def turned(x: Tensor, degrees: float) -> Tensor:
    """Images about their centre, black where nothing was."""
    angle = math.radians(degrees)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0]])
    grid = F.affine_grid(turn.expand(len(x), 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)
