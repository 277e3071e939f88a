"""EWC against a slow obvious twin in plain tensors."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cl_bench.core.learner import Network
from cl_bench.core.seeds import generator
from cl_bench.core.types import Stream
from cl_bench.strategies.simple import Sequential

SEED, CLASSES = 5, 4  # of make_learner and make_stream


def twin(
    network: Network, stream: Stream, steps: int, strength: float, mode: str, decay: float, samples: int | None, rate: float
) -> list[Tensor]:
    """EWC as written on paper: four tensors, loops, a list of (F, theta*)."""
    theta = [p.detach().double().clone().requires_grad_() for p in network.parameters()]

    def logits(raw: Tensor) -> Tensor:
        hidden = (raw.double().flatten(1) / 255 @ theta[0].t() + theta[1]).clamp(min=0)
        return hidden @ theta[2].t() + theta[3]

    anchors: list[tuple[list[Tensor], list[Tensor]]] = []
    history = []
    for e in stream.experiences:
        for step in range(steps):
            index = torch.arange(4) + 4 * (step % 3)
            loss = F.cross_entropy(logits(e.train.raw[index]), e.train.y[index])
            for importance, centre in anchors:
                for f, p, c in zip(importance, theta, centre, strict=True):
                    loss = loss + strength / 2 * (f * (p - c) ** 2).sum()
            grads = torch.autograd.grad(loss, theta)
            with torch.no_grad():
                for p, g in zip(theta, grads, strict=True):
                    p -= rate * g
            history.append(torch.cat([p.detach().flatten() for p in theta]))
        order = torch.randperm(len(e.train), generator=generator(SEED, "after task", e.index))[:samples].tolist()
        found = [torch.zeros_like(p) for p in theta]
        for n in order:
            log_p = logits(e.train.raw[n : n + 1])[0].log_softmax(0)
            for c in range(CLASSES):
                for f, g in zip(found, torch.autograd.grad(log_p[c], theta, retain_graph=True), strict=True):
                    f += log_p[c].exp().detach() * g**2 / len(order)
        centre = [p.detach().clone() for p in theta]
        if mode == "separate":
            anchors.append((found, centre))
        else:
            old = anchors[0][0] if anchors else [torch.zeros_like(f) for f in found]
            anchors = [([decay * o + f for o, f in zip(old, found, strict=True)], centre)]
    return history


@pytest.mark.parametrize("samples", [None, 7])
@pytest.mark.parametrize(("mode", "decay"), [("separate", 1.0), ("online", 1.0), ("online", 0.6)])
@pytest.mark.parametrize("tasks", [2, 3])
def test_ewc_equals_its_twin(
    make_learner, make_network, make_stream, train, ewc, tasks: int, mode: str, decay: float, samples: int | None
) -> None:
    stream = make_stream(tasks)
    ours = train(make_learner(make_network()), ewc(mode=mode, decay=decay, samples=samples), stream, steps=9)
    theirs = twin(make_network(), stream, 9, 30.0, mode, decay, samples, rate=0.1)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
    plain = train(make_learner(make_network()), Sequential(), stream, steps=9)
    assert torch.equal(plain[8], ours[8]) and float((plain[-1] - ours[-1]).norm()) > 1e-2  # the penalty does something


def test_ewc_strength_zero_asks_for_no_fisher(make_learner, make_network, make_stream, train, ewc) -> None:
    stream = make_stream(3)
    zero, plain = (train(make_learner(make_network()), s, stream, steps=9) for s in (ewc(strength=0.0), Sequential()))
    assert all(torch.equal(a, b) for a, b in zip(zero, plain, strict=True))


def test_ewc_state_carries_the_penalty_on(make_learner, make_network, make_stream, train, ewc) -> None:
    stream = make_stream(2)
    learner, first = make_learner(make_network()), ewc()
    train(learner, first, stream, steps=3)
    with torch.no_grad():
        learner.parameters[0].add_(0.1)
    again = ewc()
    again.prepare(learner, stream)
    again.load_state_dict({k: v.clone() if isinstance(v, Tensor) else v for k, v in first.state_dict().items()})
    batch = learner.batch(stream.experiences[0].train.raw, stream.experiences[0].train.y, 0)
    values = [s.terms(learner, batch, learner.teach(batch))["ewc"] for s in (first, again)]
    assert torch.equal(*values) and bool(values[0] > 0) and again.num_tasks == 2
