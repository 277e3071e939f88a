"""Progressive networks: a column per task, reading the columns before it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cl_bench.core.errors import ConfigError
from cl_bench.core.kinds import Positive
from cl_bench.core.learner import Learner
from cl_bench.core.types import Batch, Experience, Output, Stream
from cl_bench.strategies.answers import answer, own_classes, owners
from cl_bench.strategies.base import Strategy


class PNN(Strategy):
    """Progressive neural networks (1606.04671): h_i = f(W_i h_{i-1} + U_i relu(V_i [alpha_j h_{i-1}^(j)]_{j<k})) in column k.

    Every column starts from the model's own first weights. Only the column of the current task learns, from its own classes.
    No task is told at test: the logit of a class comes from the latest column whose task has it, so what returns
    (permuted, rotated) is asked of the latest only. Without labels a column has a projector of its own, without adapters:
    features are what remains.
    """

    needs_boundaries: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = True
    remembers = ("current",)

    def __init__(self, *, scale: Positive):
        self.scale = scale

    def prepare(self, learner: Learner, stream: Stream) -> None:
        network, count = learner.network, len(stream.experiences)
        names, head = tapped(network.backbone), network.head
        if learner.objective.needs_labels and not isinstance(head, nn.Linear):
            raise ConfigError(f"strategy=pnn needs a linear head, and this objective has a {type(head).__name__}; use objective=supervised")
        learner.reseed("columns")
        self.position = {e.index: n for n, e in enumerate(stream.experiences)}
        self.own = own_classes(stream).to(learner.device)
        bodies = [copy.deepcopy(network.backbone) for _ in range(count)]
        taps: dict[str, list[Tap]] = {name: [] for name in names}
        for body in bodies:
            for name, before in taps.items():
                before.append(Tap(body.get_submodule(name), before[:], self.scale))
                body.set_submodule(name, before[-1])
        adapters = [Adapter(head, n, self.scale) for n in range(1, count)] if isinstance(head, nn.Linear) else []
        network.backbone = self.columns = Columns(bodies)
        network.head = self.heads = Heads([copy.deepcopy(head) for _ in range(count)], adapters, owners(self.own))
        network.columns = self.position
        learner.batch_norm = "train"  # a column's statistics are its own and stand still with it
        learner.parameters = list(network.parameters())
        learner.new_optimizer()
        self.current = -1

    @property
    def current(self) -> int:
        return self.columns.current

    @current.setter
    def current(self, number: int) -> None:
        self.columns.current = self.heads.current = number
        self.columns.train(self.columns.training)

    def before_task(self, learner: Learner, task: Experience) -> None:
        self.current = self.position[task.index]

    def loss(self, learner: Learner, batch: Batch) -> Output:
        return learner.teach(replace(batch, allowed=self.own[self.current]))


def tapped(backbone: nn.Module) -> list[str]:
    """Layers that read earlier columns: an MLP's linear ones, the first convolution of a ResNet's blocks; but for the first of all."""
    stages = ("layer1", "layer2", "layer3", "layer4")
    children = dict(backbone.named_children())
    if isinstance(backbone, nn.Sequential):
        return [name for name, layer in children.items() if isinstance(layer, nn.Linear)][1:]
    if children.keys() >= set(stages):
        return [f"{stage}.{name}.conv1" for stage in stages for name, _ in children[stage].named_children()][1:]
    raise ConfigError(f"strategy=pnn has columns for MLPs and ResNets, not for a {type(backbone).__name__}; use model=mlp or resnet18")


class Adapter(nn.Module):
    """U relu(V [alpha_j h_j]): what `layer` would be given, from earlier columns j, brought back to the width of one."""

    def __init__(self, layer: nn.Module, count: int, scale: float):
        super().__init__()
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        lift = copy.deepcopy(layer)
        lift.register_parameter("bias", None)  # the layer has its own
        lift.reset_parameters()
        if isinstance(layer, nn.Conv2d):
            reduce: nn.Module = nn.Conv2d(count * layer.in_channels, layer.in_channels, 1, bias=False)
        else:
            reduce = nn.Linear(count * layer.in_features, layer.in_features, bias=False)
        self.alpha, self.reduce, self.lift = nn.Parameter(scale * torch.randn(count)), reduce, lift
        self.to(layer.weight)

    def forward(self, sources: Sequence[Tensor]) -> Tensor:
        scaled = [alpha * h for alpha, h in zip(self.alpha, sources, strict=True)]
        return self.lift(F.relu(self.reduce(torch.cat(scaled, 1) if len(scaled) > 1 else scaled[0])))


class Tap(nn.Module):
    """A layer that adds what its adapter reads of earlier columns, and keeps its own input for later ones."""

    source: Tensor

    def __init__(self, layer: nn.Module, earlier: list[Tap], scale: float):
        super().__init__()
        self.layer, self.earlier = layer, earlier  # a list: they are modules of other columns
        self.adapter = Adapter(layer, len(earlier), scale) if earlier else None

    def forward(self, h: Tensor) -> Tensor:
        self.source = h.detach()
        if self.adapter is None:
            return self.layer(h)
        return self.layer(h) + self.adapter([tap.source for tap in self.earlier])


class Columns(nn.Module):
    """images -> features of the columns up to the current one [B, k * D]; in evaluation zeros for those to come, [B, T * D]."""

    def __init__(self, bodies: Sequence[nn.Module]):
        super().__init__()
        self.bodies, self.current = nn.ModuleList(bodies), -1

    def train(self, mode: bool = True) -> Columns:
        super().train(mode)
        for n, body in enumerate(self.bodies):
            body.train(mode and n == self.current)  # earlier batch norms stand still
        return self

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for n in range(max(self.current, 0) + 1):
            with torch.set_grad_enabled(torch.is_grad_enabled() and n == self.current):
                found.append(self.bodies[n](x))
        features = torch.cat(found, 1)
        return features if self.training else F.pad(features, (0, (len(self.bodies) - len(found)) * found[0].shape[1]))


class Heads(nn.Module):
    """Features [B, k * D] -> logits [B, C]: of the current column in training, of every class's own column otherwise."""

    owner: Tensor

    def __init__(self, heads: Sequence[nn.Module], adapters: Sequence[nn.Module], owner: Tensor):
        super().__init__()
        self.heads, self.adapters, self.current = nn.ModuleList(heads), nn.ModuleList(adapters), -1
        self.register_buffer("owner", owner, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        parts = features.chunk(self.current + 1 if self.training else len(self.heads), 1)

        def column(n: int) -> Tensor:
            own = self.heads[n](parts[n])
            return own + self.adapters[n - 1]([part.detach() for part in parts[:n]]) if n and self.adapters else own

        if self.training:
            return column(self.current)
        return answer([column(n) for n in range(max(self.current, 0) + 1)], self.owner[self.current + 1])
