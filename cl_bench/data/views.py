"""What the network sees of raw bytes, drawn on the device for the whole batch at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from cl_bench.core.kinds import Whole

View = Callable[[Tensor, torch.Generator | None], Tensor]


class Plain:
    """uint8 [B, C, H, W] to float in [0, 1], then (x - mean) / std."""

    def __init__(self, *, mean: float, std: float):
        self.scale, self.shift = 1 / (255 * std), mean / std

    def __call__(self, raw: Tensor, rng: torch.Generator | None) -> Tensor:
        x = raw.to(torch.get_default_dtype()).mul_(self.scale)
        return x.sub_(self.shift) if self.shift else x


class Ink:
    """Each image at mean 0 and deviation 1, turned to light ink on dark paper by the brightness of its edge.

    Characters come in both: what is learned on drawn ones then serves MNIST's and Fashion-MNIST's light on black.
    """

    def __call__(self, raw: Tensor, rng: torch.Generator | None) -> Tensor:
        x = raw.to(torch.get_default_dtype())
        x = x - x.mean((1, 2, 3), keepdim=True)
        edge = x[:, :, 0].sum((1, 2)) + x[:, :, -1].sum((1, 2)) + x[:, :, :, 0].sum((1, 2)) + x[:, :, :, -1].sum((1, 2))
        scale = x.std((1, 2, 3), correction=0) + 1  # of 255 grey levels: an empty image stays so
        return x / torch.where(edge > 0, -scale, scale)[:, None, None, None]


class CropFlip:
    """Each image shifted by up to `padding` pixels and flipped half of the time; rng None gives the plain view."""

    def __init__(self, *, mean: float, std: float, padding: Whole, flip: bool):
        self.plain, self.padding, self.flip = Plain(mean=mean, std=std), padding, flip

    def __call__(self, raw: Tensor, rng: torch.Generator | None) -> Tensor:
        x = self.plain(raw, rng)
        if rng is None:
            return x
        b, _, h, w = x.shape
        draw = torch.randint(0, 2 * self.padding + 1, (2, b, 1), generator=rng, device=x.device)
        rows = draw[0] + torch.arange(h, device=x.device)  # [B, H]
        columns = draw[1] + torch.arange(w, device=x.device)  # [B, W]
        if self.flip:
            mirrored = torch.rand(b, 1, generator=rng, device=x.device) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        padded = F.pad(x, [self.padding] * 4)
        image = torch.arange(b, device=x.device)[:, None, None]
        return padded.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


class Tokens:
    """Text [B, L + 1] to what a causal model reads, int64 [B, L]: all tokens but the last, which is only predicted."""

    text: ClassVar[bool] = True

    def __call__(self, raw: Tensor, rng: torch.Generator | None) -> Tensor:
        return raw[:, :-1].long()


class Resized:
    """Another view at another size or channel count, made on the device from the stored bytes."""

    def __init__(self, view: View, channels: int | None, size: int | None):
        self.view, self.channels, self.size = view, channels, size

    def __call__(self, raw: Tensor, rng: torch.Generator | None) -> Tensor:
        x = self.view(raw, rng)
        if self.size is not None:
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)
        return x if self.channels is None else x.expand(-1, self.channels, -1, -1)


class ChannelsLast:
    """Another view in the channels-last memory format: convolutions take it up whatever their weights lie in."""

    def __init__(self, view: View):
        self.view = view

    def __call__(self, raw: Tensor, rng: torch.Generator | None) -> Tensor:
        return self.view(raw, rng).contiguous(memory_format=torch.channels_last)
