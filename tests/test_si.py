"""SI against a slow obvious twin in plain tensors."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cl_bench.core.learner import Learner, Network
from cl_bench.core.types import Experience, Stream
from cl_bench.strategies.compose import Compose
from cl_bench.strategies.si import SI
from cl_bench.strategies.simple import Sequential

STRENGTH, DAMPING, RATE, MOMENTUM = 0.05, 0.01, 0.1, 0.97  # with less momentum no path goes uphill for good


def si(**changes) -> SI:
    return SI(**({"strength": STRENGTH, "damping": DAMPING, "gradient": "task", "cut": "sum", "cap": None} | changes))


def twin(network: Network, stream: Stream, steps: int, gradient: str, cut: str, cap: float | None) -> tuple[list[Tensor], list[Tensor]]:
    """SI as written on paper, and its Omega after each task."""
    theta = [p.detach().double().clone().requires_grad_() for p in network.parameters()]
    speed = [torch.zeros_like(p) for p in theta]
    importance, anchor = [torch.zeros_like(p) for p in theta], [p.detach().clone() for p in theta]
    history, found = [], []
    for e in stream.experiences:
        path = [torch.zeros_like(p) for p in theta]
        for step in range(steps):
            index = torch.arange(4) + 4 * (step % 3)
            hidden = (e.train.raw[index].double().flatten(1) / 255 @ theta[0].t() + theta[1]).clamp(min=0)
            own = F.cross_entropy(hidden @ theta[2].t() + theta[3], e.train.y[index])
            total = own
            for o, p, a in zip(importance, theta, anchor, strict=True):
                total = total + STRENGTH * ((o if cap is None else o.clamp(max=cap)) * (p - a) ** 2).sum()
            of_own = torch.autograd.grad(own, theta, retain_graph=True)
            of_total = torch.autograd.grad(total, theta)
            with torch.no_grad():
                for w, p, v, g, h in zip(path, theta, speed, of_own, of_total, strict=True):
                    v.mul_(MOMENTUM).add_(h)
                    moved = -RATE * v
                    p += moved
                    w += {"task": -g * moved, "total": -h * moved, "squared": RATE * h * h}[gradient]
            history.append(torch.cat([p.detach().flatten() for p in theta]))
        for o, w, p, a in zip(importance, path, theta, anchor, strict=True):
            new = w / ((p.detach() - a) ** 2 + DAMPING)
            o += new.clamp(min=0) if cut == "task" else new
            if cut == "sum":
                o.clamp_(min=0)
        anchor = [p.detach().clone() for p in theta]
        found.append(torch.cat([o.flatten() for o in importance]))
    return history, found


def rolling(learner: Learner) -> Learner:
    learner.make_optimizer = lambda parameters: torch.optim.SGD(parameters, lr=RATE, momentum=MOMENTUM)
    learner.new_optimizer()
    return learner


@pytest.mark.parametrize("cap", [None, 0.02])
@pytest.mark.parametrize(("gradient", "cut"), [("task", "sum"), ("task", "task"), ("task", "none"), ("total", "none"), ("squared", "sum")])
def test_si_equals_its_twin(make_learner, make_network, make_stream, train, gradient: str, cut: str, cap: float | None) -> None:
    stream, ours = make_stream(3), si(gradient=gradient, cut=cut, cap=cap)
    history = train(rolling(make_learner(make_network())), ours, stream, steps=9)
    theirs, importance = twin(make_network(), stream, 9, gradient, cut, cap)
    torch.testing.assert_close(torch.stack(history), torch.stack(theirs), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(ours.importance, importance[-1], rtol=1e-6, atol=1e-9)


def test_the_variants_differ(make_network, make_stream) -> None:
    """Else the twin could not tell them apart."""
    stream = make_stream(3)
    ends = [
        twin(make_network(), stream, 9, *kind)[0][-1]
        for kind in [("task", "sum", None), ("task", "task", None), ("task", "none", None), ("total", "none", None), ("task", "sum", 0.02)]
    ]
    assert all(float((a - b).norm()) > 1e-6 for i, a in enumerate(ends) for b in ends[:i])


def test_on_plain_sgd_the_total_path_is_the_squared_one(make_learner, make_network, make_stream, train) -> None:
    ends = [train(make_learner(make_network()), si(gradient=g), make_stream(3), steps=9)[-1] for g in ("total", "squared")]
    torch.testing.assert_close(*ends, rtol=0, atol=1e-12)


def test_squared_takes_each_groups_rate(make_learner, make_network, make_stream, train) -> None:
    """A slow backbone moves and counts less; total's path shows by how much."""
    ours = []
    for gradient in ("total", "squared"):
        learner, strategy = make_learner(make_network()), si(gradient=gradient)
        learner.backbone_rate = 0.1
        learner.new_optimizer()
        train(learner, strategy, make_stream(1), steps=3)
        ours.append(strategy.importance)
    rates = [g["lr"] for g in learner.optimizer.param_groups]
    assert rates == pytest.approx([0.01, 0.1])
    torch.testing.assert_close(*ours, rtol=0, atol=1e-12)


