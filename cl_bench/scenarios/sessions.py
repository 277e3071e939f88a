"""One recording session after the other, one test for all (domain-incremental)."""

from __future__ import annotations

from typing import Literal

import torch

from cl_bench.core.errors import ConfigError
from cl_bench.core.kinds import Fraction
from cl_bench.core.seeds import generator
from cl_bench.core.types import Examples, Experience, Stream, Test
from cl_bench.data.resident import Dataset
from cl_bench.scenarios.common import hold_out


class Sessions:
    """New instances of known classes (1705.03550): a task for each part of the training examples, tested on other sessions.

    Tests do not differ by task, so that what asks when a task was learned is undefined.
    """

    def __init__(self, *, order: Literal["natural", "seeded"], order_seed: int, valid_fraction: Fraction):
        self.order, self.order_seed, self.valid_fraction = order, order_seed, valid_fraction

    def __call__(self, dataset: Dataset) -> Stream:
        if not dataset.parts:
            raise ConfigError(f"data={dataset.name} is not recorded in sessions; use data=core50, or scenario=split")
        count = len(dataset.parts)
        order = (
            range(count) if self.order == "natural" else torch.randperm(count, generator=generator(self.order_seed, "sessions")).tolist()
        )
        raw, y = (whole.split(list(dataset.parts)) for whole in (dataset.train.raw, dataset.train.y))  # views: nothing is copied
        classes = tuple(range(dataset.num_classes))
        experiences = []
        for index, part in enumerate(order):
            kept, held = hold_out(Examples(raw[part], y[part]), self.valid_fraction, self.order_seed, part)
            experiences.append(Experience(index, f"session{part}", kept, classes, held))
        valid = [e.valid for e in experiences if e.valid is not None]
        test = Test(dataset.test, classes, 0, Examples.concatenate(valid) if valid else None)
        return Stream(tuple(experiences), {"test": test}, dataset.num_classes)
