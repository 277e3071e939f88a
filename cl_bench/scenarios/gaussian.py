"""Classes that come and go without an announcement (task-free)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from cl_bench.core.errors import ConfigError
from cl_bench.core.kinds import Count, Fraction, Positive
from cl_bench.core.seeds import generator
from cl_bench.core.types import Examples, Experience, Stream, Test
from cl_bench.data.resident import Dataset
from cl_bench.scenarios.common import class_order, hold_out, of_classes
from cl_bench.scenarios.sizes import task_sizes


class Gaussian:
    """Class frequencies follow overlapping Gaussians with evenly spaced peaks (2105.13327): p(c | t) ~ N(t; peak_c, width).

    Each training example gets a time, drawn from the Gaussian of its class; in the order of time they fill windows of
    one size, so that none comes twice. A remainder that fills no window is left out. A test is of a group of classes,
    and counts from the window by which all of its classes have come.
    """

    task_free: ClassVar[bool] = True

    def __init__(
        self,
        *,
        windows: Count,
        width: Positive,
        tests: int | list[int],
        look_every: Count,
        order: Literal["natural", "seeded"],
        order_seed: int,
        valid_fraction: Fraction,
    ):
        self.windows, self.width, self.tests, self.look_every = windows, width, tests, look_every
        self.order, self.order_seed, self.valid_fraction = order, order_seed, valid_fraction

    def __call__(self, dataset: Dataset) -> Stream:
        count = dataset.num_classes
        _, rename = class_order(count, self.order, self.order_seed)
        train, test = (Examples(part.raw, rename[part.y]) for part in (dataset.train, dataset.test))
        kept, held = hold_out(train, self.valid_fraction, self.order_seed, 0)
        rng = generator(self.order_seed, "times")
        size = len(kept) // self.windows
        chosen = torch.randperm(len(kept), generator=rng)[: size * self.windows]
        if len(kept.y[chosen].unique()) < count:
            raise ConfigError(
                f"scenario.windows={self.windows}: {len(kept)} training examples cannot fill them with each of the {count} classes; "
                f"give fewer windows, or data with examples of every class"
            )
        times = kept.y[chosen] / count + self.width * torch.randn(len(chosen), generator=rng)
        windows = [kept.take(part) for part in chosen[times.argsort()].split(size)]
        experiences = [
            Experience(
                index=i,
                name=f"window{i}",
                train=window,
                classes=tuple(window.y.unique().tolist()),
                announced=False,
                looked=(i + 1) % self.look_every == 0 or i + 1 == self.windows,
            )
            for i, window in enumerate(windows)
        ]
        first = {c: next(e.index for e in experiences if c in e.classes) for c in range(count)}
        tests, start, same = {}, 0, torch.arange(count)
        for group, members in enumerate(task_sizes(count, self.tests, "scenario.tests")):
            classes = tuple(range(start, start + members))
            valid = None if held is None else of_classes(held, classes, same)
            tests[f"task{group}"] = Test(of_classes(test, classes, same), classes, max(first[c] for c in classes), valid)
            start += members
        return Stream(tuple(experiences), tests, count)