def test_clipping_and_nesterov_leave_the_gradient_of_the_path_alone(make_learner, make_network, make_stream) -> None:
    """One step: omega = -g * moved, with g as the loss has it and moved as the optimizer did it."""
    stream, strategy = make_stream(1), si()
    learner = make_learner(make_network())
    learner.clip, learner.make_optimizer = 0.01, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, foreach=True)
    learner.new_optimizer()
    strategy.prepare(learner, stream)
    train_data = stream.experiences[0].train
    batch = learner.batch(train_data.raw, train_data.y, 0)
    output = strategy.loss(learner, batch)
    learner.fabric.backward(output.loss)
    before = [p.detach().clone() for p in learner.parameters]
    g = [p.grad.clone() for p in learner.parameters]
    strategy.after_backward(learner)
    learner.update()
    strategy.after_step(learner, batch, output)
    wanted = [-g * (p.detach() - b) for g, p, b in zip(g, learner.parameters, before, strict=True)]
    torch.testing.assert_close(strategy.path, torch.cat([w.flatten() for w in wanted]), rtol=1e-12, atol=1e-15)
    assert bool((strategy.path > 0).any())


def test_a_layer_without_gradient_has_no_path(make_learner, make_network, make_stream, train) -> None:
    network = make_network()
    network.spare = torch.nn.Linear(2, 2)
    strategy = si()
    train(make_learner(network), strategy, make_stream(2), steps=3)
    assert not bool(strategy.importance[-6:].any()) and bool(strategy.importance[:-6].any())


def test_a_layer_that_a_task_leaves_out_has_no_path_in_it(make_learner, make_network, make_stream, train, monkeypatch) -> None:
    """Its weights still roll on by their momentum, and the last gradient that the task before gave is none of this one's."""
    network, strategy, stream, found = make_network(), si(cut="none"), make_stream(2), []
    network.spare = torch.nn.Linear(9, 4)
    whole = network.forward
    monkeypatch.setattr(network, "forward", lambda x: whole(x) + (0 if found else network.spare(x.flatten(1))))
    after_task = strategy.after_task

    def keep(learner: Learner, task: Experience) -> None:
        after_task(learner, task)
        found.append((strategy.importance[-40:].clone(), strategy.penalty.centre[-40:].clone()))

    monkeypatch.setattr(strategy, "after_task", keep)
    train(rolling(make_learner(network)), strategy, stream, steps=9)
    (before, start), (after, end) = found
    assert bool(before.any()) and not torch.equal(start, end) and torch.equal(before, after)


def test_si_composes(make_learner, make_network, make_stream, train, ewc) -> None:
    """Beside another penalty of strength 0 it is itself."""
    stream = make_stream(2)
    both = Compose(parts={"si": si(), "ewc": ewc(strength=0.0)})
    ends = [train(make_learner(make_network()), s, stream, steps=6)[-1] for s in (si(), both)]
    assert torch.equal(*ends)


def test_si_strength_zero_is_sequential(make_learner, make_network, make_stream, train) -> None:
    ends = [train(make_learner(make_network()), s, make_stream(2), steps=6)[-1] for s in (si(strength=0.0), Sequential())]
    assert torch.equal(*ends)
