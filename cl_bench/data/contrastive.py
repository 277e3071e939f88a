"""Random crops, flips, colours and blurs as a view, drawn on the device for the whole batch at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from cl_bench.core.errors import ConfigError
from cl_bench.core.kinds import Count, Fraction, NonNegative, Positive, Whole
from cl_bench.data.augment import TRIES, along, blends, blurring, crops, grey, jitter, resampling, shifting

PORTION = 64  # images worked on at a time on a CPU, whose cache these fill; speed only


class Augmented:
    """Crop, flip, colour jitter, grey and blur with torchvision's distributions, each with its own chance; rng None draws nothing.

    crop: `resized` is RandomResizedCrop(size, scale, ratio), `shifted` is RandomCrop(padding). size: of what comes out, null as
    the data; centre: share of the sides that is seen where nothing is drawn. jitter: how far brightness, contrast, saturation
    (about 1) and hue (about 0) go. blur: sigmas. mean and std: one number, or one a channel, to which grey is repeated.
    """

    def __init__(
        self,
        *,
        size: Count | None,
        crop: Literal["resized", "shifted"],
        scale: list[Positive],
        ratio: list[Positive],
        interpolation: Literal["bilinear", "bicubic"],
        padding: Whole,
        flip: Fraction,
        jitter: Mapping[str, NonNegative],
        jitter_chance: Fraction,
        grey_chance: Fraction,
        blur: list[Positive],
        blur_kernel: Count,
        blur_chance: Fraction,
        centre: Fraction,
        mean: float | list[float],
        std: Positive | list[Positive],
    ):
        for name, pair in (("scale", scale), ("ratio", ratio), ("blur", blur)):
            if len(pair) != 2 or pair[0] > pair[1]:
                raise ConfigError(f"view.{name}={list(pair)} is no range; give [lowest, highest]")
        if scale[1] > 1:
            raise ConfigError(f"view.scale={list(scale)}: a crop is at most the whole image; give [lowest, highest] up to 1")
        if set(jitter) != {"brightness", "contrast", "saturation", "hue"} or jitter["hue"] > 0.5:
            raise ConfigError(f"view.jitter={dict(jitter)}: give brightness, contrast, saturation, and hue of 0.5 or less")
        if not blur_kernel % 2:
            raise ConfigError(f"view.blur_kernel={blur_kernel} has no middle; give an odd number")
        self.size, self.crop, self.scale, self.ratio, self.interpolation = size, crop, scale, ratio, interpolation
        self.padding, self.flip = padding, flip
        self.jitter, self.jitter_chance, self.grey_chance = dict(jitter), jitter_chance, grey_chance
        self.blur, self.blur_kernel, self.blur_chance = blur, blur_kernel, blur_chance
        self.centre = centre
        self.mean, self.std = (list(v) if isinstance(v, Sequence) else [v] for v in (mean, std))

    def __call__(self, raw: Tensor, rng: torch.Generator | None) -> Tensor:
        with torch.autocast(raw.device.type, enabled=False):  # half precision would round the crop's pixels
            return self._views(raw, rng)

    def _views(self, raw: Tensor, rng: torch.Generator | None) -> Tensor:
        b, c, h, w = raw.shape
        size = (self.size or h, self.size or w)
        self._refuse(c, h, w, size)
        mean, std = (torch.tensor(v, dtype=torch.get_default_dtype(), device=raw.device)[:, None, None] for v in (self.mean, self.std))
        if rng is None:
            return self._finish(self._still(raw.to(mean.dtype, copy=True), size), mean, std)
        drawn = self._numbers(b, h, w, rng, raw.device)
        if raw.device.type != "cpu" or "place" not in drawn:
            return self._finish(self._augment(raw.to(mean.dtype, copy=True), size, drawn, None), mean, std)
        # On a CPU, where what was drawn can be looked at, those that turn their hue at the same place (-1: not at all) are worked on
        # together, as many as fit its cache: a third of the time
        out, turn = torch.empty(b, max(c, len(mean), len(std)), *size), drawn["place"].masked_fill(drawn["still"], -1)
        for k in turn.unique().tolist():
            for part in (turn == k).nonzero().flatten().split(PORTION):
                of_part = {name: numbers.index_select(-1, part) for name, numbers in drawn.items()}
                x = self._augment(raw.index_select(0, part).to(out.dtype), size, of_part, k)
                out.index_copy_(0, part, self._finish(x, mean, std))  # as out[part] = x, in a fraction of the time
        return out

    def _finish(self, x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        channels = max(x.shape[1], len(mean), len(std))
        return (x if x.shape[1] == channels else x.repeat(1, channels, 1, 1)).sub_(mean).div_(std)

    def _numbers(self, b: int, h: int, w: int, rng: torch.Generator, device: torch.device) -> dict[str, Tensor]:
        """All that is random, [..., B] by name."""
        drawn = {"flip": torch.rand(b, generator=rng, device=device) < self.flip}
        if self.crop == "resized":
            drawn["box"] = crops(h, w, self.scale, self.ratio, torch.rand(2 * TRIES + 2, b, generator=rng, device=device))
        else:
            drawn["offset"] = torch.rand(2, b, generator=rng, device=device).mul_(2 * self.padding + 1).floor_() - self.padding
        if self.jitter_chance:
            numbers = torch.rand(9, b, generator=rng, device=device)
            order, drawn["still"] = numbers[5:].argsort(0), numbers[4] >= self.jitter_chance
            factors = self._factors(numbers[:4], drawn["still"])
            drawn["shares"], drawn["angle"], drawn["place"] = blends(factors, order), factors[3], order.argsort(0)[3]
        if self.grey_chance:
            drawn["grey"] = torch.rand(b, generator=rng, device=device) < self.grey_chance
        if self.blur_chance:
            sigma, chance = torch.rand(2, b, generator=rng, device=device)
            sigma = self.blur[0] + (self.blur[1] - self.blur[0]) * sigma
            drawn["sigma"] = sigma.masked_fill_(chance >= self.blur_chance, 0)
        return drawn

    def _augment(self, x: Tensor, size: Sequence[int], drawn: Mapping[str, Tensor], turn: int | None) -> Tensor:
        """x [B, C, H, W] of 0 to 255 -> [B, C, *size] of 0 to 1."""
        h, w = x.shape[2:]
        if "box" in drawn:
            top, left, high, wide = drawn["box"]
            rows = resampling(top, high, h, size[0], self.interpolation)
            columns = resampling(left, wide, w, size[1], self.interpolation, drawn["flip"])
        else:
            rows = self._whole(x, h, size[0]) @ shifting(drawn["offset"][0], h)
            columns = self._whole(x, w, size[1]) @ shifting(drawn["offset"][1], w, drawn["flip"])
        x = along(rows.mul_(1 / 255), x, columns)
        if self.interpolation == "bicubic":
            x.clamp_(0, 1)  # the filter overshoots
        if "shares" in drawn and turn != -1:
            jitter(x, drawn["shares"], drawn["angle"], drawn["place"], turn)
        if "grey" in drawn and x.shape[1] == 3:
            x.lerp_(grey(x), drawn["grey"][:, None, None, None].to(x.dtype))
        if "sigma" in drawn:
            rows, columns = (blurring(drawn["sigma"], length, self.blur_kernel) for length in size)
            x = along(rows, x, columns)
        return x

    def _still(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """x [B, C, H, W] of 0 to 255 -> [B, C, *size] of 0 to 1, nothing drawn."""
        if (*x.shape[2:], self.centre) == (*size, 1):
            return x.div_(255)
        rows, columns = (self._whole(x, *sides, self.centre) for sides in zip(x.shape[2:], size, strict=True))
        return along(rows / 255, x, columns)

    def _whole(self, x: Tensor, source: int, size: int, share: float = 1.0) -> Tensor:
        """[B, size, source] of a line whose middle share is resized and nothing else."""
        length = x.new_full((len(x),), share * source)
        return resampling((source - length) / 2, length, source, size, "bilinear")

    def _factors(self, draw: Tensor, still: Tensor) -> Tensor:
        """Of ColorJitter [4, B] from uniform numbers [4, B]; where `still`, such as change nothing."""
        reach = [self.jitter[name] for name in ("brightness", "contrast", "saturation")]
        low, high = (draw.new_tensor(v)[:, None] for v in ([max(0, 1 - r) for r in reach], [1 + r for r in reach]))
        factors = torch.cat([low + (high - low) * draw[:3], self.jitter["hue"] * (2 * draw[3:] - 1)])
        return draw.new_tensor([1.0, 1.0, 1.0, 0.0])[:, None].where(still, factors)

    def _refuse(self, c: int, h: int, w: int, size: Sequence[int]) -> None:
        """Images that these settings cannot be applied to; known from the first batch, which run.py shows before training."""
        if self.crop == "resized":
            area, widest = self.scale[0] * h * w, max(self.ratio[1], 1 / self.ratio[0])
            if (area / widest) ** 0.5 < 1:
                raise ConfigError(
                    f"view.scale={list(self.scale)}: a crop of that share of {h} x {w} pixels is thinner than one; "
                    "raise its lowest number, or use larger images"
                )
        if self.blur_chance and min(size) <= self.blur_kernel // 2:
            raise ConfigError(
                f"view.blur_kernel={self.blur_kernel} is too wide for {size[0]} x {size[1]} pixels; "
                f"give {2 * min(size) - 1} or less, or view.blur_chance=0"
            )
        for name in ("mean", "std"):
            if c > 1 and len(getattr(self, name)) not in (1, c):
                raise ConfigError(f"view.{name}={list(getattr(self, name))}: the images have {c} channels; give one number, or {c}")
