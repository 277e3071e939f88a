"""PackNet: tasks share out the weights of one network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cl_bench.core.errors import ConfigError
from cl_bench.core.kinds import Fraction
from cl_bench.core.learner import Learner
from cl_bench.core.types import Batch, Experience, Output, Stream
from cl_bench.strategies.answers import answer, own_classes, owners
from cl_bench.strategies.base import Strategy
from cl_bench.strategies.weights import flatten, split


class PackNet(Strategy):
    """PackNet (1711.05769): train the free weights, give the smallest of each layer back, train on with those kept.

    A task's weights never move again; biases and norm layers learn on the first task only. No task is told at test:
    the logit of a class comes from the weights of the latest task that has it, a pass per task.
    """

    needs_boundaries: ClassVar[bool] = True
    needs_logits: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = True
    remembers = ("current", "pruned")

    def __init__(self, *, prune: Fraction, train_share: Fraction):
        self.prune, self.train_share = prune, train_share

    def prepare(self, learner: Learner, stream: Stream) -> None:
        network = learner.network
        self.parameters: list[Tensor] = list(learner.parameters)
        self.position = {e.index: n for n, e in enumerate(stream.experiences)}
        self.own = own_classes(stream).to(learner.device)
        if any(len(p) != stream.num_classes for p in network.head.parameters()):
            raise ConfigError("strategy=packnet needs a head with a row of weights per class; use objective=supervised")
        names = prunable(network.backbone)
        smallest = min((network.backbone.get_parameter(name).numel(), name) for name in names)
        self.refuse_crowds(*smallest, len(self.own))
        network.backbone = self.packed = Packed(network.backbone, names, len(self.own))
        network.head = self.head = PackedHead(network.head, owners(self.own))
        learner.batch_norm = "frozen"
        self.current, self.pruned = -1, False
        self.kept = flatten(self.parameters)  # zero where open
        self.open = torch.zeros_like(self.kept)  # 1 or 0: products are far faster than choices
        self.opens, self.kepts = split(self.open, self.parameters), split(self.kept, self.parameters)

    def refuse_crowds(self, size: int, name: str, tasks: int) -> None:
        if tasks > 1 and round(self.prune * size) == size:
            raise ConfigError(f"strategy.prune={self.prune} gives back all {size} weights of {name}, so that no task keeps any; give less")
        free = size
        for n in range(tasks):
            if not free:
                raise ConfigError(
                    f"strategy.prune={self.prune} leaves task {n} of {tasks} none of the {size} weights of {name}; "
                    "raise strategy.prune, or use fewer tasks or a wider model"
                )
            free = round(self.prune * free)

    def share_out(self) -> None:
        """What may move now, and where everything else stays."""
        self.packed.current = self.head.current = self.current
        mine = self.current if self.pruned else len(self.own)
        weights = {id(w): owner == mine for w, owner in zip(self.packed.weights(), self.packed.owners, strict=True)}
        heads = {id(p) for p in self.head.parameters()}
        for p, is_open in zip(self.parameters, self.opens, strict=True):
            if id(p) in heads:
                is_open.copy_(self.own[self.current].view(-1, *[1] * (p.dim() - 1)).expand_as(p))
            else:
                is_open.copy_(weights.get(id(p), torch.tensor(self.current == 0)))
        self.kept.copy_(flatten(self.parameters) * (1 - self.open))

    def before_task(self, learner: Learner, task: Experience) -> None:
        self.current, self.pruned = self.position[task.index], False
        self.share_out()

    def loss(self, learner: Learner, batch: Batch) -> Output:
        return learner.teach(replace(batch, allowed=self.own[self.current]))

    def after_backward(self, learner: Learner) -> None:
        pairs = [(p.grad, is_open) for p, is_open in zip(self.parameters, self.opens, strict=True) if p.grad is not None]
        torch._foreach_mul_(*map(list, zip(*pairs, strict=True)))  # clipping counts what moves

    @torch.no_grad()
    def after_step(self, learner: Learner, batch: Batch, output: Output) -> None:
        for p, is_open, kept in zip(self.parameters, self.opens, self.kepts, strict=True):
            torch.addcmul(kept, p, is_open, out=p)  # to the bit, whatever weight decay and momentum did
        if learner.step + 1 == max(1, round(self.train_share * learner.steps)):
            self.give_back()

    def after_task(self, learner: Learner, task: Experience) -> None:
        if not self.pruned:
            self.give_back()  # a task that ended early (match.py): else nothing would be its own

    def give_back(self) -> None:
        """Prune, and go on with what is left."""
        self.packed.prune(self.prune, self.current)
        self.pruned = True
        self.share_out()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if self.current >= 0:
            self.share_out()  # the learner's weights are back already


def prunable(backbone: nn.Module) -> list[str]:
    """The weights of linear and convolution layers."""
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    return [f"{name}.weight" for name, module in backbone.named_modules() if isinstance(module, kinds)]


class Packed(nn.Module):
    """Backbone of shared-out weights. Training, [B, D] by all of them; evaluating, [B, T * D]: a pass with the weights of each task so far.

    owner: int16 [all prunable weights], the task that took it, T where free. Free weights are zero but while they train.
    """

    owner: Tensor

    def __init__(self, backbone: nn.Module, names: Sequence[str], tasks: int):
        super().__init__()
        self.backbone, self.names, self.tasks, self.current = backbone, list(names), tasks, -1
        self.register_buffer("owner", torch.full_like(flatten(self.weights()), tasks, dtype=torch.int16))
        self.owners = split(self.owner, self.weights())

    def weights(self) -> list[nn.Parameter]:
        return [self.backbone.get_parameter(name) for name in self.names]

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return self.backbone(x)
        found = []
        for n in range(max(self.current, 0) + 1):
            own = {name: w * (owner <= n) for name, w, owner in zip(self.names, self.weights(), self.owners, strict=True)}
            found.append(torch.func.functional_call(self.backbone, own, (x,)))
        return F.pad(torch.cat(found, 1), (0, (self.tasks - len(found)) * found[0].shape[1]))

    @torch.no_grad()
    def prune(self, share: float, task: int) -> None:
        """The smallest of each layer's free weights are zero and free; the others are the task's."""
        for weight, owner in zip(self.weights(), self.owners, strict=True):
            free = (owner.flatten() == self.tasks).nonzero()[:, 0]
            order = free[weight.flatten()[free].abs().argsort(stable=True)]
            cut = round(share * len(free))
            weight.view(-1)[order[:cut]] = 0
            owner.view(-1)[order[cut:]] = task


class PackedHead(nn.Module):
    """Training, the head itself; evaluating, each class from the features of the task that owns it."""

    owner: Tensor

    def __init__(self, head: nn.Module, owner: Tensor):
        super().__init__()
        self.head, self.current = head, -1
        self.register_buffer("owner", owner, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        if self.training:
            return self.head(features)
        parts = features.chunk(len(self.owner) - 1, 1)
        return answer([self.head(part) for part in parts[: max(self.current, 0) + 1]], self.owner[self.current + 1])
