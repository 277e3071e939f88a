"""What scenarios share: tasks cut out of one data set, with held-out examples for choosing settings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cl_bench.core.errors import ConfigError
from cl_bench.core.seeds import generator
from cl_bench.core.types import Examples, Experience, Stream, Test


def hold_out(train: Examples, fraction: float, seed: int, index: int) -> tuple[Examples, Examples | None]:
    """(train, valid): the same examples are held out whatever the run's seed."""
    count = round(fraction * len(train))
    if not count:
        return train, None
    order = torch.randperm(len(train), generator=generator(seed, "valid", index))
    return train.take(order[count:].sort().values), train.take(order[:count].sort().values)


def make_stream(
    tasks: Sequence[tuple[str, Examples, Examples, tuple[int, ...]]],
    num_classes: int,
    valid_fraction: float,
    seed: int,
    announced: bool = True,
) -> Stream:
    """Stream from (name, train, test, classes) per task."""
    experiences, tests = [], {}
    for index, (name, train, test, classes) in enumerate(tasks):
        kept, held = hold_out(train, valid_fraction, seed, index)
        if not len(kept):
            raise ConfigError(
                f"{name} has no training examples ({len(train)}, scenario.valid_fraction={valid_fraction} of them held out); "
                "lower scenario.valid_fraction, or use data that has some of every class"
            )
        experiences.append(Experience(index, name, kept, classes, held, announced))
        tests[name] = Test(test, classes, index)
    return Stream(tuple(experiences), tests, num_classes)


def class_order(count: int, order: str, seed: int) -> tuple[Tensor, Tensor]:
    """(the data's classes in the order of the stream [C], their labels there [C])."""
    classes = torch.arange(count) if order == "natural" else torch.randperm(count, generator=generator(seed, "classes"))
    return classes, classes.argsort()


def of_classes(examples: Examples, classes: Sequence[int], rename: Tensor) -> Examples:
    """The examples of some classes, labels renamed by rename [C]."""
    index = torch.isin(examples.y, torch.tensor(classes)).nonzero().flatten()
    return Examples(examples.raw[index], rename[examples.y[index]])
