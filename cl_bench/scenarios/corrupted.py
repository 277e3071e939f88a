"""One data set, another corruption per task (domain-incremental)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from cl_bench.core.kinds import Fraction
from cl_bench.core.seeds import fold, generator
from cl_bench.core.types import Examples, Stream
from cl_bench.data.resident import Dataset
from cl_bench.scenarios.common import make_stream
from cl_bench.scenarios.sizes import check_kinds
from cl_bench.scenarios.transformed import BLOCK, turned


class Corrupted:
    """A task for each kind (names, and five strengths where it has them, after 1903.12261), train and test alike.

    An image's noise follows from order_seed, the kind and its place in the data: it is the same in every run.
    strengths: kind -> strength at severity 1..5.
    """

    def __init__(
        self,
        *,
        kinds: list[str],
        severity: Literal[1, 2, 3, 4, 5],
        strengths: Mapping[str, list[float]],
        order_seed: int,
        valid_fraction: Fraction,
    ):
        check_kinds(kinds, [kind for kind in strengths if kind in KINDS])
        self.kinds, self.order_seed, self.valid_fraction = kinds, order_seed, valid_fraction
        self.strengths = {kind: strengths[kind][severity - 1] for kind in kinds}

    def corrupt(self, raw: Tensor, kind: str, part: str) -> Tensor:
        """uint8 [N, C, H, W], by blocks: float copies of a block, not of the data set."""
        seed = fold(self.order_seed, f"{kind} {part}")
        done = []
        for number, block in enumerate(raw.split(BLOCK)):
            x = KINDS[kind](block / 255, self.strengths[kind], generator(seed, "corrupt", number))
            done.append(x.clamp_(0, 1).mul_(255).round_().to(torch.uint8))
        return torch.cat(done)

    def __call__(self, dataset: Dataset) -> Stream:
        classes = tuple(range(dataset.num_classes))
        tasks = []
        for kind in self.kinds:
            train, test = (
                Examples(self.corrupt(part.raw, kind, name), part.y) for name, part in (("train", dataset.train), ("test", dataset.test))
            )
            tasks.append((kind, train, test, classes))
        return make_stream(tasks, dataset.num_classes, self.valid_fraction, self.order_seed)


# Each takes x in [0, 1], float [B, C, H, W], the strength c and a generator; the result may leave [0, 1].


def clean(x: Tensor, c: float, rng: Generator) -> Tensor:
    return x


def gaussian_noise(x: Tensor, c: float, rng: Generator) -> Tensor:
    return x + c * torch.randn(x.shape, generator=rng)


def shot_noise(x: Tensor, c: float, rng: Generator) -> Tensor:
    return torch.poisson(x * c, generator=rng) / c


def impulse_noise(x: Tensor, c: float, rng: Generator) -> Tensor:
    u = torch.rand(x.shape, generator=rng)  # a share c of the values turns black or white, half each
    return torch.where(u < c, (u < c / 2).to(x.dtype), x)


def speckle_noise(x: Tensor, c: float, rng: Generator) -> Tensor:
    return x + x * c * torch.randn(x.shape, generator=rng)


def gaussian_blur(x: Tensor, c: float, rng: Generator) -> Tensor:
    radius = int(4 * c + 0.5)  # as scikit-image cuts the kernel
    kernel = torch.softmax(-(torch.arange(-radius, radius + 1) ** 2) / (2 * c * c), 0)
    planes = F.pad(x, [radius] * 4, mode="replicate").flatten(0, 1).unsqueeze(1)
    return F.conv2d(F.conv2d(planes, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1)).view_as(x)


def contrast(x: Tensor, c: float, rng: Generator) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * c + mean


def brightness(x: Tensor, c: float, rng: Generator) -> Tensor:
    value = x.amax(1, keepdim=True)  # V of HSV; hue and saturation stay
    return torch.where(value > 0, x / value.clamp(min=1e-6), 1.0) * (value + c).clamp(max=1)


def pixelate(x: Tensor, c: float, rng: Generator) -> Tensor:
    height, width = x.shape[2:]
    small = F.interpolate(x, (max(1, int(height * c)), max(1, int(width * c))), mode="area")
    return F.interpolate(small, (height, width), mode="nearest-exact")


def invert(x: Tensor, c: float, rng: Generator) -> Tensor:
    return x + c * (1 - 2 * x)


def rotate(x: Tensor, c: float, rng: Generator) -> Tensor:
    return turned(x, c)


Corruption = Callable[[Tensor, float, Generator], Tensor]
EVERY: tuple[Corruption, ...] = (
    *(clean, gaussian_noise, shot_noise, impulse_noise, speckle_noise, gaussian_blur),
    *(contrast, brightness, pixelate, invert, rotate),
)
KINDS = {function.__name__: function for function in EVERY}
