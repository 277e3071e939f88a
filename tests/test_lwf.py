"""LwF against a slow obvious twin in plain tensors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cl_bench.core.learner import Network
from cl_bench.core.types import Stream
from cl_bench.strategies.lwf import LwF, distil
from cl_bench.strategies.simple import Sequential

OLD = {  # experience -> the old heads, by hand: the stream's classes are (0, 1), (2, 3), (0, 3)
    "all": [[], [(0, 1)], [(0, 1, 2, 3)]],
    "seen": [[], [(0, 1)], [(0, 1, 2, 3)]],
    "own": [[], [(0, 1)], [(0, 1), (2, 3)]],
}
OPEN = {"all": [(0, 1, 2, 3)] * 3, "seen": [(0, 1), (0, 1, 2, 3), (0, 1, 2, 3)], "own": [(0, 1), (2, 3), (0, 3)]}


def twin(network: Network, stream: Stream, steps: int, strength: float, temperature: float, loss_over: str) -> list[Tensor]:
    """One example at a time: log-loss of the label, and for each old head sum q (log q - log p) with q, p of logits / T."""
    theta = [p.detach().double().clone().requires_grad_() for p in network.parameters()]

    def logits(raw: Tensor, weights: list[Tensor]) -> Tensor:
        hidden = (raw.double().flatten() / 255 @ weights[0].t() + weights[1]).clamp(min=0)
        return hidden @ weights[2].t() + weights[3]

    history = []
    for e in stream.experiences:
        old = [p.detach().clone() for p in theta]
        for step in range(steps):
            loss = torch.zeros((), dtype=torch.float64)
            for n in range(4 * (step % 3), 4 * (step % 3) + 4):
                now, then = logits(e.train.raw[n], theta), logits(e.train.raw[n], old)
                loss = loss + torch.logsumexp(now[list(OPEN[loss_over][e.index])], 0) - now[e.train.y[n]]
                for head in OLD[loss_over][e.index]:
                    p, q = ((z[list(head)] / temperature).exp() for z in (now, then))
                    p, q = p / p.sum(), q / q.sum()
                    loss = loss + strength * (q * (q.log() - p.log())).sum()
            grads = torch.autograd.grad(loss / 4, theta)
            theta = [(p - 0.1 * g).detach().requires_grad_() for p, g in zip(theta, grads, strict=True)]
            history.append(torch.cat([p.detach().flatten() for p in theta]))
    return history


@pytest.mark.parametrize("loss_over", ["all", "seen", "own"])
@pytest.mark.parametrize("tasks", [2, 3])
def test_lwf_equals_its_twin(make_learner, make_network, make_stream, train, tasks: int, loss_over: str) -> None:
    stream = make_stream(tasks)

    def ours(strategy) -> list[Tensor]:
        learner = make_learner(make_network(), loss_over=loss_over)
        learner.masks = learner.objective.masks(stream)
        return train(learner, strategy, stream, steps=9)

    lwf = ours(LwF(strength=3.0, temperature=2.0))
    for a, b in zip(lwf, twin(make_network(), stream, 9, 3.0, 2.0, loss_over), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    plain, zero = ours(Sequential()), ours(LwF(strength=0.0, temperature=2.0))
    assert torch.equal(plain[8], lwf[8]) and float((plain[-1] - lwf[-1]).norm()) > 1e-3  # distilling does something
    assert all(torch.equal(a, b) for a, b in zip(plain, zero, strict=True))


def test_the_teacher_sees_the_students_view_and_stands_still(make_learner, make_stream) -> None:
    """An unchanged student loses nothing, even under random views and batch norm; the teacher's statistics do not move."""
    from cl_bench.models.mlp import mlp

    stream = make_stream(2)
    backbone, dim = mlp(input_shape=(1, 3, 3), hidden=[5], batch_norm=True, pretrained=False)
    learner = make_learner(Network(backbone, torch.nn.Linear(dim, 4)))
    learner.view = lambda raw, rng: raw.double() / 255 + torch.rand(raw.shape, generator=rng)
    lwf = LwF(strength=1.0, temperature=2.0)
    lwf.prepare(learner, stream)
    e = stream.experiences[1]
    batch = learner.batch(e.train.raw, e.train.y, 1)
    learner.teach(batch)  # moves the running statistics
    lwf.before_task(learner, e)
    kept = {name: t.clone() for name, t in lwf.state_dict()["teacher"].items()}
    learner.network.eval()
    assert abs(float(lwf.loss(learner, batch).parts["lwf"].detach())) < 1e-12
    learner.network.train()
    assert float(lwf.loss(learner, batch).parts["lwf"].detach()) > 1e-6
    assert all(torch.equal(kept[name], t) for name, t in lwf.state_dict()["teacher"].items())
    assert not torch.equal(learner.network.state_dict()["backbone.3.running_mean"], kept["backbone.3.running_mean"])


def test_heads_of_several_sizes_each_count() -> None:
    """By hand, head by head: 5 classes in two twos and a three."""
    new, old = torch.randn(2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    heads = [torch.tensor([[0, 1], [1, 2]]), torch.tensor([[2, 3, 4]])]
    wanted = torch.zeros((), dtype=torch.float64)
    for z, w in zip(new, old, strict=True):
        for head in ([0, 1], [1, 2], [2, 3, 4]):
            p, q = ((x[head] / 2).exp() for x in (z, w))
            p, q = p / p.sum(), q / q.sum()
            wanted += (q * (q / p).log()).sum() / 4
    torch.testing.assert_close(distil(new, old, heads, 2.0), wanted, rtol=1e-12, atol=0)


def test_each_task_has_a_head_of_its_own_size(make_learner, make_network, make_stream) -> None:
    stream, lwf = make_stream(3), LwF(strength=1.0, temperature=2.0)
    sizes = zip(stream.experiences, ((0, 1, 2), (3,), (0, 1, 2)), strict=True)
    stream = replace(stream, experiences=tuple(replace(e, classes=classes) for e, classes in sizes))
    lwf.prepare(make_learner(make_network(), loss_over="own"), stream)
    assert {index: [h.tolist() for h in heads] for index, heads in lwf.heads.items()} == {1: [[[0, 1, 2]]], 2: [[[3]], [[0, 1, 2]]]}
