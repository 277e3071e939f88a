"""ResNets and vision transformers from timm, shaped to the data's own size."""

from __future__ import annotations

import functools
from typing import Any

from torch import nn

from cl_bench.core.errors import ConfigError
from cl_bench.core.hub import reach
from cl_bench.core.kinds import Count
from cl_bench.mistakes import said


def resnet(*, input_shape: tuple[int, int, int], name: str, small_stem: bool | None, pretrained: bool) -> tuple[nn.Module, int]:
    """(backbone, dim). The small stem is CIFAR's: 3 x 3, stride 1, no pooling; null takes it below 64 pixels."""
    model = _create(name, pretrained, in_chans=input_shape[0])
    if min(input_shape[1:]) < 64 if small_stem is None else small_stem:
        if not hasattr(model, "conv1"):
            raise ConfigError(
                f"model.name={name} has no small stem, and {input_shape[1]} x {input_shape[2]} pixels are few; "
                "set model.image_size=224, or model.small_stem=false"
            )
        _small_stem(model, input_shape[0], model.conv1.out_channels)
    return model, model.num_features


def resnet_cifar(
    *, input_shape: tuple[int, int, int], width: Count, blocks: list[Count], groups: Count | None, pretrained: bool
) -> tuple[nn.Module, int]:
    """(backbone, dim). ResNet-18's blocks at any width behind CIFAR's stem; group norm where groups are given, else batch norm."""
    from timm.layers.norm import GroupNorm
    from timm.models.resnet import BasicBlock, ResNet

    if pretrained:
        raise ConfigError(
            "model.init=pretrained: nobody publishes weights of this size; use scratch, a file of your own, or model=resnet18"
        )
    if width % (2 * (groups or 1)):  # timm's deep stem is half as wide inside
        raise ConfigError(f"model.width={width} is no multiple of 2 x model.groups={said(groups)}; choose others (null: batch norm)")
    if len(blocks) != 4:
        raise ConfigError(f"model.blocks={blocks} has {len(blocks)} stages; give 4 numbers")
    norm = nn.BatchNorm2d if groups is None else functools.partial(GroupNorm, num_groups=groups)
    stages = tuple(width << k for k in range(4))
    model = ResNet(
        BasicBlock,  # type: ignore[arg-type]
        tuple(blocks),
        num_classes=0,
        in_chans=input_shape[0],
        stem_type="deep",
        stem_width=width // 2,
        channels=stages,
        norm_layer=norm,
    )  # timm's plain stem is 64 wide, its deep one twice stem_width: here it only says the width
    _small_stem(model, input_shape[0], width)
    return model, model.num_features


def vit(
    *,
    input_shape: tuple[int, int, int],
    name: str,
    patch_size: Count | None,
    pretrained: bool,
    width: Count | None,
    depth: Count | None,
    heads: Count | None,
) -> tuple[nn.Module, int]:
    """(backbone, dim). patch_size null gives at least 4 x 4 patches; width, depth, heads null keep the named model's."""
    size = input_shape[1:]
    patch = patch_size or next(p for bound, p in ((16, 2), (48, 4), (112, 8), (1 << 30, 16)) if min(size) < bound)
    if size[0] % patch or size[1] % patch:
        raise ConfigError(
            f"model.patch_size={patch} does not divide the image size {size[0]} x {size[1]}; set model.patch_size to a divisor"
        )
    shape = {"embed_dim": width, "depth": depth, "num_heads": heads}
    settings = {key: value for key, value in shape.items() if value is not None}
    try:
        model = _create(name, pretrained, in_chans=input_shape[0], img_size=size, patch_size=patch, **settings)
    except AssertionError as error:
        raise ConfigError(
            f"model.width={said(width)}, model.heads={said(heads)}: {name} cannot be made so ({error}); give heads that divide the width"
        ) from error
    return model, model.num_features


def _small_stem(model: nn.Module, channels: int, width: int) -> None:
    """CIFAR's."""
    conv = nn.Conv2d(channels, width, 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    model.conv1, model.maxpool = conv, nn.Identity()


def _create(name: str, pretrained: bool, **settings: Any) -> Any:
    import timm

    if pretrained:
        reach()
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, **settings)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        reason = str(error).split("\n")[0][:120]
        raise ConfigError(
            f"model.init=pretrained: timm's weights of {name} cannot be had ({type(error).__name__}: {reason}); "
            f"connect to the hub once, or use model.init=scratch or model.init=<file>"
        ) from error
