"""MAS against a slow obvious twin in plain tensors, one example at a time."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cl_bench.core.learner import Network
from cl_bench.core.seeds import generator
from cl_bench.core.types import Stream
from cl_bench.strategies.mas import MAS
from cl_bench.strategies.simple import Sequential
from cl_bench.strategies.squares import AbsoluteGradients

SEED, RATE, STRENGTH, SIZE = 5, 0.1, 0.3, 5  # SEED and RATE of make_learner
OWN = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 0, 1]], dtype=torch.bool)


def mas(**changes) -> MAS:
    settings = {"strength": STRENGTH, "estimator": "exact", "samples": None, "batch_size": SIZE, "mode": "average", "decay": 0.5}
    return MAS(**(settings | changes))


def twin(
    network: Network, stream: Stream, steps: int, estimator: str, mode: str, samples: int | None, masks: Tensor | None
) -> list[Tensor]:
    theta = [p.detach().double().clone().requires_grad_() for p in network.parameters()]
    tasks: list[tuple[list[Tensor], int]] = []  # each task's own importance and its examples
    anchor: list[Tensor] = []
    history = []

    def logits(raw: Tensor, out: float, t: int) -> Tensor:
        """Outputs that the task does not have are `out`."""
        hidden = (raw.double().flatten(1) / 255 @ theta[0].t() + theta[1]).clamp(min=0)
        scores = hidden @ theta[2].t() + theta[3]
        return scores if masks is None else scores.masked_fill(~masks[t], out)

    for t, e in enumerate(stream.experiences):
        for step in range(steps):
            index = torch.arange(4) + 4 * (step % 3)
            loss = F.cross_entropy(logits(e.train.raw[index], -torch.inf, t), e.train.y[index])
            for i, (p, a) in enumerate(zip(theta, anchor, strict=False)):
                if mode == "sum":
                    omega = sum(own[i] for own, _ in tasks)
                elif mode == "average":
                    omega = sum(own[i] * n for own, n in tasks) / sum(n for _, n in tasks)
                else:
                    omega = tasks[0][0][i]
                    for own, _ in tasks[1:]:
                        omega = 0.25 * omega + 0.75 * own[i]
                loss = loss + STRENGTH * (omega * (p - a) ** 2).sum()
            grads = torch.autograd.grad(loss, theta)
            with torch.no_grad():
                for p, g in zip(theta, grads, strict=True):
                    p -= RATE * g
            history.append(torch.cat([p.detach().flatten() for p in theta]))
        order = torch.randperm(len(e.train), generator=generator(SEED, "after task", e.index))[:samples]
        groups = order.split(1 if estimator == "exact" else SIZE)
        own = [torch.zeros_like(p) for p in theta]
        for group in groups:
            norm = (logits(e.train.raw[group], 0.0, t) ** 2).sum() / len(group)
            for o, g in zip(own, torch.autograd.grad(norm, theta), strict=True):
                o += g.abs() / len(groups)
        tasks.append((own, len(order)))
        anchor = [p.detach().clone() for p in theta]
    return history


@pytest.mark.parametrize("masks", [None, OWN], ids=["all", "own"])
@pytest.mark.parametrize("mode", ["average", "sum", "moving"])
@pytest.mark.parametrize(("estimator", "samples"), [("exact", None), ("exact", 7), ("batched", None), ("batched", 7)])
def test_mas_equals_its_twin(
    make_learner, make_network, make_stream, train, estimator: str, samples: int | None, mode: str, masks: Tensor | None
) -> None:
    stream = make_stream(3)
    strategy = mas(estimator=estimator, samples=samples, mode=mode, decay=0.25)
    ours = train(make_learner(make_network(), masks=masks, loss_over="all" if masks is None else "own"), strategy, stream, steps=9)
    theirs = twin(make_network(), stream, 9, estimator, mode, samples, masks)
    torch.testing.assert_close(torch.stack(ours), torch.stack(theirs), rtol=1e-6, atol=1e-9)


def test_average_weighs_examples_not_tasks(make_learner, make_network, make_stream) -> None:
    """Twice the examples, twice the say."""
    stream, strategy = make_stream(2), mas(mode="average")
    learner = make_learner(make_network())
    strategy.prepare(learner, stream)
    single = []
    for e, count in zip(stream.experiences, (None, 6), strict=True):
        strategy.samples = count
        alone = mas(samples=count)
        alone.prepare(learner, stream)
        for s in (strategy, alone):
            learner.reseed("after task", e.index)
            s.after_task(learner, e)
        single.append(alone.importance)
    torch.testing.assert_close(strategy.importance, (12 * single[0] + 6 * single[1]) / 18)


class Mixed(nn.Module):
    """Convolutions, norms, a layer called twice, a bare parameter: every path of the gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.grouped = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 2, groups=2)
        self.norm, self.tokens, self.layer, self.twice = nn.BatchNorm2d(4), nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 6)
        self.gain = nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(self.norm(self.conv(x)).relu()).flatten(2).transpose(1, 2)
        return self.twice(self.twice(self.layer(self.tokens(x)).tanh().mean(1)) * self.gain)


def test_absolute_gradients_of_every_kind_of_layer() -> None:
    torch.manual_seed(3)
    network = Network(Mixed(), nn.Linear(6, 3)).double().eval()
    parameters, images = list(network.parameters()), torch.randn(5, 1, 3, 3, dtype=torch.float64)

    def norm(logits: Tensor) -> Tensor:
        return logits.square().sum(-1, keepdim=True)

    ours = AbsoluteGradients(network, parameters)(images, norm, lambda n: [(torch.zeros(5, dtype=torch.int64), n.new_ones(5))])
    theirs = [torch.autograd.grad(norm(network(x[None])).sum(), parameters) for x in images]
    wanted = torch.stack([torch.cat([g.flatten() for g in grads]).abs() for grads in theirs]).sum(0)
    torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-12)


def test_mas_strength_zero_is_sequential(make_learner, make_network, make_stream, train) -> None:
    ends = [train(make_learner(make_network()), s, make_stream(2), steps=6)[-1] for s in (mas(strength=0.0), Sequential())]
    assert torch.equal(*ends)
