"""One experience over a whole data set: where a backbone comes from."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from cl_bench.core.errors import ConfigError
from cl_bench.core.kinds import Fraction, Whole
from cl_bench.core.seeds import generator
from cl_bench.core.types import Experience, Stream, Test
from cl_bench.data.resident import Dataset
from cl_bench.scenarios.common import hold_out, of_classes


class Pretrain:
    """All classes but `exclude` at once, or a `fraction` of them or of the images of each.

    Fractions are nested: a smaller one holds a part of the same images. The held-out examples are the same for all.
    """

    def __init__(
        self, *, fraction: Fraction, by: Literal["image", "class"], exclude: list[Whole], order_seed: int, valid_fraction: Fraction
    ):
        self.fraction, self.by, self.exclude = fraction, by, exclude
        self.order_seed, self.valid_fraction = order_seed, valid_fraction

    def __call__(self, dataset: Dataset) -> Stream:
        kept, held = hold_out(dataset.train, self.valid_fraction, self.order_seed, 0)
        picked = self._classes(dataset.num_classes)
        rename = torch.full((dataset.num_classes,), -1)
        rename[picked] = torch.arange(len(picked))
        train, test = (of_classes(part, picked, rename) for part in (kept, dataset.test))
        if self.by == "image":
            train = train.take(self._images(train.y, picked))
        classes = tuple(range(len(picked)))
        valid = None if held is None else of_classes(held, picked, rename)
        behind = {"pretrain": [[c] for c in picked]} if len(picked) < dataset.num_classes else {}
        experience = Experience(0, "pretrain", train, classes, valid)
        return Stream((experience,), {"pretrain": Test(test, classes, 0)}, len(classes), behind)

    def _classes(self, count: int) -> list[int]:
        """The data's classes that are learned, in their order."""
        unknown = [c for c in self.exclude if c >= count]
        if unknown:
            raise ConfigError(f"scenario.exclude: there is no class {unknown[0]}; give classes 0 to {count - 1}")
        left = [c for c in range(count) if c not in self.exclude]
        if self.by == "class":
            order = torch.randperm(count, generator=generator(self.order_seed, "classes of a fraction")).tolist()
            left = sorted([c for c in order if c in left][: int(self.fraction * len(left))])
        if len(left) < 2:
            raise ConfigError(
                f"scenario.fraction={self.fraction} of {count} classes, {len(set(self.exclude))} of them excluded, leaves {len(left)}; "
                "at least 2 are needed: raise it or exclude fewer"
            )
        return left

    def _images(self, y: Tensor, classes: list[int]) -> Tensor:
        """Places of the first images of each class, in an order that does not depend on the fraction."""
        places = []
        for label, c in enumerate(classes):
            members = (y == label).nonzero().flatten()
            count = int(self.fraction * len(members))
            if not count:
                raise ConfigError(
                    f"scenario.fraction={self.fraction} leaves class {c} without an image: {len(members)} are there to train on; "
                    "raise it, or set scenario.by=class"
                )
            order = torch.randperm(len(members), generator=generator(self.order_seed, "images of a fraction", c))
            places.append(members[order[:count]])
        return torch.cat(places).sort().values
