"""What each method adds to a bare step, as one writes it by hand: gradients of penalties past autograd, float memories."""

from __future__ import annotations

import bisect
import copy
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from bare import Plain
from torch import Tensor, nn

BATCH = 32  # remembered examples per step


class Penalty(Plain):
    """1/2 sum F (theta - theta*)^2 (EWC, MAS); its gradient goes straight into .grad."""

    def __init__(self, parameters: Sequence[Tensor], weight: Sequence[Tensor], centre: Sequence[Tensor]):
        self.rows = list(zip(parameters, weight, centre, strict=True))

    @torch.no_grad()
    def after_backward(self, network: nn.Module) -> Tensor | float:
        value = torch.zeros(())
        for p, weight, centre in self.rows:
            distance = p - centre
            pull = weight * distance
            value += torch.dot(pull.view(-1), distance.view(-1))
            assert p.grad is not None
            p.grad.add_(pull)
        return value / 2


class SI(Penalty):
    """And the path: - gradient of the task * what the step moved."""

    def __init__(self, parameters: Sequence[Tensor], weight: Sequence[Tensor], centre: Sequence[Tensor]):
        super().__init__(parameters, weight, centre)
        self.path, self.gradient, self.before = ([torch.zeros_like(p) for p in parameters] for _ in range(3))

    @torch.no_grad()
    def after_backward(self, network: nn.Module) -> Tensor | float:
        for (p, _, _), gradient, before in zip(self.rows, self.gradient, self.before, strict=True):
            assert p.grad is not None
            gradient.copy_(p.grad)
            before.copy_(p)
        return super().after_backward(network)

    @torch.no_grad()
    def after_step(self, x: Tensor, y: Tensor) -> None:
        for (p, _, _), path, gradient, before in zip(self.rows, self.path, self.gradient, self.before, strict=True):
            path.addcmul_(gradient, before.sub_(p))


