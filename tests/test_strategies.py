"""Strategies against slow obvious twins in plain tensors."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2
from torch import Tensor, nn

from cl_bench.core.errors import ConfigError
from cl_bench.core.learner import Network
from cl_bench.core.seeds import generator
from cl_bench.core.types import Examples, Experience, Output, Stream, Test
from cl_bench.models.mlp import mlp
from cl_bench.strategies.compose import Compose
from cl_bench.strategies.ewc import EWC
from cl_bench.strategies.memory import Reservoir
from cl_bench.strategies.replay import ER
from cl_bench.strategies.simple import Joint, Sequential
from cl_bench.strategies.weights import Quadratic, flatten, split

SEED, CLASSES = 5, 4


def make_stream(tasks: int = 3, count: int = 12) -> Stream:
    rng = torch.Generator().manual_seed(2)
    experiences, tests = [], {}
    for t in range(tasks):
        raw = torch.randint(0, 256, (count, 1, 3, 3), generator=rng).to(torch.uint8)
        classes = ((0, 1), (2, 3), (0, 3))[t]
        data = Examples(raw, torch.tensor(classes)[torch.randint(0, 2, (count,), generator=rng)])
        experiences.append(Experience(t, f"task{t}", data, classes))
        tests[f"task{t}"] = Test(data, classes, t)
    return Stream(tuple(experiences), tests, CLASSES)


def make_network() -> Network:
    torch.manual_seed(0)
    backbone, dim = mlp(input_shape=(1, 3, 3), hidden=[5], batch_norm=False, pretrained=False)
    return Network(backbone, nn.Linear(dim, CLASSES))


def ewc(**changes) -> EWC:
    settings = {"strength": 30.0, "estimator": "exact", "samples": None, "batch_size": 5, "mode": "separate", "decay": 1.0}
    return EWC(**(settings | changes))


def train(learner, strategy, stream: Stream, steps: int) -> list[Tensor]:
    """The loop's calls, in its order; the weights after each step."""
    strategy.prepare(learner, stream)
    history = []
    for e in stream.experiences:
        learner.network.train()
        strategy.before_task(learner, e)
        for step in range(steps):
            learner.reseed("step", e.index, step)
            index = torch.arange(4) + 4 * (step % 3)
            batch = learner.batch(e.train.raw[index], e.train.y[index], e.index)
            output = strategy.loss(learner, batch)
            learner.optimizer.zero_grad()
            learner.fabric.backward(output.loss)
            strategy.after_backward(learner)
            learner.update(step, steps)
            strategy.after_step(learner, batch, output)
            history.append(flatten(learner.parameters))
        learner.reseed("after task", e.index)
        strategy.after_task(learner, e)
    return history


# ---------------------------------------------------------------- EWC


def twin(stream: Stream, steps: int, strength: float, mode: str, decay: float, samples: int | None, rate: float) -> list[Tensor]:
    """EWC as written on paper: four tensors, loops, a list of (F, theta*)."""
    theta = [p.detach().double().clone().requires_grad_() for p in make_network().parameters()]

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
def test_ewc_equals_its_twin(make_learner, tasks: int, mode: str, decay: float, samples: int | None) -> None:
    stream = make_stream(tasks)
    ours = train(make_learner(make_network()), ewc(mode=mode, decay=decay, samples=samples), stream, steps=9)
    theirs = twin(stream, 9, 30.0, mode, decay, samples, rate=0.1)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
    plain = train(make_learner(make_network()), Sequential(), stream, steps=9)
    assert torch.equal(plain[8], ours[8]) and float((plain[-1] - ours[-1]).norm()) > 1e-2  # the penalty does something


def test_ewc_strength_zero_asks_for_no_fisher(make_learner) -> None:
    stream = make_stream(3)
    zero, plain = (train(make_learner(make_network()), s, stream, steps=9) for s in (ewc(strength=0.0), Sequential()))
    assert all(torch.equal(a, b) for a, b in zip(zero, plain, strict=True))


def test_ewc_state_carries_the_penalty_on(make_learner) -> None:
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
    assert torch.equal(*values) and float(values[0]) > 0 and again.num_tasks == 2


