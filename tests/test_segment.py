"""The line between two sets of weights: its ends, its statistics, its slope, and what is not computed twice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_paint import CLASSES, RATE, learnable, paint, tiny
from torch import Tensor

from cl_bench.core.errors import DivergenceError
from cl_bench.core.learner import Network
from cl_bench.models.mlp import mlp


def norm_network() -> Network:
    torch.manual_seed(1)
    backbone, dim = mlp(input_shape=(1, 3, 3), hidden=[6, 5], batch_norm=True, pretrained=False)
    return Network(backbone, torch.nn.Linear(dim, CLASSES))


def floats(network: Network) -> list[Tensor]:
    return [t.clone() for t in network.backbone.state_dict().values() if t.is_floating_point()]


@pytest.mark.parametrize("mix", [0.0, 1.0])
@pytest.mark.parametrize("mode", ["sequential", "joint", "parallel"])
def test_mix_zero_and_one_to_the_bit(make_learner, make_stream, train, monkeypatch, mode: str, mix: float) -> None:
    """Batch-norm statistics too: nothing is estimated at the ends."""
    learner, strategy = make_learner(norm_network()), paint(search="fixed", coefficient=mix, mode=mode)
    before, after = floats(learner.network), []
    choose = strategy.choose
    monkeypatch.setattr(strategy, "choose", lambda *given: (after.append(floats(learner.network)), choose(*given)))
    train(learner, strategy, strategy.arrange(learnable(make_stream(2, 20)), 5), 6)
    assert not all(torch.equal(a, b) for a, b in zip(before, after[-1], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(floats(learner.network), after[-1] if mix else before, strict=True))


def test_statistics_of_a_mixture_are_estimated(make_learner, make_stream, train) -> None:
    learner, strategy = make_learner(norm_network()), paint(search="fixed", batch_size=12, norm_examples=6)
    tasks = strategy.arrange(learnable(make_stream(2, 20)), 5)
    train(learner, strategy, tasks, 6)
    raw = torch.cat([e.valid.raw for e in tasks.experiences])  # six held-out examples of each: one batch
    backbone = learner.network.backbone
    hidden = (raw.double().flatten(1) / 255 @ backbone[1].weight.t() + backbone[1].bias).clamp(min=0)
    torch.testing.assert_close(backbone[3].running_mean, hidden.mean(0))
    torch.testing.assert_close(backbone[3].running_var, hidden.var(0))
    assert backbone[3].momentum == 0.1


def test_slope_is_that_of_the_loss(make_learner, make_stream, train) -> None:
    """GradientSimilarity times the gradient's length is the fall of the loss per distance."""
    learner, strategy = make_learner(tiny(), rate=RATE), paint(pairs=True, search="quasiconvex")
    train(learner, strategy, strategy.arrange(learnable(make_stream(2, 20)), 5), 9)
    segment, held, h = strategy.segment, strategy.valid["task0"], 1e-6
    similarity, gradient, distance = segment.slope(held)
    fall = (segment.measure(held, 0.0)[0] - segment.measure(held, h)[0]) / (h * distance)
    assert similarity * gradient == pytest.approx(fall, rel=1e-4) and abs(similarity) < 1 and distance > 0
    (pair,) = strategy.files()["searches.csv"]
    assert (pair["gradient_similarity"], pair["gradient_norm"], pair["distance"]) == (similarity, gradient, distance)


@pytest.mark.parametrize("frozen", [True, False])
def test_features_are_shared_where_the_head_alone_differs(make_learner, make_stream, train, monkeypatch, frozen: bool) -> None:
    """Six coefficients, two tasks of one batch each: the backbone runs once a task, or at every coefficient."""
    made, passes = tiny(), []
    made.backbone.requires_grad_(not frozen)
    learner, strategy = make_learner(made, rate=RATE), paint(heads="trained", batch_size=99)
    choose = strategy.choose

    def counted(*given: Any) -> None:
        hook = made.backbone.register_forward_hook(lambda *_: passes.append(1))
        choose(*given)
        hook.remove()

    monkeypatch.setattr(strategy, "choose", counted)
    train(learner, strategy, strategy.arrange(learnable(make_stream(2, 20)), 5), 5)
    assert len(strategy.segment.measured) == 12 and len(passes) == (2 if frozen else 12)
    losses = {a: loss for (name, _, a), (loss, _) in strategy.segment.measured.items() if name == "task1"}
    assert losses[0.0] != losses[1.0]


def test_a_loss_that_is_not_finite_is_named(make_learner, make_network, make_stream, train) -> None:
    strategy = paint()
    train(make_learner(make_network()), strategy, strategy.arrange(make_stream(2, 20), 5), 2)
    segment = strategy.segment
    segment.span(segment.start, torch.full_like(segment.start, torch.nan), segment.shown)
    with pytest.raises(DivergenceError, match="the loss of task0 is nan at coefficient"):
        segment.measure(strategy.valid["task0"], 0.5)
