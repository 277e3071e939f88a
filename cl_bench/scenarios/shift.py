"""The same labels, each task with other subclasses of them (domain-incremental)."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch

from cl_bench.core.kinds import Fraction
from cl_bench.core.seeds import generator
from cl_bench.core.types import Stream
from cl_bench.data.resident import Dataset
from cl_bench.scenarios.common import make_stream, of_classes
from cl_bench.scenarios.sizes import check_groups, task_sizes


class Shift:
    """Input-distribution shift (2007.07400): label k of every task is group k, its images are of the task's share of the group.

    groups: the data's classes, k-th list for label k; `seeded` shuffles each by order_seed before it is dealt out.
    """

    def __init__(
        self,
        *,
        groups: list[list[int]],
        tasks: int | list[int],
        order: Literal["natural", "seeded"],
        order_seed: int,
        valid_fraction: Fraction,
    ):
        self.groups, self.tasks = groups, tasks
        self.order, self.order_seed, self.valid_fraction = order, order_seed, valid_fraction

    def __call__(self, dataset: Dataset) -> Stream:
        check_groups(self.groups, dataset.num_classes)
        labels, members = tuple(range(len(self.groups))), len(self.groups[0])
        groups = [list(g) for g in self.groups]
        if self.order == "seeded":
            draws = [torch.randperm(members, generator=generator(self.order_seed, "subclasses", k)).tolist() for k in labels]
            groups = [[group[i] for i in draw] for group, draw in zip(groups, draws, strict=True)]
        rename = torch.full((dataset.num_classes,), -1)
        for k, group in enumerate(groups):
            rename[group] = k
        tasks, subclasses, start = [], {}, 0
        for index, size in enumerate(task_sizes(members, self.tasks, "scenario.tasks", "subclasses of each group")):
            behind = [group[start : start + size] for group in groups]
            picked = [c for part in behind for c in part]
            train, test = (of_classes(part, picked, rename) for part in (dataset.train, dataset.test))
            tasks.append((f"task{index}", train, test, labels))
            subclasses[f"task{index}"] = behind
            start += size
        return replace(make_stream(tasks, len(groups), self.valid_fraction, self.order_seed), subclasses=subclasses)
