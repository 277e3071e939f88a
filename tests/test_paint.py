"""PAINT against a slow obvious twin in plain tensors, and what its segment promises."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from toy_runs import Runs, configure, outcome

from cl_bench.core.errors import Interrupted
from cl_bench.core.learner import Network
from cl_bench.core.types import Examples, Stream
from cl_bench.strategies.paint import PAINT
from cl_bench.strategies.weights import flatten

DECAY, CLASSES, RATE = 0.5, 4, 0.3
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


def paint(**changes: Any) -> PAINT:
    settings: dict[str, Any] = {
        **{"supported": ["task0"], "mode": "sequential", "search": "grid", "coefficient": 0.5, "low": 0.0, "high": 1.0},
        **{"extrapolate": False, "points": 6, "tolerance": 1e-3, "slack": 1e-3, "normaliser": "initial", "heads": "frozen"},
        **{"head_decay": DECAY, "head_steps": 300, "held_out": 0.3, "held_out_most": 5000, "norm_examples": 64, "batch_size": 7},
        **{"pairs": False, "survey": 0, "tests": False},
    }
    return PAINT(**(settings | changes))


def fitted(x: Tensor, y: Tensor, classes: list[int]) -> tuple[Tensor, Tensor]:
    """Rows and biases by Newton's method; a constant on all biases changes nothing, so that the least one is taken."""
    mean = x.mean(0)
    size = ((x - mean) ** 2).mean() ** 0.5
    z = torch.cat([(x - mean) / size, torch.ones(len(x), 1)], 1)
    labels = torch.tensor([classes.index(c) for c in y.tolist()])

    def loss(flat: Tensor) -> Tensor:
        w = flat.view(len(classes), -1)
        return F.cross_entropy(z @ w.t(), labels) + DECAY / 2 * (w[:, :-1] ** 2).sum()

    w = torch.zeros(len(classes) * z.shape[1])
    for _ in range(30):
        gradient, hessian = torch.autograd.functional.jacobian(loss, w), torch.autograd.functional.hessian(loss, w)
        w = w - torch.linalg.pinv(hessian, hermitian=True) @ gradient
    w = w.view(len(classes), -1)
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
        return torch.tanh(raw.double().flatten(1) / 255 @ w[0].t() + w[1])

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
                scale = {"initial": l0, "range": abs(l0 - l1), "log_classes": math.log(2), "none": 1.0}
                total += now / scale[self.normaliser] / len(side)
        return total


def learnable(given: Stream) -> Stream:
    """The same pictures with labels that can be learned, by another rule a task."""
    experiences = []
    for n, e in enumerate(given.experiences):
        y = torch.tensor(e.classes)[(e.train.raw[:, 0, n].sum(1, dtype=torch.int64) > 380).long()]
        experiences.append(replace(e, train=Examples(e.train.raw, y)))
    return replace(given, experiences=tuple(experiences))


def tiny() -> Network:
    torch.manual_seed(0)
    return Network(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 6), torch.nn.Tanh()), torch.nn.Linear(6, CLASSES))


@pytest.mark.parametrize("normaliser", ["initial", "range", "log_classes", "none"])
@pytest.mark.parametrize("mode", ["sequential", "joint", "parallel"])
def test_paint_equals_its_twin(make_learner, make_stream, train, mode: str, normaliser: str) -> None:
    torch.set_default_dtype(torch.float64)
    strategy = paint(mode=mode, normaliser=normaliser)
    originals = {e.name: e for e in paint().arrange(learnable(make_stream(3, 20)), 5).experiences}
    tasks = strategy.arrange(learnable(make_stream(3, 20)), 5)
    learner = make_learner(tiny(), rate=RATE)
    ours = train(learner, strategy, tasks, 15)
    twin, theirs = Twin(tiny(), normaliser, mode), []
    for e in tasks.experiences:
        members = [originals["task1"], originals["task2"]] if e.name == "joint" else [e]
        theirs += twin.learn(e, members, 15, e.name == "task0")
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, **CLOSE)
    torch.testing.assert_close(flatten(list(learner.network.backbone.parameters())), torch.cat([t.flatten() for t in twin.w]), **CLOSE)
    torch.testing.assert_close(learner.network.head.weight, twin.head[0], **CLOSE)
    rows = pd.DataFrame(strategy.files()["searches.csv"])
    assert rows["coefficient"].tolist() == pytest.approx(twin.chosen, abs=1e-9)
    assert any(a > 0 for a in twin.chosen)


def test_rows_hold_every_measurement_and_survive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runs = Runs(monkeypatch)
    config = configure("paint", "plain", "strategy.pairs=true", "strategy.survey=0", "strategy.tests=true", "strategy.supported=[task0]")
    whole = outcome(runs(config, tmp_path / "whole"))
    for calls in (3, runs.looked // 2, runs.looked - 2):
        with pytest.raises(Interrupted):
            runs(config, tmp_path / f"stopped{calls}", calls)
        assert outcome(runs(config, tmp_path / f"stopped{calls}")) == whole
    segments, searches = (pd.read_csv(tmp_path / "whole" / f"{name}.csv") for name in ("segments", "searches"))
    assert not segments.duplicated(["after", "on", "part", "coefficient"]).any()
    assert set(segments["on"][segments["after"] == 2]) == {"task0", "task1", "task2"} and set(segments["part"]) == {"valid", "test"}
    assert len(searches) == 1 + 1 + 2  # each task against all that is known, and against each
    for _, row in searches.iterrows():
        names = [*row["kept"].split("+"), *row["new"].split("+")]
        found = segments[(segments["after"] == row["after"]) & (segments["part"] == "valid") & segments["on"].isin(names)]
        for a in map(float, row["points"].split()):
            assert (found["coefficient"] == a).sum() == len(names)
        chosen = segments[(segments["after"] == row["after"]) & (segments["coefficient"] == row["coefficient"])]
        assert set(names) <= set(chosen["on"][chosen["part"] == "test"])
    seconds = pd.read_json(tmp_path / "whole" / "seconds.json")
    assert len(seconds) == len(searches) and (seconds["seconds"] > 0).all()


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