class LwF(Plain):
    """KL to the old network's answer among the `old` first classes."""

    def __init__(self, network: nn.Module, old: int, temperature: float):
        self.teacher, self.old, self.temperature = copy.deepcopy(network).eval().requires_grad_(False), old, temperature

    def loss(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        logits = network(x)
        with torch.no_grad():
            target = (self.teacher(x)[:, : self.old] / self.temperature).softmax(1)
        found = (logits[:, : self.old] / self.temperature).log_softmax(1)
        return F.cross_entropy(logits, y) + F.kl_div(found, target, reduction="batchmean")


class Memory:
    """Reservoir of float images, written without a Python loop; full from the start."""

    def __init__(self, columns: Mapping[str, Tensor], seen: int):
        self.columns, self.seen, self.size = columns, seen, len(columns["y"])
        self.rng: torch.Generator | None = None

    def add(self, **new: Tensor) -> None:
        number = torch.arange(self.seen, self.seen + len(new["y"]))
        slot = (torch.rand(len(number)) * (number + 1)).long()
        self.seen += len(number)
        kept = slot < self.size
        for name, value in new.items():
            self.columns[name][slot[kept]] = value[kept]

    def draw(self) -> tuple[Tensor, ...]:
        index = torch.randint(0, self.size, (BATCH,), generator=self.rng)
        return tuple(column[index] for column in self.columns.values())


class Balanced(Memory):
    """Each class a sorted list of (key, slot); who is highest by rank + key leaves."""

    def __init__(self, columns: Mapping[str, Tensor], keys: Tensor):
        super().__init__(columns, 0)
        self.lists: dict[int, list[tuple[float, int]]] = {}
        for slot, (label, key) in enumerate(zip(columns["y"].tolist(), keys.tolist(), strict=True)):
            bisect.insort(self.lists.setdefault(label, []), (key, slot))

    def add(self, **new: Tensor) -> None:
        winners: dict[int, int] = {}  # slot -> which of the new ones
        for i, (label, key) in enumerate(zip(new["y"].tolist(), torch.rand(len(new["y"])).tolist(), strict=True)):
            mine = self.lists.setdefault(label, [])
            bisect.insort(mine, (key, -1))
            _, slot = max(self.lists.values(), key=lambda rows: len(rows) + rows[-1][0]).pop()
            if slot >= 0:
                mine[bisect.bisect_left(mine, (key, -1))] = (key, slot)
                winners[slot] = i
        to, source = torch.tensor(list(winners)), torch.tensor(list(winners.values()))
        for name, value in new.items() if winners else ():
            self.columns[name][to] = value[source]


class ER(Plain):
    def __init__(self, memory: Memory):
        self.memory = memory

    def loss(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        old, old_y = self.memory.draw()
        return F.cross_entropy(network(x), y) + F.cross_entropy(network(old), old_y)

    def after_step(self, x: Tensor, y: Tensor) -> None:
        self.memory.add(x=x, y=y)


class DER(Plain):
    """beta > 0: DER++."""

    def __init__(self, memory: Memory, alpha: float, beta: float):
        self.memory, self.alpha, self.beta = memory, alpha, beta

    def loss(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        logits = network(x)
        self.logits = logits.detach()
        old, _, outputs = self.memory.draw()
        loss = F.cross_entropy(logits, y) + self.alpha * F.mse_loss(network(old), outputs)
        if self.beta:
            old, old_y, _ = self.memory.draw()
            loss = loss + self.beta * F.cross_entropy(network(old), old_y)
        return loss

    def after_step(self, x: Tensor, y: Tensor) -> None:
        self.memory.add(x=x, y=y, outputs=self.logits)


class ERACE(ER):
    def __init__(self, memory: Memory, seen: Tensor):
        super().__init__(memory)
        self.seen = seen

    def loss(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        present = torch.zeros_like(self.seen)
        present[y] = True
        new = F.cross_entropy(network(x).masked_fill(self.seen & ~present, -torch.inf), y)
        self.seen |= present
        old, old_y = self.memory.draw()
        return new + F.cross_entropy(network(old).masked_fill(~self.seen, -torch.inf), old_y)


class AGEM(Plain):
    def __init__(self, memory: Memory, parameters: Sequence[Tensor]):
        self.memory, self.parameters = memory, parameters

    def after_backward(self, network: nn.Module) -> float:
        old, old_y = self.memory.draw()
        reference = torch.autograd.grad(F.cross_entropy(network(old), old_y), self.parameters)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        product = sum(float(torch.dot(g.view(-1), r.view(-1))) for g, r in zip(gradients, reference, strict=True))
        if product < 0:
            share = product / sum(float(torch.dot(r.view(-1), r.view(-1))) for r in reference)
            for g, r in zip(gradients, reference, strict=True):
                g.sub_(r, alpha=share)
        return 0.0


class ICaRL(Plain):
    """Of the classes, the `old` first are taught by the teacher's sigmoid."""

    def __init__(self, network: nn.Module, memory: Memory, classes: int, old: int):
        self.teacher = copy.deepcopy(network).eval().requires_grad_(False)
        self.memory, self.classes, self.old = memory, classes, old

    def loss(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        old, old_y = self.memory.draw()
        x, y = torch.cat([x, old]), torch.cat([y, old_y])
        target = F.one_hot(y, self.classes).to(x.dtype)
        with torch.no_grad():
            target[:, : self.old] = self.teacher(x)[:, : self.old].sigmoid()
        return F.binary_cross_entropy_with_logits(network(x), target, reduction="sum") / len(y)


class Own(Plain):
    """The loss over the task's own classes, bool [C] (PNN)."""

    def __init__(self, own: Tensor):
        self.others = ~own

    def loss(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(network(x).masked_fill(self.others, -torch.inf), y)


class PackNet(Own):
    """Closed weights get no gradient, and stay whatever the optimizer does."""

    def __init__(self, own: Tensor, parameters: Sequence[Tensor], mine: Sequence[Tensor], kept: Sequence[Tensor]):
        super().__init__(own)
        self.rows = list(zip(parameters, mine, kept, strict=True))

    @torch.no_grad()
    def after_backward(self, network: nn.Module) -> float:
        for p, mine, _ in self.rows:
            if p.grad is not None:
                p.grad.mul_(mine)
        return 0.0

    @torch.no_grad()
    def after_step(self, x: Tensor, y: Tensor) -> None:
        for p, mine, kept in self.rows:
            torch.addcmul(kept, p, mine, out=p)


class Column(nn.Module):
    """PNN's second column: layers `taps` of `body` add what `adapters` read of the old body's inputs there."""

    def __init__(self, old: nn.Module, body: nn.Module, head: nn.Module, taps: Mapping[str, nn.Module], last: nn.Module):
        super().__init__()
        self.old, self.body, self.head, self.last = old, body, head, last
        self.adapters = nn.ModuleList(taps.values())
        self.inputs: dict[str, Tensor] = {}
        for name, adapter in taps.items():
            self.old.get_submodule(name).register_forward_pre_hook(self._note(name))
            self.body.get_submodule(name).register_forward_hook(self._lateral(name, adapter))

    def _note(self, name: str):
        def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            self.inputs[name] = given[0]

        return note

    def _lateral(self, name: str, adapter: nn.Module):
        return lambda module, given, output: output + _read(adapter, self.inputs[name])

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.old(x)
        return self.head(self.body(x)) + _read(self.last, features)


def _read(adapter: nn.Module, h: Tensor) -> Tensor:
    """U relu(V alpha h)."""
    return adapter.lift(F.relu(adapter.reduce(adapter.alpha * h)))
