"""What we are measured against: the loops one writes by hand, on float images that are already loaded.

Each does the arithmetic of ours: as many passes forward, the same loss, penalty, memory and optimizer.
Case and measure() time two such loops in turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Memory:
    """Reservoir of float images, written without a Python loop."""

    def __init__(self, size: int, x: Tensor, y: Tensor, task: int):
        self.size, self.seen = size, 0
        self.x, self.y, self.task = x.new_zeros(size, *x.shape[1:]), y.new_zeros(size), y.new_zeros(size)
        for begin in range(0, len(x), size):
            self.add(x[begin : begin + size], y[begin : begin + size], task)

    def add(self, x: Tensor, y: Tensor, task: int) -> None:
        number = torch.arange(self.seen, self.seen + len(y))
        slot = torch.where(number < self.size, number, (torch.rand(len(y)) * (number + 1)).long())
        kept = slot < self.size
        self.seen += len(y)
        self.x[slot[kept]], self.y[slot[kept]], self.task[slot[kept]] = x[kept], y[kept], task

    def draw(self, count: int, rng: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        index = torch.randint(0, self.size, (count,), generator=rng)
        return self.x[index], self.y[index], self.task[index]


class Penalty:
    """strength/2 * sum F (theta - theta*)^2; its gradient goes straight into .grad, past autograd."""

    def __init__(self, strength: float, weight: list[Tensor], centre: list[Tensor]):
        self.strength, self.weight, self.centre = strength, weight, centre

    @torch.no_grad()
    def add_gradient(self, parameters: list[nn.Parameter]) -> Tensor:
        """Returns the penalty, which a loop wants to report."""
        value = torch.zeros(())
        for p, weight, centre in zip(parameters, self.weight, self.centre, strict=True):
            distance = p - centre
            pull = weight * distance
            value += torch.dot(pull.view(-1), distance.view(-1))
            assert p.grad is not None
            p.grad.add_(pull, alpha=self.strength)
        return value * (self.strength / 2)


def train(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    steps: int,
    batch_size: int,
    order: torch.Generator,
    *,
    memory: Memory | None = None,
    penalty: Penalty | None = None,
    rng: torch.Generator | None = None,
) -> list[float]:
    """steps batches in the order of one permutation; returns the losses."""
    parameters, losses = list(network.parameters()), []
    network.train()
    for index in torch.randperm(len(x), generator=order).split(batch_size)[:steps]:
        images, labels = x[index], y[index]
        loss = F.cross_entropy(network(images), labels)
        if memory is not None:
            old, old_labels, _ = memory.draw(batch_size, rng)
            loss = loss + F.cross_entropy(network(old), old_labels)
        optimizer.zero_grad()
        loss.backward()
        reported = loss.detach()
        if penalty is not None:
            reported = reported + penalty.add_gradient(parameters)
        optimizer.step()
        if memory is not None:
            memory.add(images, labels, 1)
        losses.append(reported)
    return torch.stack(losses).tolist()


def fisher_one_class(network: nn.Module, x: Tensor, label: int) -> list[Tensor]:
    """The squared gradients of ONE class's log-probability, a pass per example."""
    network.eval()
    parameters = list(network.parameters())
    total = [torch.zeros_like(p) for p in parameters]
    for image in x.split(1):
        gradient = torch.autograd.grad(network(image).log_softmax(1)[0, label], parameters)
        for square, g in zip(total, gradient, strict=True):
            square.addcmul_(g, g)
    return total


@torch.inference_mode()
def evaluate(backbone: nn.Module, head: nn.Module, x: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
    features = [backbone(images) for images in x.split(batch_size)]
    logits = [head(f) for f in features]
    return torch.cat(features), torch.cat(logits)


Run = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """ours and bare do `steps` of the same work; target bounds ours / bare."""

    name: str
    steps: int
    pairs: int
    target: float
    ours: Run
    bare: Run


def measure(case: Case) -> dict[str, object]:
    def milliseconds(run: Run) -> float:
        start = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - start) / case.steps

    case.ours(), case.bare()  # warm caches
    seconds = [(milliseconds(case.ours), milliseconds(case.bare)) for _ in range(case.pairs)]
    ratios = [ours / bare for ours, bare in seconds]
    return {
        "name": case.name,
        "bare_ms": median(b for _, b in seconds),
        "ours_ms": median(a for a, _ in seconds),
        "ratio": median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "target": case.target,
        "pass": median(ratios) <= case.target,
        "steps": case.steps,
        "ratios": ratios,
        "torch": torch.__version__,
    }
