"""RanPAC against loops over single examples and numpy's solver."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_l2p import network as vit

from cl_bench.core.errors import RunError
from cl_bench.core.seeds import generator
from cl_bench.probes.readout import read
from cl_bench.strategies.lora import LoRA
from cl_bench.strategies.passes import features
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


def test_an_adapter_learns_the_first_task_and_its_features_are_what_is_projected(make_learner, make_stream, train) -> None:
    pytest.importorskip("peft")
    stream, learner, other = make_stream(2, count=20), make_learner(vit()), make_learner(vit())
    lora = {"rank": 2, "scale": 2.0, "layers": ["qkv"], "class_mask": True}
    ours = train(learner, strategy := ranpac(adapt_first_task=LoRA(**lora)), stream, steps=6)
    theirs = train(other, LoRA(**lora), make_stream(1, count=20), steps=6)
    assert len(ours) == 6 and all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    gram = torch.zeros(20, 20, dtype=torch.float64)
    for e in stream.experiences:
        for found, _ in features(other, e.train, 1):
            hidden = (found[0] @ strategy.ridge.projection).clamp(min=0)
            gram += torch.outer(hidden, hidden)
    torch.testing.assert_close(strategy.ridge.total[:20, :20], gram, rtol=1e-9, atol=1e-9)


def test_windows_add_up_to_their_task(make_learner, make_network, make_stream, train) -> None:
    """Where nothing is announced, the same examples in more portions make the same sums; what is not looked at is not solved for."""
    ((whole,), few), sums = (make_stream(1, count=20).experiences, make_stream(1, count=20)), []
    halves = [replace(whole, index=n, announced=False, train=whole.train.take(torch.arange(10) + 10 * n), looked=n == 1) for n in (0, 1)]
    for stream in (few, replace(few, experiences=tuple(halves))):
        learner, strategy = make_learner(make_network()), ranpac()
        strategy.prepare(learner, stream)
        for e in stream.experiences:
            assert not strategy.learns(e)
            learner.reseed("after task", e.index)
            strategy.after_task(learner, e)
            assert bool(strategy.ridge.weight.any()) == e.looked
        sums.append(strategy.ridge.total)
    torch.testing.assert_close(*sums)


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


def test_ranpac_adapts_nothing_else_and_not_on_hidden_tasks(make_learner, make_network, make_stream, error) -> None:
    assert "give false, true for the whole network, or strategy=ranpac_lora" in error(lambda: ranpac(adapt_first_task=Sequential()))
    stream = make_stream(2)
    hidden = replace(stream, experiences=tuple(replace(e, announced=False) for e in stream.experiences))
    text = error(lambda: ranpac(adapt_first_task=True).prepare(make_learner(make_network()), hidden))
    assert "strategy.adapt_first_task needs task boundaries" in text
