"""SLCA against plain masked fine-tuning, and its alignment against loops over single examples."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cl_bench.core.schedule import Drop
from cl_bench.core.seeds import generator
from cl_bench.core.types import Examples
from cl_bench.probes.readout import read
from cl_bench.strategies.masked import Masked
from cl_bench.strategies.slca import SLCA
from cl_bench.strategies.weights import split

SAMPLES, EPOCHS, RATE = 3, 2, 0.05


def slca(**changes) -> SLCA:
    settings = {"samples": SAMPLES, "epochs": EPOCHS, "rate": RATE, "momentum": 0.9, "decay": 0.01, "temperature": 0.5}
    return SLCA(**(settings | {"shrink": 0.2, "ridge": 1e-3, "class_mask": True, "batch_size": 7} | changes))


def at(make_network, weights: Tensor) -> list[Tensor]:
    """The small network's tensors, w and b of the layer and of the head, from one vector."""
    return split(weights, list(make_network().double().parameters()))


def feature(tensors: list[Tensor], raw: Tensor) -> Tensor:
    return (tensors[0] @ (raw.double().flatten() / 255) + tensors[1]).clamp(min=0)


def twin(make_network, history: list[Tensor], experiences, steps: int, temperature: float | None) -> tuple[Tensor, Tensor]:
    """The aligned head after the last task."""
    clouds = []
    for t, e in enumerate(experiences):
        tensors = at(make_network, history[steps * (t + 1) - 1])
        for c in e.classes:
            cloud = [feature(tensors, raw) for raw, y in zip(e.train.raw, e.train.y) if int(y) == c]
            if cloud:
                mean = sum(cloud) / len(cloud)
                spread = sum(torch.outer(f - mean, f - mean) for f in cloud) / max(1, len(cloud) - 1)
                clouds.append((t, c, mean, torch.linalg.cholesky(spread + 1e-3 * torch.eye(5))))
    last = len(experiences) - 1
    theta = [p.clone().requires_grad_() for p in at(make_network, history[-1])[2:]]
    rng, momenta = generator(5, "after task", experiences[-1].index), None
    for epoch in range(EPOCHS):
        noise = torch.randn(len(clouds), SAMPLES, 5, dtype=torch.float64, generator=rng)
        pairs = []
        for (t, c, mean, factor), draws in zip(clouds, noise):
            pairs += [((0.8 + 0.2 * (t + 1) / (last + 1)) * mean + factor @ z, c) for z in draws]
        order = torch.randperm(len(pairs), generator=rng).tolist()
        for first in range(0, len(order), SAMPLES):
            batch = [pairs[i] for i in order[first : first + SAMPLES]]
            losses = []
            for f, c in batch:
                logits = theta[0] @ f + theta[1]
                if temperature is not None:
                    lengths = [logits[list(e.classes)].norm() for e in experiences]
                    logits = logits / (temperature * sum(lengths) / len(lengths))
                seen = sorted({k for e in experiences for k in e.classes})
                losses.append(torch.logsumexp(logits[seen], 0) - logits[c])
            grads = torch.autograd.grad(sum(losses) / len(losses), theta)
            rate = RATE * 0.5 * (1 + math.cos(math.pi * epoch / EPOCHS))
            with torch.no_grad():
                changes = [g + 0.01 * p for g, p in zip(grads, theta)]
                momenta = changes if momenta is None else [0.9 * m + g for m, g in zip(momenta, changes)]
                for p, m in zip(theta, momenta):
                    p -= rate * m
    return theta[0].detach(), theta[1].detach()


@pytest.mark.parametrize("temperature", [0.5, None])
@pytest.mark.parametrize("tasks", [1, 2, 3])  # in the third, classes return
def test_slca_equals_its_twin(make_learner, make_network, make_stream, train, tasks: int, temperature: float | None) -> None:
    stream, learner, other = make_stream(tasks), make_learner(make_network()), make_learner(make_network())
    ours = train(learner, strategy := slca(temperature=temperature), stream, 5)
    theirs = train(other, Masked(class_mask=True, backbone="trained", batch_size=5), stream, 5)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))  # alignment does not touch what goes on learning
    tensors, raw = at(make_network, ours[-1]), make_stream(3).experiences[2].train.raw
    weight, bias = twin(make_network, ours, stream.experiences, 5, temperature) if tasks > 1 else tensors[2:]
    expected = torch.stack([weight @ feature(tensors, one) + bias for one in raw])
    torch.testing.assert_close(read(learner, Examples(raw, torch.zeros(len(raw), dtype=torch.int64)), 7)[1], expected, rtol=1e-6, atol=1e-9)
    assert strategy.counts.sum() == 12 * tasks
    assert not any(p.requires_grad for p in strategy.head.copy.parameters())


def test_a_class_without_examples_is_not_drawn(make_learner, make_network, make_stream, train) -> None:
    stream = make_stream(2)
    first = stream.experiences[0].train
    first.y.fill_(0)
    train(make_learner(make_network()), strategy := slca(), stream, 2)
    assert strategy.counts[:2].tolist() == [12, 0] and bool(strategy.factors.isfinite().all())


def test_no_epochs_leave_the_head(make_learner, make_network, make_stream, train) -> None:
    learner = make_learner(make_network())
    train(learner, strategy := slca(epochs=0), make_stream(2), 2)
    assert all(torch.equal(a, b) for a, b in zip(strategy.head.copy.parameters(), strategy.head.start.parameters(), strict=True))


def test_the_rate_drops_once() -> None:
    assert [Drop(at=0.9, factor=0.1)(step, 20, 3) for step in range(20)] == [1.0] * 18 + [0.1] * 2
