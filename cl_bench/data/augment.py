"""Random crops, flips, colours and blurs of a whole batch on the device, each image with its own random numbers.

Crops, flips and blurs are matrices [B, out, in] over rows and columns, so that a batch of different crops is two products.
What they draw and compute is what torchvision's transforms do image by image; only its rounding to bytes is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

GREY = (0.299, 0.587, 0.114)  # ITU-R 601-2, as PIL and torchvision have it
TRIES = 10  # crops drawn before the largest that fits is taken: torchvision's RandomResizedCrop
CUBIC = -0.5  # a of PIL's bicubic filter


def crops(height: int, width: int, scale: Sequence[float], ratio: Sequence[float], draw: Tensor) -> Tensor:
    """Boxes [4, B] (top, left, height, width) of RandomResizedCrop from uniform numbers [2 * TRIES + 2, B]."""
    area = height * width * (scale[0] + (scale[1] - scale[0]) * draw[:TRIES])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = (low + (high - low) * draw[TRIES : 2 * TRIES]).exp_()
    w, h = (area * aspect).sqrt_().round_(), (area / aspect).sqrt_().round_()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    w_all, h_all = largest(height, width, ratio)
    first = fits.to(torch.uint8).argmax(0, keepdim=True)  # argmax gives the first of equals
    none = ~fits.any(0)
    h = h.gather(0, first)[0].masked_fill_(none, h_all)
    w = w.gather(0, first)[0].masked_fill_(none, w_all)
    top = torch.where(none, (height - h).div_(2).floor_(), (draw[-2] * (height - h + 1)).floor_())
    left = torch.where(none, (width - w).div_(2).floor_(), (draw[-1] * (width - w + 1)).floor_())
    return torch.stack([top, left, h, w])


def largest(height: int, width: int, ratio: Sequence[float]) -> tuple[int, int]:
    """(height, width) of the largest centred crop of an allowed shape: where no draw fits."""
    if width / height < ratio[0]:
        return round(width / ratio[0]), width
    if width / height > ratio[1]:
        return height, round(height * ratio[1])
    return height, width


def resampling(start: Tensor, length: Tensor, source: int, size: int, mode: str, mirrored: Tensor | None = None) -> Tensor:
    """[B, size, source]: pixels start .. start + length of a line brought to `size` pixels by PIL's filter, antialias included.

    mirrored: bool [B], lines that come out backwards.
    """
    step = (length / size)[:, None, None]
    line, begin = torch.arange(source, device=start.device) + 0.5, start[:, None, None]
    centre = places(size, start, mirrored).add_(0.5).mul_(step).add_(begin)
    distance, reach = (line - centre).abs_(), step.clamp(min=1)
    if mode == "bilinear":
        weight = torch.sub(reach, distance, out=distance).clamp_(min=0)  # of any height: they are divided by their sum
    else:
        distance.div_(reach)
        near = ((CUBIC + 2) * distance - (CUBIC + 3)) * distance * distance + 1
        far = ((CUBIC * distance - 5 * CUBIC) * distance + 8 * CUBIC) * distance - 4 * CUBIC
        weight = torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))
    weight.mul_((line > begin) & (line < begin + length[:, None, None]))
    return weight.div_(weight.sum(2, keepdim=True))


def shifting(offset: Tensor, source: int, mirrored: Tensor | None = None) -> Tensor:
    """[B, source, source]: a line moved by offset [B] pixels, black where nothing comes from."""
    taken = places(source, offset, mirrored).add_(offset[:, None, None])
    return (torch.arange(source, device=offset.device) == taken).to(offset.dtype)


def places(size: int, like: Tensor, mirrored: Tensor | None) -> Tensor:
    """0 .. size - 1 for each of the batch, [B, size, 1], backwards where mirrored."""
    line = torch.arange(size, device=like.device, dtype=like.dtype)[None, :, None]
    if mirrored is None:
        return line.repeat(len(like), 1, 1)
    back = mirrored.to(like.dtype)[:, None, None]
    return line + back * (size - 1 - 2 * line)


def blurring(sigma: Tensor, size: int, kernel: int) -> Tensor:
    """[B, size, size]: a Gaussian of so many pixels with the border mirrored; sigma [B], 0 leaves the image as it is."""
    reach = kernel // 2
    tap = torch.arange(-reach, reach + 1, device=sigma.device)
    weight = (-0.5 * (tap[None] / sigma.clamp(min=1e-3)[:, None]).square()).exp_()
    weight = weight / weight.sum(1, keepdim=True)  # [B, kernel]
    line = torch.arange(size, device=sigma.device)
    source = (line[:, None] + tap[None]).abs()  # mirrored at the first pixel, then at the last
    source = (size - 1) - ((size - 1) - source).abs()
    matrix = torch.zeros(len(sigma), size, size, device=sigma.device, dtype=weight.dtype)
    return matrix.scatter_add_(2, source.expand(len(sigma), -1, -1), weight[:, None, :].expand(-1, size, -1))


def along(rows: Tensor, x: Tensor, columns: Tensor) -> Tensor:
    """rows [B, h, H], x [B, C, H, W], columns [B, w, W] -> [B, C, h, w]."""
    b, c, height, width = x.shape
    wide = torch.bmm(x.reshape(b, c * height, width), columns.transpose(1, 2))  # all channels of an image at once
    return torch.matmul(rows[:, None], wide.view(b, c, height, -1))


def grey(x: Tensor) -> Tensor:
    """[B, 3, H, W] -> [B, 1, H, W]."""
    return x[:, :1].mul(GREY[0]).add_(x[:, 1:2], alpha=GREY[1]).add_(x[:, 2:], alpha=GREY[2])


def blends(factors: Tensor, order: Tensor) -> Tensor:
    """What jitter mixes, place by place [4 places, 3, B]: of the image itself, of its mean lightness, of the pixel's; at hue (1, 0, 0).

    factors [4, B] of brightness, contrast, saturation (1 is as it was) and hue; order [4, B]: a permutation of 0 to 3 in each column.
    """
    own = factors.gather(0, order).masked_fill_(order == 3, 1)
    return torch.stack([own, *((1 - own) * (order == kind) for kind in (1, 2))], 1)


def jitter(x: Tensor, shares: Tensor, angle: Tensor, place_of_hue: Tensor, at: int | None) -> Tensor:
    """ColorJitter of x [B, C, H, W] in [0, 1], in place: shares as blends gives them, hue turned at its place [B] by angle [B] of a circle.

    The three blends x <- f x + (1 - f) reference are one operation whose reference differs. at: the place of hue where all
    images have it in one; None turns it once between three blends before and three after, of which each image needs three.
    """
    before, after = shares, shares
    if at is None:
        place, neutral = torch.arange(4, device=x.device)[:, None, None], (torch.arange(3, device=x.device) == 0).to(shares.dtype)[:, None]
        before, after = shares.where(place < place_of_hue, neutral), shares.where(place > place_of_hue, neutral)
    for mix in before[: 3 if at is None else at]:
        _blend(x, mix)
    if x.shape[1] == 3:
        hue(x, angle)
    for mix in after[1 if at is None else at + 1 :]:
        _blend(x, mix)
    return x


def _blend(x: Tensor, shares: Tensor) -> None:
    """x <- own x + of_mean (mean lightness of the image) + of_grey (lightness of the pixel), within [0, 1]; shares [3, B]."""
    own, of_mean, of_grey = shares[..., None, None, None]
    if x.shape[1] == 3:
        light = grey(x)
        mean = light.mean((2, 3), keepdim=True).mul_(of_mean)
        torch.addcmul(light.mul_(of_grey).add_(mean), x, own, out=x)
    else:
        mean = x.mean((2, 3), keepdim=True).mul_(of_mean)
        x.mul_(own + of_grey).add_(mean)
    x.clamp_(0, 1)


def hue(x: Tensor, turn: Tensor) -> Tensor:
    """Colours turned by `turn` [B] of a circle, in place: HSV with value and saturation kept."""
    r, g, b = x.unbind(1)
    top, bottom = torch.maximum(r, g), torch.minimum(r, g)
    torch.maximum(top, b, out=top)
    torch.minimum(bottom, b, out=bottom)
    red = (r - top).sign_().add_(1)  # 1 where it is the largest, else 0; arithmetic, for a choice by mask takes five times as long
    blue = (b - top).sign_().add_(1).mul_(1 - red)
    green = (1 - red).sub_(blue)
    span = top.sub_(bottom)
    # Sixths of the circle from the largest channel: g - b, 2 + b - r, 4 + r - g, each over the span
    at = (g - b).mul_(red).addcmul_(b - r, green).addcmul_(r - g, blue).div_(span.clamp(min=1e-8))
    at.add_(green, alpha=2).add_(blue, alpha=4).add_(6 * turn[:, None, None])
    at.sub_((at * (1 / 6)).floor_(), alpha=6)
    for channel, middle, sign, shift in ((r, 3, 1, -1), (g, 2, -1, 2), (b, 4, -1, 2)):
        share = (at - middle).abs_().mul_(sign).add_(shift).clamp_(0, 1)
        torch.addcmul(bottom, span, share, out=channel)
    return x
