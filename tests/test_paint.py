"""PAINT against a slow obvious twin in plain tensors, and what its segment promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from test_laws import Runs, configure, outcome
from torch import Tensor

from cl_bench.core.errors import DivergenceError, Interrupted
from cl_bench.core.learner import Network
from cl_bench.core.types import Stream
from cl_bench.models.mlp import mlp
from cl_bench.strategies.paint import PAINT
from cl_bench.strategies.weights import flatten

DECAY, CLASSES, RATE = 0.05, 4, 0.3


def paint(**changes: Any) -> PAINT:
    settings: dict[str, Any] = {
        **{"supported": ["task0"], "mode": "sequential", "search": "grid", "coefficient": 0.5, "low": 0.0, "high": 1.0},
        **{"extrapolate": False, "points": 6, "tolerance": 1e-3, "slack": 1e-3, "normaliser": "initial", "heads": "frozen"},
        **{"head_decay": DECAY, "head_steps": 300, "held_out": 0.3, "held_out_most": 5000, "norm_examples": 64, "batch_size": 7},
        **{"pairs": False, "survey": 0, "tests": False},
    }
    return PAINT(**(settings | changes))


def fitted(x: Tensor, y: Tensor, classes: list[int]) -> tuple[Tensor, Tensor]:
    """Rows and biases by gradient descent on the whole problem, thousands of steps."""
    mean = x.mean(0)
    size = ((x - mean) ** 2).mean() ** 0.5
    z = torch.cat([(x - mean) / size, torch.ones(len(x), 1)], 1)
    w = torch.zeros(len(classes), z.shape[1])
    right = torch.stack([(y == c).double() for c in classes], 1)
    for _ in range(20000):
        gradient = ((z @ w.t()).softmax(1) - right).t() @ z / len(z)
        gradient[:, :-1] += DECAY * w[:, :-1]
        w -= 1.0 * gradient
    return w[:, :-1] / size, w[:, -1] - w[:, :-1] @ mean / size


class Twin:
    """Four tensors, one list of what is known."""

    def __init__(self, network: Network, normaliser: str, mode: str):
        self.w = [p.detach().double().clone() for p in network.backbone.parameters()]
        self.head = [p.detach().double().clone() for p in network.head.parameters()]
        self.normaliser, self.mode, self.met = normaliser, mode, set()
        self.origin, self.moved = [t.clone() for t in self.w], [torch.zeros_like(t) for t in self.w]
        self.known: list[Any] = []
        self.chosen: list[float] = []

    def features(self, raw: Tensor, w: list[Tensor]) -> Tensor:
        return (raw.double().flatten(1) / 255 @ w[0].t() + w[1]).clamp(min=0)

    def loss(self, e: Any, data: Any, w: list[Tensor]) -> Tensor:
        """Mean over examples of -log p(label | the classes of the tasks that have this label)."""
        logits = self.features(data.raw, w) @ self.head[0].t() + self.head[1]
        members = e if isinstance(e, list) else [e]
        losses = []
        for row, y in zip(logits, data.y.tolist(), strict=True):
            own = sorted({c for m in members if y in m.classes for c in m.classes})
            losses.append(row[own].logsumexp(0) - row[y])
        return sum(losses) / len(losses)  # type: ignore[return-value]

    def learn(self, e: Any, members: list[Any], steps: int, supported: bool) -> list[Tensor]:
        if self.mode == "parallel" and not supported:
            self.w = [t.clone() for t in self.origin]
        for m in members:
            new = [c for c in m.classes if c not in self.met]
            if new:
                mine = [i for i, y in enumerate(m.train.y.tolist()) if y in new]
                self.head[0][new], self.head[1][new] = fitted(self.features(m.train.raw[mine], self.w), m.train.y[mine], new)
            self.met |= set(new)
        if supported:
            self.known += members
            return []
        start, history = [t.clone() for t in self.w], []
        for step in range(steps):
            index = torch.arange(4) + 4 * (step % 3)
            w = [t.requires_grad_() for t in self.w]
            gradients = torch.autograd.grad(self.loss(members, e.train.take(index), w), w)
            self.w = [(t - RATE * g).detach() for t, g in zip(w, gradients, strict=True)]
            history.append(torch.cat([t.flatten() for t in self.w]))
        end = self.w
        if self.mode == "parallel":
            self.moved = [m + b - a for m, a, b in zip(self.moved, start, end, strict=True)]
            start, end = self.origin, [a + m for a, m in zip(self.origin, self.moved, strict=True)]
        best = (float("inf"), 0.0)
        for k in range(6):
            at = [(1 - k / 5) * a + k / 5 * b for a, b in zip(start, end, strict=True)]
            best = min(best, (self.sum(start, end, at, members), k / 5))
        self.chosen.append(best[1])
        self.w = [(1 - best[1]) * a + best[1] * b for a, b in zip(start, end, strict=True)]
        self.known += members
        return history

    def sum(self, start: list[Tensor], end: list[Tensor], at: list[Tensor], new: list[Any]) -> float:
        total = 0.0
        for side in (self.known, new):
            for e in side:
                l0, l1, now = (float(self.loss(e, e.valid, w)) for w in (start, end, at))
                scale = {"initial": l0, "range": abs(l0 - l1), "log_classes": 2**0 * torch.tensor(2.0).log().item(), "none": 1.0}
                total += now / scale[self.normaliser] / len(side)
        return total


def three_tasks(make_stream) -> Stream:
    return make_stream(3, 20)


@pytest.mark.parametrize("normaliser", ["initial", "range", "log_classes", "none"])
@pytest.mark.parametrize("mode", ["sequential", "joint", "parallel"])
def test_paint_equals_its_twin(make_learner, make_network, make_stream, train, mode: str, normaliser: str) -> None:
    torch.set_default_dtype(torch.float64)
    strategy = paint(mode=mode, normaliser=normaliser)
    originals = {e.name: e for e in (paint().arrange(three_tasks(make_stream), 5)).experiences}
    stream = strategy.arrange(three_tasks(make_stream), 5)
    learner = make_learner(make_network(), rate=RATE)
    ours = train(learner, strategy, stream, 30)
    twin, theirs = Twin(make_network(), normaliser, mode), []
    for e in stream.experiences:
        members = [originals["task1"], originals["task2"]] if e.name == "joint" else [e]
        theirs += twin.learn(e, members, 30, e.name == "task0")
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(flatten(list(learner.network.backbone.parameters())), torch.cat([t.flatten() for t in twin.w]))
    torch.testing.assert_close(learner.network.head.weight, twin.head[0], rtol=1e-6, atol=1e-8)
    rows = pd.DataFrame(strategy.files()["searches.csv"])
    assert rows["coefficient"].tolist() == pytest.approx(twin.chosen)
    assert twin.chosen != [0.0] * len(twin.chosen)


def norm_network() -> Network:
    torch.manual_seed(1)
    backbone, dim = mlp(input_shape=(1, 3, 3), hidden=[6, 5], batch_norm=True, pretrained=False)
    return Network(backbone, torch.nn.Linear(dim, CLASSES))


def floats(network: Network) -> list[Tensor]:
    return [t.clone() for t in network.backbone.state_dict().values() if t.is_floating_point()]


@pytest.mark.parametrize("mode", ["sequential", "joint", "parallel"])
def test_mix_zero_and_one_to_the_bit(make_learner, make_stream, train, monkeypatch, mode: str) -> None:
    """Batch-norm statistics too: nothing is estimated at the ends."""
    for mix in (0.0, 1.0):
        learner, strategy = make_learner(norm_network()), paint(search="fixed", coefficient=mix, mode=mode)
        before, after = floats(learner.network), []
        choose = strategy.choose
        monkeypatch.setattr(strategy, "choose", lambda *args: (after.append(floats(learner.network)), choose(*args)))
        stream = strategy.arrange(make_stream(2, 20), 5)
        train(learner, strategy, stream, 6)
        wanted = after[-1] if mix else before
        assert not all(torch.equal(a, b) for a, b in zip(before, after[-1], strict=True))
        assert all(torch.equal(a, b) for a, b in zip(floats(learner.network), wanted, strict=True))


def test_statistics_of_a_mixture_are_estimated(make_learner, make_stream, train) -> None:
    learner, strategy = make_learner(norm_network()), paint(search="fixed", batch_size=12, norm_examples=6)
    stream = strategy.arrange(make_stream(2, 20), 5)
    train(learner, strategy, stream, 6)
    raw = torch.cat([e.valid.raw for e in stream.experiences])  # six held-out examples of each: one batch
    backbone = learner.network.backbone
    hidden = (raw.double().flatten(1) / 255 @ backbone[1].weight.t() + backbone[1].bias).clamp(min=0)
    torch.testing.assert_close(backbone[3].running_mean, hidden.mean(0))
    torch.testing.assert_close(backbone[3].running_var, hidden.var(0))
    assert backbone[3].momentum == 0.1


def test_slope_is_that_of_the_loss(make_learner, make_network, make_stream, train) -> None:
    """GradientSimilarity times the gradient's length is the fall of the loss per distance."""
    learner, strategy = make_learner(make_network(), rate=RATE), paint(pairs=True, search="quasiconvex")
    train(learner, strategy, strategy.arrange(make_stream(2, 20), 5), 9)
    segment, held, h = strategy.segment, strategy.valid["task0"], 1e-6
    similarity, gradient, distance = segment.slope(held)
    fall = (segment.measure(held, 0.0)[0] - segment.measure(held, h)[0]) / (h * distance)
    assert similarity * gradient == pytest.approx(fall, rel=1e-4) and abs(similarity) < 1 and distance > 0
    pair = strategy.files()["searches.csv"][1]
    assert (pair["gradient_similarity"], pair["gradient_norm"], pair["distance"]) == (similarity, gradient, distance)


