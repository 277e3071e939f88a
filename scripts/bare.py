"""What we are measured against: the loops one writes by hand, on float images that are already loaded.

Each does the arithmetic of ours: as many passes forward, the same loss, penalty, memory and optimizer; what a
method adds to a step is in bare_methods.py. Case and measure() time two such loops in turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Plain:
    """Fine-tuning; a method overrides what it adds to a step."""

    def loss(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(network(x), y)

    def after_backward(self, network: nn.Module) -> Tensor | float:
        """Changes gradients; returns what a loop wants to report beside the loss."""
        return 0.0

    def after_step(self, x: Tensor, y: Tensor) -> None:
        """Fills a memory."""


class Clipped(Plain):
    """The gradient's norm clipped; the rate by torch's own scheduler, unless it is constant."""

    def __init__(self, optimizer: torch.optim.Optimizer, clip: float, factor: Callable[[int], float] | None):
        self.clip, self.rate = clip, factor and torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    def after_backward(self, network: nn.Module) -> float:
        nn.utils.clip_grad_norm_(network.parameters(), self.clip)
        return 0.0

    def after_step(self, x: Tensor, y: Tensor) -> None:
        if self.rate:
            self.rate.step()


class FineTuning(Clipped):
    """And the loss over the task's own logits, begin to end; images enlarged to size pixels in the step."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, clip: float, factor: Callable[[int], float] | None, begin: int, end: int, size: int | None
    ):
        super().__init__(optimizer, clip, factor)
        self.begin, self.end, self.size = begin, end, size

    def loss(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        if self.size is not None:
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)
        return F.cross_entropy(network(x)[:, self.begin : self.end], y - self.begin)


def train(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    steps: int,
    batch_size: int,
    order: torch.Generator,
    method: Plain,
) -> list[float]:
    """steps batches in the order of one permutation; returns the losses."""
    losses = []
    for index in torch.randperm(len(x), generator=order).split(batch_size)[:steps]:
        images, labels = x[index], y[index]
        loss = method.loss(network, images, labels)
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.detach() + method.after_backward(network))
        optimizer.step()
        method.after_step(images, labels)
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
        start = time.process_time()  # what other programs take of a shared machine does not count
        run()
        return 1e3 * (time.process_time() - start) / case.steps

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
