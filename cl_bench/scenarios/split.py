"""Classes dealt out to tasks (class- and task-incremental)."""

from __future__ import annotations

from typing import Literal

from cl_bench.core.kinds import Fraction
from cl_bench.core.types import Stream
from cl_bench.data.resident import Dataset
from cl_bench.scenarios.common import class_order, make_stream, of_classes
from cl_bench.scenarios.sizes import task_sizes


class Split:
    """`natural` keeps the class order of the data; `seeded` shuffles it by order_seed. Labels follow the stream."""

    def __init__(
        self, *, tasks: int | list[int], order: Literal["natural", "seeded"], order_seed: int, valid_fraction: Fraction, announced: bool
    ):
        self.tasks, self.order, self.order_seed = tasks, order, order_seed
        self.valid_fraction, self.announced = valid_fraction, announced

    def __call__(self, dataset: Dataset) -> Stream:
        count = dataset.num_classes
        order, rename = class_order(count, self.order, self.order_seed)
        tasks, start = [], 0
        for index, size in enumerate(task_sizes(count, self.tasks, "scenario.tasks")):
            picked = order[start : start + size].tolist()
            classes = tuple(range(start, start + size))
            tasks.append((f"task{index}", of_classes(dataset.train, picked, rename), of_classes(dataset.test, picked, rename), classes))
            start += size
        return make_stream(tasks, count, self.valid_fraction, self.order_seed, self.announced)
