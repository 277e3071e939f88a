"""Batched random views against torchvision's, image by image: each operation, then the distribution of the whole."""

from __future__ import annotations

import pytest
import torch
import torchvision.transforms as T
import torchvision.transforms.functional as TF
from PIL import Image
from scipy.stats import ks_2samp

from cl_bench.core.errors import ConfigError
from cl_bench.data.augment import TRIES, along, blends, blurring, crops, hue, jitter, resampling, shifting
from cl_bench.data.contrastive import Augmented

JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
SETTINGS = {
    **{"size": None, "crop": "resized", "scale": [0.2, 1.0], "ratio": [3 / 4, 4 / 3], "interpolation": "bilinear", "padding": 4},
    **{"flip": 0.5, "jitter": JITTER, "jitter_chance": 0.8, "grey_chance": 0.2, "blur": [0.1, 2.0], "blur_kernel": 7},
    **{"blur_chance": 0.5, "centre": 1.0, "mean": [0.0], "std": [1.0]},
}


def view(**changes) -> Augmented:
    return Augmented(**(SETTINGS | changes))


def images(count: int, channels: int = 3, size: int = 24) -> torch.Tensor:
    """Smooth in parts, so that a wrong filter shows."""
    rng = torch.Generator().manual_seed(3)
    coarse = torch.rand(count, channels, 6, 6, generator=rng)
    noise = 0.2 * torch.rand(count, channels, size, size, generator=rng)
    return (torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic") + noise).clamp(0, 1).mul(255).byte()


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("box", [(2, 3, 7, 9), (0, 0, 24, 24), (5, 1, 18, 23)])
@pytest.mark.parametrize("size", [8, 24, 40])
def test_a_crop_is_resized_as_pil_does(mode, box, size) -> None:
    raw = images(1) // 2 + 64  # a bicubic filter overshoots, and PIL cuts after each direction
    top, left, high, wide = (torch.tensor([float(v)]) for v in box)
    ours = along(resampling(top, high, 24, size, mode), raw / 255, resampling(left, wide, 24, size, mode)).clamp(0, 1)
    theirs = TF.resized_crop(TF.to_pil_image(raw[0]), *box, [size, size], getattr(T.InterpolationMode, mode.upper()))
    assert (ours[0] - TF.to_tensor(theirs)).abs().max() < 2.01 / 255  # PIL rounds to bytes after each direction


def test_a_flip_mirrors_and_a_shift_moves() -> None:
    raw, one = images(2) / 255, torch.ones(2)
    flipped = along(resampling(0 * one, 24 * one, 24, 24, "bilinear"), raw, resampling(0 * one, 24 * one, 24, 24, "bilinear", one > 0))
    assert torch.allclose(flipped, raw.flip(3), atol=1e-6)
    offset = torch.tensor([[2.0, -1.0], [0.0, 3.0]])
    moved = along(shifting(offset[0], 24), raw, shifting(offset[1], 24, torch.tensor([False, True])))
    padded = torch.nn.functional.pad(raw, [4] * 4)
    assert torch.equal(moved[0], padded[0, :, 6:30, 4:28]) and torch.equal(moved[1], padded[1, :, 3:27, 7:31].flip(2))


def test_hue_is_torchvisions() -> None:
    x = images(5) / 255
    turn = torch.tensor([-0.5, -0.1, 0.0, 0.07, 0.5])
    expected = torch.stack([TF.adjust_hue(image, float(t)) for image, t in zip(x, turn)])
    assert torch.allclose(hue(x.clone(), turn), expected, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("turn", [None, 0, 1, 2, 3])
def test_jitter_is_torchvisions_in_every_order(turn, channels) -> None:
    orders = [o for o in torch.cartesian_prod(*[torch.arange(4)] * 4) if len(set(o.tolist())) == 4]
    order = torch.stack([o for o in orders if turn is None or o[turn] == 3], 1)
    count = order.shape[1]
    rng = torch.Generator().manual_seed(1)
    factors = torch.cat([0.4 + 1.2 * torch.rand(3, count, generator=rng), torch.rand(1, count, generator=rng) - 0.5])
    x = images(count, channels) / 255
    change = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue)
    expected = []
    for image, factor, kinds in zip(x, factors.T, order.T):
        for kind in kinds:
            image = change[kind](image, float(factor[kind]))
        expected.append(image)
    assert torch.allclose(
        jitter(x.clone(), blends(factors, order), factors[3], order.argsort(0)[3], turn), torch.stack(expected), atol=1e-3
    )  # its 0.2989 for PIL's 0.299


def test_blur_is_torchvisions() -> None:
    x, sigma = images(3) / 255, torch.tensor([0.3, 1.1, 0.0])
    matrix = blurring(sigma, 24, 7)
    ours = along(matrix, x, matrix)
    for k in range(2):
        assert torch.allclose(ours[k], TF.gaussian_blur(x[k], 7, float(sigma[k])), atol=1e-5)
    assert torch.equal(ours[2], x[2])


def test_boxes_fall_as_torchvisions() -> None:
    """Kolmogorov and Smirnov on every side of the box, for a wide image that often needs another try."""
    count, image = 4000, Image.new("RGB", (40, 20))
    torch.manual_seed(0)
    theirs = torch.tensor([T.RandomResizedCrop.get_params(image, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(count)])
    ours = crops(20, 40, [0.2, 1.0], [3 / 4, 4 / 3], torch.rand(2 * TRIES + 2, count, generator=torch.Generator().manual_seed(4)))
    for a, b in zip(ours, theirs.T):
        assert ks_2samp(a.numpy(), b.numpy()).pvalue > 1e-3


@pytest.mark.parametrize("crop", ["resized", "shifted"])
def test_views_are_distributed_as_torchvisions(crop) -> None:
    """Of one image, 1,500 times: mean and spread of each channel, each corner, the sharpness, the side it faces, grey or not."""
    count, raw = 1500, images(1)
    blur = T.RandomApply([T.GaussianBlur(7, (0.1, 2.0))], 0.5)
    first = T.RandomResizedCrop(24, (0.2, 1.0)) if crop == "resized" else T.RandomCrop(24, 4)
    theirs = T.Compose(
        [
            first,
            T.RandomHorizontalFlip(),
            T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
            T.RandomGrayscale(0.2),
            blur,
            T.ToTensor(),
        ]
    )
    torch.manual_seed(2)
    picture = TF.to_pil_image(raw[0])
    a = figures(torch.stack([theirs(picture) for _ in range(count)]))
    b = figures(view(crop=crop)(raw.expand(count, -1, -1, -1), torch.Generator().manual_seed(6)).mul(255).round() / 255)
    assert min(ks_2samp(a[k].numpy(), b[k].numpy()).pvalue for k in a if k != "grey") > 1e-4
    assert abs(a["grey"].mean() - b["grey"].mean()) < 4 * (2 * 0.2 * 0.8 / count) ** 0.5


def figures(x: torch.Tensor) -> dict[str, torch.Tensor]:
    found = {f"mean{c}": x[:, c].mean((1, 2)) for c in range(3)} | {f"spread{c}": x[:, c].std((1, 2)) for c in range(3)}
    found |= {"sharp": (x[..., 1:] - x[..., :-1]).abs().mean((1, 2, 3)), "faces": (x[..., 12:] - x[..., :12]).mean((1, 2, 3))}
    found |= {"corner": x[:, :, :4, :4].mean((1, 2, 3)), "colour": x.std(1).mean((1, 2)), "top": x.amax((1, 2, 3))}
    return found | {"grey": ((x[:, 0] - x[:, 1]).abs().amax((1, 2)) < 1.5 / 255).double()}


def test_each_image_has_numbers_of_its_own_and_none_draws_nothing() -> None:
    raw = images(1).expand(70, -1, -1, -1)
    seen = view()(raw, torch.Generator().manual_seed(0))
    assert len({tuple(image.flatten().tolist()) for image in seen}) == 70
    assert torch.equal(seen, view()(raw, torch.Generator().manual_seed(0)))
    assert torch.allclose(view(mean=[0.5], std=[0.25])(raw, None), (raw / 255 - 0.5) / 0.25, atol=1e-5)
    assert view()(raw[:2], torch.Generator().manual_seed(0)).shape == (2, 3, 24, 24)
    assert view(size=9)(raw, None).shape == view(size=9)(raw, torch.Generator()).shape == (70, 3, 9, 9)
    assert view(size=9, crop="shifted")(raw[:, :1], torch.Generator()).shape == (70, 1, 9, 9)


@pytest.mark.parametrize("changes", [{}, {"jitter_chance": 0.0}, {"size": 9, "centre": 0.8}])
@pytest.mark.parametrize("drawn", [True, False])
def test_views_keep_their_pixels_where_the_network_computes_in_half_precision(changes, drawn: bool) -> None:
    def seen() -> torch.Tensor:
        return view(**changes)(images(70), torch.Generator().manual_seed(0) if drawn else None)

    plain = seen()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(seen(), plain)


@pytest.mark.parametrize(
    ("changes", "size", "words"),
    [
        ({}, 1, "view.scale=[0.2, 1.0]: a crop of that share of 1 x 1 pixels"),
        ({"blur_kernel": 9}, 4, "view.blur_kernel=9 is too wide for 4 x 4 pixels; give 7 or less"),
        ({"mean": [0.1, 0.2]}, 8, "view.mean=[0.1, 0.2]: the images have 3 channels"),
    ],
)
def test_what_does_not_fit_the_images(error, changes, size, words) -> None:
    assert words in error(lambda: view(**changes)(torch.zeros(2, 3, size, size, dtype=torch.uint8), torch.Generator()))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scale": [1.0, 0.2]}, "view.scale=[1.0, 0.2] is no range"),
        ({"scale": [0.2, 2.0]}, "at most the whole image"),
        ({"jitter": {"hue": 0.1}}, "give brightness, contrast"),
        ({"blur_kernel": 4}, "view.blur_kernel=4 has no middle"),
    ],
)
def test_settings_that_say_nothing(changes, words) -> None:
    with pytest.raises(ConfigError, match=words.replace("[", r"\[")):
        view(**changes)
