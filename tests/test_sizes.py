"""Models of the scale study: their parameters, counted from their design."""

from __future__ import annotations

import pytest
import torch
from test_pretrain import composed, state

from cl_bench.build import build
from cl_bench.checks import OF_MODEL


def made(name: str, shape: tuple[int, int, int], *more: str) -> torch.nn.Module:
    config = composed(f"model={name}", *more)
    node = {k: v for k, v in config["model"].items() if k not in OF_MODEL}
    with torch.device("meta"):
        return build(node, config["runtime"]["allow_targets"], input_shape=shape, pretrained=False)[0]


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "width", "depth"),
    [("vit_femto", 48, 4), ("vit_pico", 64, 4), ("vit_nano", 96, 6), ("vit_micro", 128, 8), ("vit_xs", 192, 12), ("vit_b_in21k", 768, 12)],
)
def test_parameters_of_vision_transformers(name: str, width: int, depth: int) -> None:
    """Patches, class token, positions, blocks (2 norms, qkv, projection, MLP of 4), last norm."""
    size, patch, channels = (224, 16, 3) if name.endswith("in21k") else (32, 4, 1)
    blocks = depth * (2 * 2 * width + (width + 1) * 3 * width + (width + 1) * width + (width + 1) * 4 * width + (4 * width + 1) * width)
    wanted = (channels * patch**2 + 1) * width + width + ((size // patch) ** 2 + 1) * width + blocks + 2 * width
    assert count(made(name, (channels, size, size))) == wanted


@pytest.mark.parametrize(("groups", "width"), [("null", 8), ("null", 16), ("null", 32), ("null", 64), ("4", 8)])
def test_parameters_of_resnets(groups: str, width: int) -> None:
    """A 3 x 3 stem, then 4 stages of 2 blocks of two 3 x 3, with a 1 x 1 where the width changes; norms have 2 a channel."""
    wanted, before = 9 * width + 2 * width, width
    for stage in range(4):
        w = width * 2**stage
        wanted += 9 * before * w + 3 * 9 * w * w + 4 * 2 * w + (before * w + 2 * w) * (before != w)
        before = w
    model = made(f"resnet_w{width}", (1, 32, 32), f"model.groups={groups}")
    assert count(model) == wanted
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules()) == (groups == "null")
    if width == 64:
        assert state(model).keys() == state(made("resnet18", (1, 32, 32))).keys()


def test_small_stem_of_a_network_that_has_none_is_refused(error) -> None:
    assert "model.image_size=224" in error(lambda: made("bit_50", (3, 32, 32), "model.small_stem=null"))
    assert "no multiple of 2 x model.groups=8" in error(lambda: made("resnet_w8", (3, 32, 32), "model.groups=8"))
    assert "give 4 numbers" in error(lambda: made("resnet_w8", (3, 32, 32), "model.blocks=[1,1]"))