@given(st.integers(0, 2**31), st.integers(1, 5), st.floats(0, 1))
def test_quadratic_is_the_sum_of_its_parts(seed: int, tasks: int, holes: float) -> None:
    """Value and gradient, also where weights are zero."""
    rng = torch.Generator().manual_seed(seed)
    parameters = [torch.randn(2, 3, generator=rng, dtype=torch.float64), torch.randn(4, generator=rng, dtype=torch.float64)]
    parameters = [p.requires_grad_() for p in parameters]
    quadratic, parts = Quadratic(parameters), []
    for _ in range(tasks):
        weight = torch.rand(10, generator=rng, dtype=torch.float64) * 10 ** float(4 * torch.rand(1, generator=rng))
        weight = weight * (torch.rand(10, generator=rng) >= holes)
        centre = torch.randn(10, generator=rng, dtype=torch.float64)
        quadratic.add(weight, centre)
        parts.append((weight, centre))
    theta = torch.cat([p.reshape(-1) for p in parameters])
    slow = sum((0.5 * (w * (theta - c) ** 2).sum() for w, c in parts), torch.zeros((), dtype=torch.float64))
    torch.testing.assert_close(quadratic(), slow, rtol=1e-9, atol=1e-9)
    for a, b in zip(torch.autograd.grad(3 * quadratic(), parameters), torch.autograd.grad(3 * slow, parameters), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_split_views_the_flat_vector() -> None:
    like = [torch.zeros(2, 3), torch.zeros(4)]
    vector = torch.arange(10.0)
    parts = split(vector, like)
    assert torch.equal(flatten(parts), vector) and [p.shape for p in parts] == [p.shape for p in like]
    parts[1].zero_()
    assert vector[6:].sum() == 0


# ---------------------------------------------------------------- ER


@pytest.mark.parametrize("loss_over", ["all", "seen", "own"])
def test_er_loss_by_hand(make_learner, loss_over: str) -> None:
    stream = make_stream(2)
    learner = make_learner(make_network(), loss_over=loss_over)
    learner.masks = learner.objective.masks(stream)
    er = ER(memory_size=6, batch_size=8, strength=0.7)
    er.prepare(learner, stream)
    for e in stream.experiences:
        learner.reseed("fill", e.index)
        er.after_step(learner, learner.batch(e.train.raw, e.train.y, e.index), Output(torch.zeros(()), torch.zeros(())))
    memory = {k: v.clone() for k, v in er.memory.state_dict().items() if k != "num_seen"}
    assert set(memory["task"].tolist()) == {0, 1}
    new = stream.experiences[1].train
    learner.reseed("step", 1, 0)
    output = er.loss(learner, learner.batch(new.raw[:4], new.y[:4], 1))

    def example(raw: Tensor, y: int, allowed: tuple[int, ...]) -> Tensor:
        logits = learner.network(raw[None].double() / 255)[0]
        return logits[list(allowed)].logsumexp(0) - logits[y]

    open_to = {"all": [(0, 1, 2, 3)] * 2, "seen": [(0, 1, 2, 3)] * 2, "own": [(0, 1), (2, 3)]}[loss_over]
    drawn = torch.randint(0, 6, (8,), generator=generator(SEED, "step", 1, 0)).tolist()
    fresh = sum(example(new.raw[n], int(new.y[n]), open_to[1]) for n in range(4)) / 4
    replay = sum(example(memory["raw"][n], int(memory["y"][n]), open_to[int(memory["task"][n])]) for n in drawn) / 8
    torch.testing.assert_close(output.parts["replay"], 0.7 * replay, rtol=1e-9, atol=0)
    torch.testing.assert_close(output.loss, fresh + 0.7 * replay, rtol=1e-9, atol=0)


def test_er_with_an_empty_memory_or_no_strength_is_plain(make_learner) -> None:
    stream = make_stream(2)
    plain = train(make_learner(make_network()), Sequential(), stream, steps=5)
    zero = train(make_learner(make_network()), ER(memory_size=6, batch_size=8, strength=0.0), stream, steps=5)
    some = train(make_learner(make_network()), ER(memory_size=6, batch_size=8, strength=1.0), stream, steps=5)
    assert all(torch.equal(a, b) for a, b in zip(plain, zero, strict=True))
    assert torch.equal(plain[0], some[0]) and not torch.equal(plain[1], some[1])


# ---------------------------------------------------------------- memory


def fill(size: int, count: int, portions: list[int], seed: int) -> Reservoir:
    """Example n carries y = n, raw = n, task = n // 7."""
    memory = Reservoir(size, make_stream(1), torch.device("cpu"))
    rng, n = torch.Generator().manual_seed(seed), 0
    while n < count:
        take = min(portions[n % len(portions)], count - n)
        y = torch.arange(n, n + take)
        memory.add(y.to(torch.uint8)[:, None, None, None].expand(-1, 1, 3, 3), y, y // 7, rng)
        n += take
    return memory


def test_reservoir_is_uniform_over_its_stream() -> None:
    size, count, runs = 8, 30, 3000
    times = Counter(n for seed in range(runs) for n in fill(size, count, [7, 3, 1], seed).y.tolist())
    p = size / count
    spread = runs * p * (1 - p) * count / (count - 1)  # a memory never holds an example twice
    statistic = sum((times[n] - runs * p) ** 2 for n in range(count)) / spread
    assert chi2.ppf(0.001, count - 1) < statistic < chi2.ppf(0.999, count - 1)


@pytest.mark.parametrize("count", [3, 8, 30])
def test_reservoir_contents(count: int) -> None:
    memory, again, other = (fill(8, count, [5], seed) for seed in (0, 0, 1))
    length = min(count, 8)
    assert len(memory) == length and memory.num_seen == count
    kept = memory.y[:length]
    assert len(set(kept.tolist())) == length and int(kept.max()) < count
    assert torch.equal(memory.raw[:length, 0, 0, 0].long(), kept) and torch.equal(memory.task[:length], kept // 7)
    assert torch.equal(memory.y, again.y) and torch.equal(memory.raw, again.raw)
    if count > 8:
        assert not torch.equal(memory.y, other.y)
        assert not torch.equal(kept, torch.arange(length))
    else:
        assert torch.equal(kept, torch.arange(count))


def test_reservoir_is_algorithm_r_whatever_the_batches() -> None:
    """Vitter's loop over single examples, with the same numbers."""
    rng = torch.Generator().manual_seed(4)
    slots: list[int] = []
    for n in range(50):
        drawn = int(torch.rand(1, generator=rng, dtype=torch.float64) * (n + 1))
        if n < 8:
            slots.append(n)
        elif drawn < 8:
            slots[drawn] = n
    assert fill(8, 50, [1], 4).y.tolist() == slots
    assert fill(8, 50, [50], 4).y.tolist() == slots


def test_reservoir_draws_only_what_is_there() -> None:
    memory = fill(8, 3, [3], 0)
    raw, y, task = memory.draw(200, torch.Generator().manual_seed(0))
    assert set(y.tolist()) == {0, 1, 2} and raw.shape == (200, 1, 3, 3) and torch.equal(task, y // 7)
    copy = Reservoir(8, make_stream(1), torch.device("cpu"))
    copy.load_state_dict(fill(8, 30, [7], 0).state_dict())
    assert torch.equal(copy.y, fill(8, 30, [7], 0).y) and copy.num_seen == 30 and len(copy) == 8


# ---------------------------------------------------------------- Compose


def test_compose_adds_both_terms(make_learner) -> None:
    stream = make_stream(2)
    learner, parts = make_learner(make_network()), {"er": ER(memory_size=6, batch_size=8, strength=1.0), "ewc": ewc()}
    both = Compose(parts=parts)
    train(learner, both, stream, steps=3)
    with torch.no_grad():
        learner.parameters[0].add_(0.1)
    e = stream.experiences[1]
    batch = learner.batch(e.train.raw, e.train.y, 1)
    learner.reseed("step", 9)
    output = both.loss(learner, batch)
    learner.reseed("step", 9)
    alone = learner.teach(batch)
    apart = {name: value for part in parts.values() for name, value in part.terms(learner, batch, alone).items()}
    assert set(output.parts) == {"replay", "ewc"} == set(apart)
    assert all(torch.equal(output.parts[name], value) and float(value) > 0 for name, value in apart.items())
    torch.testing.assert_close(output.loss, alone.loss + apart["replay"] + apart["ewc"], rtol=1e-12, atol=0)
    fresh = Compose(parts={"er": ER(memory_size=6, batch_size=8, strength=1.0), "ewc": ewc()})
    fresh.prepare(learner, stream)
    fresh.load_state_dict(both.state_dict())
    learner.reseed("step", 9)
    assert torch.equal(fresh.loss(learner, batch).loss, output.loss)


def test_compose_refuses_what_does_more_than_add_terms() -> None:
    with pytest.raises(ConfigError, match=r"strategy\.parts\.all \(Joint\)"):
        Compose(parts={"all": Joint(), "ewc": ewc()})


def test_compose_refuses_two_terms_of_one_name(make_learner) -> None:
    with pytest.raises(AssertionError, match="ewc"):
        train(make_learner(make_network()), Compose(parts={"a": ewc(), "b": ewc()}), make_stream(2), steps=2)
