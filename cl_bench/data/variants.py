"""Another data set, turned, inverted or cut down: a task of the same labels, a smaller one, or its first classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from cl_bench.core.errors import ConfigError
from cl_bench.core.kinds import Count, Whole
from cl_bench.core.types import Examples
from cl_bench.data.resident import Dataset, in_memory
from cl_bench.data.splits import stratified


class Variant:
    """quarter_turns: counter-clockwise; invert: 255 less the grey level; *_per_class: so many of each class, null keeps all."""

    def __init__(
        self,
        *,
        name: str,
        num_classes: Count | None,
        source: Callable[[], Dataset],
        quarter_turns: Whole,
        invert: bool,
        train_per_class: Count | None,
        test_per_class: Count | None,
        seed: int,
    ):
        self.name, self.source, self.quarter_turns, self.invert = name, source, quarter_turns, invert
        self.per_class, self.seed = (train_per_class, test_per_class), seed

    def __call__(self) -> Dataset:
        whole = self.source()
        train, test = (self.altered(part, count) for part, count in zip((whole.train, whole.test), self.per_class, strict=True))
        return replace(in_memory(self.name, train, test, whole.num_classes), class_names=whole.class_names)

    def altered(self, part: Examples, count: int | None) -> Examples:
        if count is not None:
            few = int(part.y.bincount().min())
            if count > few:
                raise ConfigError(
                    f"data.train_per_class or data.test_per_class={count}: {self.name} has a class of {few}; give less, or null"
                )
            if count < few:
                part = stratified(part, lambda n: count, self.seed)[1]
        raw = torch.rot90(part.raw, self.quarter_turns, (2, 3)).contiguous()
        return Examples(255 - raw if self.invert else raw, part.y)


class FirstClasses:
    """The first num_classes classes of another data set, in its own order."""

    def __init__(self, *, name: str, num_classes: Count, source: Callable[[], Dataset]):
        self.name, self.num_classes, self.source = name, num_classes, source

    def __call__(self) -> Dataset:
        whole = self.source()
        if whole.num_classes < self.num_classes:
            raise ConfigError(f"data.num_classes={self.num_classes}: {whole.name} has {whole.num_classes} classes; give that or less")
        train, test = (part.take((part.y < self.num_classes).nonzero().flatten()) for part in (whole.train, whole.test))
        return replace(in_memory(self.name, train, test, self.num_classes), class_names=whole.class_names[: self.num_classes])


class Inked:
    """Another data set of characters as light ink on black paper: how far each pixel is from its image's edge, the farthest 255."""

    def __init__(self, *, name: str, num_classes: Count, source: Callable[[], Dataset]):
        self.name, self.num_classes, self.source = name, num_classes, source

    def __call__(self) -> Dataset:
        whole = self.source()
        train, test = (Examples(inked(part.raw), part.y) for part in (whole.train, whole.test))
        return replace(in_memory(self.name, train, test, whole.num_classes), class_names=whole.class_names)


def inked(raw: Tensor) -> Tensor:
    """uint8 [N, C, H, W] -> the same; what is on the paper's far side of the edge's mean is paper too."""
    x = raw.float()
    edge = torch.cat([x[:, :, 0], x[:, :, -1], x[:, :, :, 0], x[:, :, :, -1]], 2).mean((1, 2))[:, None, None, None]
    ink = (x - edge).mul_((x.mean((1, 2, 3), keepdim=True) - edge).sign()).clamp_(min=0)
    return (ink * (255 / ink.amax((1, 2, 3), keepdim=True).clamp(min=1))).round_().byte()
