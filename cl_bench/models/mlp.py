"""Multi-layer perceptrons over flattened images."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import nn

from cl_bench.core.errors import ConfigError
from cl_bench.core.kinds import Count


def mlp(*, input_shape: tuple[int, int, int], hidden: list[Count], batch_norm: bool, pretrained: bool) -> tuple[nn.Module, int]:
    """(backbone, dim): Linear, ReLU and, where asked, batch norm after the ReLU as the EWC article has it."""
    if pretrained:
        raise ConfigError("model.init=pretrained: nobody publishes weights of an MLP; use scratch or a file of your own")
    sizes = [math.prod(input_shape), *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
        if batch_norm:
            layers.append(nn.BatchNorm1d(after))
    return nn.Sequential(*layers), sizes[-1]
