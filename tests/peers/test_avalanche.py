"""Same weights, data, order and settings: our losses and metrics beside Avalanche's. `make peers` runs this."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cl_bench import metrics
from cl_bench.strategies import mas, si, simple
from cl_bench.strategies.base import Strategy

pytestmark = pytest.mark.peers
pytest.importorskip("avalanche", reason="make peers installs it")

from avalanche.evaluation import metrics as theirs_of  # noqa: E402
from avalanche.training.plugins import (  # noqa: E402
    EvaluationPlugin,
    LwFPlugin,
    SynapticIntelligencePlugin,
)
from ours import BATCH, STEPS, make_network, make_stream, our_losses  # noqa: E402
from theirs import EWC, MAS, benchmark, their_losses, their_si, trainer  # noqa: E402


@pytest.fixture(autouse=True)
def _double() -> None:
    torch.set_default_dtype(torch.float64)


@pytest.fixture
def mended(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU 0.6.0 keeps views of the weights for copies, so that no weight ever seems to have moved."""
    views = SynapticIntelligencePlugin.extract_weights

    def copies(model: nn.Module, target: dict[str, Any], excluded_parameters: set[str]) -> None:
        views(model, target, excluded_parameters)
        for kept in target.values():
            kept.data = kept.data.clone()

    monkeypatch.setattr(SynapticIntelligencePlugin, "extract_weights", staticmethod(copies))


@pytest.fixture
def compare(make_learner: Callable, tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """compare(ours, make_plugin): three tasks; the greatest difference of losses over the curve, which falls."""

    def run(strategy: Strategy, *make_plugin: Callable[[], Any]) -> float:
        stream = make_stream()
        ours = our_losses(make_learner(make_network()), strategy, stream, tmp_path_factory.mktemp("run"))
        theirs = their_losses(stream, *(make() for make in make_plugin))
        assert len(ours) == len(theirs) == 3 * STEPS and ours[0] > 2 * ours[STEPS - 1]
        difference = float(np.abs(ours - theirs).max())
        print(f"greatest difference over {len(ours)} steps: {difference:.2e}; losses {ours[STEPS]:.4f} .. {ours[-1]:.4f}")
        return difference

    return run


def test_sequential(compare: Callable) -> None:
    assert compare(simple.Sequential()) < 1e-4


@pytest.mark.parametrize(("mode", "decay"), [("separate", None), ("online", 0.7)])
def test_ewc(compare: Callable, ewc: Callable, mode: str, decay: float | None) -> None:
    """Its penalty has no 1/2."""
    ours = ewc(strength=2 * 40.0, estimator="batched", batch_size=BATCH, mode=mode, decay=decay or 1.0)
    assert compare(ours, lambda: EWC(40.0, mode, decay)) < 1e-4
    assert compare(simple.Sequential(), lambda: EWC(40.0, mode, decay)) > 1e-2


def our_si(**changes: Any) -> si.SI:
    """Avalanche's variant: the path of the total gradient, no cut below, a cap above; its strength is twice ours."""
    return si.SI(**({"strength": 100.0, "damping": 50.0, "gradient": "total", "cut": "none", "cap": 0.001} | changes))


@pytest.mark.usefixtures("mended")
def test_si(compare: Callable) -> None:
    assert compare(our_si(), their_si) < 1e-4
    assert compare(simple.Sequential(), their_si) > 1e-2


@pytest.mark.usefixtures("mended")
@pytest.mark.parametrize("change", [{"gradient": "task"}, {"cap": None}], ids=str)
def test_si_needs_each_part_of_the_variant(compare: Callable, change: dict[str, Any]) -> None:
    assert compare(our_si(**change), their_si) > 1e-4


def test_si_as_shipped_does_nothing_on_the_cpu(compare: Callable) -> None:
    assert compare(our_si(strength=0.0), their_si) < 1e-4


def test_lwf(compare: Callable) -> None:
    """All old classes are one head, as under our loss_over=all and seen."""
    from cl_bench.strategies import lwf

    assert compare(lwf.LwF(strength=3.0, temperature=2.0), lambda: LwFPlugin(3.0, 2.0)) < 1e-4
    assert compare(simple.Sequential(), lambda: LwFPlugin(3.0, 2.0)) > 1e-2


def test_mas(compare: Callable) -> None:
    ours = mas.MAS(strength=0.05, estimator="batched", samples=None, batch_size=BATCH, mode="moving", decay=0.3)
    assert compare(ours, lambda: MAS(0.05, 0.3)) < 1e-4
    assert compare(simple.Sequential(), lambda: MAS(0.05, 0.3)) > 1e-2


def test_metrics() -> None:
    """On the accuracies of a real run of theirs; its forgetting counts from the moment of learning."""
    parts = (
        theirs_of.accuracy_metrics(experience=True, stream=True),
        theirs_of.forgetting_metrics(stream=True),
        theirs_of.bwt_metrics(stream=True),
        theirs_of.forward_transfer_metrics(stream=True),
    )
    them, bench = trainer(make_network(), evaluator=EvaluationPlugin(*parts, loggers=[])), benchmark(make_stream(shared=True))

    def look() -> tuple[list[float], dict[str, float]]:
        found = them.eval(bench.test_stream)
        by_task = sorted((k, v) for k, v in found.items() if k.startswith("Top1_Acc_Exp/"))
        return [v for _, v in by_task], {k.split("/")[0]: v for k, v in found.items()}

    before, _ = look()
    rows = []
    for experience in bench.train_stream:
        them.train(experience, eval_streams=[], shuffle=False)
        row, figures = look()
        rows.append(row)
    matrix = np.array(rows)
    pairs = {
        "Top1_Acc_Stream": metrics.average_accuracy(matrix),
        "StreamForgetting": metrics.forgetting_last_minus_learned(matrix),
        "StreamBWT": metrics.backward_transfer(matrix),
        "StreamForwardTransfer": metrics.forward_transfer(matrix, np.array(before)),
    }
    assert matrix.shape == (3, 3) and len({round(v, 6) for v in pairs.values()}) == 4
    for name, ours in pairs.items():
        print(name, ours, figures[name])
        assert ours == pytest.approx(figures[name], abs=1e-9)
