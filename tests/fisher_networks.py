"""Small networks of every kind of layer, and of layers that are called in unusual ways."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cl_bench.core.learner import Network
from cl_bench.models.mlp import mlp
from cl_bench.models.timm_models import vit

CLASSES = 5


class Twice(nn.Module):
    """One layer called twice, and its neighbours called once."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.norm = nn.Linear(64, 6), nn.Linear(6, 6), nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.again(self.first(x.flatten(1))).tanh()
        return self.norm(self.again(x))


class Tied(nn.Module):
    """Two layers with one weight: its gradient is a sum, which is to be squared once."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.a, self.b = nn.Linear(64, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(self.first(x.flatten(1))).tanh())


class Attends(nn.Module):
    """nn.MultiheadAttention reads the weights of its Linear without calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1, 2)
        return self.attention(x, x, x, need_weights=False)[0].mean(1)


class NormAct(nn.BatchNorm2d):
    """A subclass of a known layer that does more than the layer, as timm's BatchNormAct2d."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.leaky_relu(super().forward(x), 0.1)


def conv(norm: type[nn.BatchNorm2d] = nn.BatchNorm2d) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2, padding=1, bias=False),
        norm(3),
        nn.ReLU(inplace=True),
        nn.Conv2d(3, 6, 3, padding=2, dilation=2),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 6, 3, groups=3),  # groups take the slow path
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
    )


BACKBONES = {
    "mlp": lambda: mlp(input_shape=(1, 8, 8), hidden=[7, 6], batch_norm=False, pretrained=False),
    "mlp_bn": lambda: mlp(input_shape=(1, 8, 8), hidden=[7, 6], batch_norm=True, pretrained=False),
    "conv": lambda: (conv(), 24),
    "norm_act": lambda: (conv(NormAct), 24),
    "vit": lambda: vit(input_shape=(1, 8, 8), name="vit_tiny_patch16_224", patch_size=4, width=8, depth=2, heads=2, pretrained=False),
    "twice": lambda: (Twice(), 6),
    "tied": lambda: (Tied(), 6),
    "attends": lambda: (Attends(), 8),
}


def network(name: str) -> Network:
    """Weights and running statistics away from their defaults."""
    torch.manual_seed(0)
    backbone, dim = BACKBONES[name]()
    net = Network(backbone, nn.Linear(dim, CLASSES)).double()
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor in (module.running_mean, module.running_var, module.weight.data, module.bias.data):
                tensor.copy_(torch.rand(tensor.shape) + 0.5)
    for key, parameter in net.named_parameters():
        if key.endswith(("cls_token", "pos_embed")):
            nn.init.normal_(parameter)
    return net
