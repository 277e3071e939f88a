"""RanPAC against loops over single examples and numpy's solver."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cl_bench.core.errors import RunError
from cl_bench.core.seeds import generator
from cl_bench.probes.readout import read
from cl_bench.strategies.ranpac import RanPAC
from cl_bench.strategies.simple import Sequential

RIDGES = [10.0**k for k in range(-4, 5)]


def ranpac(**changes) -> RanPAC:
    return RanPAC(**({"size": 20, "ridges": RIDGES, "held_out": 0.25, "adapt_first_task": False, "batch_size": 5} | changes))


def twin(network, experiences, projection, raw) -> tuple[np.ndarray, list[float]]:
    w, b = (p.detach().double().numpy() for p in list(network.parameters())[:2])
    size = projection.shape[1]

    def hidden(one) -> np.ndarray:
        return np.maximum(np.maximum(w @ one.double().flatten().numpy() / 255 + b, 0) @ projection, 0)

    def fit(pairs, ridge: float) -> np.ndarray:
        gram, products = np.zeros((size, size)), np.zeros((size, 4))
        for h, y in pairs:
            gram += np.outer(h, h)
            products[:, y] += h
        return np.linalg.solve(gram + ridge * np.eye(size), products)

    everything, chosen = [], []
    for e in experiences:
        order = torch.randperm(len(e.train), generator=generator(5, "after task", e.index)).tolist()
        pairs = [(hidden(e.train.raw[i]), int(e.train.y[i])) for i in order]
        number = round(0.75 * len(pairs))
        errors = []
        for ridge in RIDGES:
            weight = fit(pairs[:number], ridge)
            errors.append(sum(((h @ weight - np.eye(4)[y]) ** 2).sum() for h, y in pairs[number:]))
        chosen.append(RIDGES[int(np.argmin(errors))])
        everything += pairs
    weight = fit(everything, chosen[-1])
    return np.stack([hidden(one) @ weight for one in raw]), chosen


@pytest.mark.parametrize("tasks", [1, 2, 3])  # in the third, classes return
def test_ranpac_equals_its_twin(make_learner, make_network, make_stream, train, tasks: int) -> None:
    stream, learner, strategy = make_stream(tasks, count=20), make_learner(make_network()), ranpac()
    assert train(learner, strategy, stream, steps=9) == []
    data = make_stream(3).experiences[2].train
    ours = read(learner, data, 7)[1]
    theirs, chosen = twin(make_network(), stream.experiences, strategy.ridge.projection.numpy(), data.raw)
    assert RIDGES[0] < chosen[-1] < RIDGES[-1]
    seen = list(stream.seen(tasks - 1))
    torch.testing.assert_close(ours[:, seen], torch.tensor(theirs)[:, seen], rtol=1e-7, atol=1e-9)
    unseen = [c for c in range(4) if c not in seen]
    assert bool((ours[:, unseen] < ours[:, seen].amin(1, keepdim=True)).all())


def test_ranpac_adapts_on_the_first_task_alone(make_learner, make_network, make_stream, train) -> None:
    stream, learner, other = make_stream(2), make_learner(make_network()), make_learner(make_network())
    ours = train(learner, ranpac(adapt_first_task=True), stream, steps=6)
    theirs = train(other, Sequential(), make_stream(1), steps=6)
    assert len(ours) == 6 and all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_ranpac_passes_over_a_ridge_below_the_precision(make_learner, make_network, make_stream, train) -> None:
    stream, logits = make_stream(2), []
    for ridges in ([1e-40, 1e-30, 0.5], [0.5]):
        learner = make_learner(make_network())
        train(learner, ranpac(ridges=ridges), stream, steps=1)
        logits.append(read(learner, stream.experiences[0].train, 7)[1])
    assert torch.equal(*logits) and bool(logits[0].isfinite().all())
    with pytest.raises(RunError, match=r"strategy\.ridges: 1e-30"):
        train(make_learner(make_network()), ranpac(ridges=[1e-30, 1e-40]), stream, steps=1)


@pytest.mark.parametrize("held_out", [0.0, 0.01, 1.0])
def test_ranpac_refuses_a_share_that_leaves_nothing(make_learner, make_network, make_stream, error, held_out: float) -> None:
    text = error(lambda: ranpac(held_out=held_out).prepare(make_learner(make_network()), make_stream()))
    assert f"strategy.held_out={held_out}" in text and "task0" in text
    text = error(lambda: ranpac(ridges=[]).prepare(make_learner(make_network()), make_stream()))
    assert "strategy.ridges=[]" in text
