"""Data sets in a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cl_bench.core.kinds import Fraction
from cl_bench.core.types import Examples, Stream
from cl_bench.data.resident import Dataset
from cl_bench.scenarios.common import make_stream


class Sequence:
    """head `shared`: label k of every data set is logit k; `per_dataset`: each has logits of its own.

    Images are brought to the largest size and channel count among the data sets.
    """

    def __init__(self, *, datasets: list[str], head: Literal["shared", "per_dataset"], order_seed: int, valid_fraction: Fraction):
        self.datasets, self.head = datasets, head
        self.order_seed, self.valid_fraction = order_seed, valid_fraction

    def __call__(self, datasets: Mapping[str, Dataset]) -> Stream:
        shapes = [d.train.raw.shape[1:] for d in datasets.values()]
        shape = tuple(max(s[i] for s in shapes) for i in range(3))
        tasks, start = [], 0
        for name, d in datasets.items():
            offset = start if self.head == "per_dataset" else 0
            train, test = (Examples(fit(part.raw, shape), part.y + offset) for part in (d.train, d.test))
            tasks.append((name, train, test, tuple(range(offset, offset + d.num_classes))))
            start += d.num_classes
        total = start if self.head == "per_dataset" else max(d.num_classes for d in datasets.values())
        stream = make_stream(tasks, total, self.valid_fraction, self.order_seed)
        return replace(stream, class_names={name: d.class_names for name, d in datasets.items()})


def fit(raw: Tensor, shape: tuple[int, ...]) -> Tensor:
    """uint8 [N, C, H, W] to the given [C, H, W]; grey is repeated, small is enlarged."""
    channels, height, width = shape
    if raw.shape[1] == 1 and channels > 1:
        raw = raw.expand(-1, channels, -1, -1)
    if tuple(raw.shape[2:]) == (height, width):
        return raw
    blocks = [F.interpolate(b.float(), (height, width), mode="bilinear", antialias=True).round_().byte() for b in raw.split(4096)]
    return torch.cat(blocks)