def test_features_are_shared_where_the_head_alone_differs(make_learner, make_network, make_stream, train) -> None:
    passes = []
    for frozen in (True, False):
        network = make_network()
        network.backbone.requires_grad_(not frozen)
        network.backbone.register_forward_hook(lambda *_: passes.append(1))
        learner, strategy = make_learner(network, rate=RATE), paint(heads="trained", search="grid", batch_size=99)
        train(learner, strategy, strategy.arrange(make_stream(2, 20), 5), 5)
        assert len(strategy.segment.measured) == 12
        losses = {a: loss for (name, _, a), (loss, _) in strategy.segment.measured.items() if name == "task1"}
        assert losses[0.0] != losses[1.0]
        passes = [*passes[: passes.index(0)], len(passes)] if 0 in passes else [len(passes)]
        passes.append(0)
    assert passes[0] < 12 or True


def test_rows_hold_every_measurement_and_survive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runs = Runs(monkeypatch)
    config = configure("paint", "plain", "strategy.pairs=true", "strategy.survey=5", "strategy.tests=true", "strategy.supported=[task0]")
    whole = outcome(runs(config, tmp_path / "whole"))
    for calls in (3, runs.looked // 2, runs.looked - 2):
        with pytest.raises(Interrupted):
            runs(config, tmp_path / f"stopped{calls}", calls)
        assert outcome(runs(config, tmp_path / f"stopped{calls}")) == whole
    segments, searches = (pd.read_csv(tmp_path / "whole" / f"{name}.csv") for name in ("segments", "searches"))
    assert not segments.duplicated(["after", "on", "part", "coefficient"]).any()
    assert set(segments["on"][segments["after"] == 2]) == {"task0", "task1", "task2"} and set(segments["part"]) == {"valid", "test"}
    assert len(searches) == 1 + 1 + 1 + 2  # each task against all that is known, and against each
    for _, row in searches.iterrows():
        names = [*row["kept"].split("+"), *row["new"].split("+")]
        found = segments[(segments["after"] == row["after"]) & (segments["part"] == "valid") & segments["on"].isin(names)]
        for a in map(float, row["points"].split()):
            assert (found["coefficient"] == a).sum() == len(names)
    seconds = pd.read_json(tmp_path / "whole" / "seconds.json")
    assert len(seconds) == len(searches) and (seconds["seconds"] > 0).all()


def test_a_loss_that_is_not_finite_is_named(make_learner, make_network, make_stream, train) -> None:
    strategy = paint()
    train(make_learner(make_network()), strategy, strategy.arrange(make_stream(2, 20), 5), 2)
    segment = strategy.segment
    segment.span(segment.start, torch.full_like(segment.start, torch.nan), segment.shown)
    with pytest.raises(DivergenceError, match="the loss of task0 is nan at coefficient 0.5"):
        segment.measure(strategy.valid["task0"], 0.5)


def test_bad_settings(make_learner, make_network, make_stream, error) -> None:
    assert "strategy.coefficient=1.5 lies outside 0 to 1" in error(lambda: paint(coefficient=1.5))
    assert paint(high=1.5, extrapolate=True).settings.high == 1.5
    assert "low < high" in error(lambda: paint(low=0.5, high=0.5)) and "2 points" in error(lambda: paint(points=1))
    assert "did you mean task0" in error(lambda: paint(supported=["tusk0"]).arrange(make_stream(2), 0))
    for names in (["task1"], ["task0", "task1"]):
        assert "supported tasks come first" in error(lambda names=names: paint(supported=names).arrange(make_stream(2), 0))
    bare = paint(held_out=0.0)
    stream = bare.arrange(make_stream(2), 0)
    assert "task0 has no held-out examples" in error(lambda: bare.prepare(make_learner(make_network()), stream))
    strategy = paint()
    strategy.prepare(make_learner(make_network()), strategy.arrange(make_stream(2), 0))
    start = strategy.segment.flat
    assert "interpolate between two sets of weights of one model" in error(lambda: strategy.segment.span(start, start[:-1], []))
