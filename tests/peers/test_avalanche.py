"""Same weights, data, order and settings: our losses and metrics beside Avalanche's. `make peers` runs this."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cl_bench import metrics
from cl_bench.core.learner import Network
from cl_bench.core.seeds import generator
from cl_bench.core.types import Examples, Experience, Stream
from cl_bench.loop import Plan, learn
from cl_bench.match import Match
from cl_bench.models.mlp import mlp
from cl_bench.strategies import mas, si, simple
from cl_bench.strategies.base import Strategy

pytestmark = pytest.mark.peers
pytest.importorskip("avalanche", reason="make peers installs it")

from avalanche.benchmarks import benchmark_from_datasets  # noqa: E402
from avalanche.benchmarks.utils.classification_dataset import _make_taskaware_tensor_classification_dataset  # noqa: E402
from avalanche.evaluation import metrics as theirs_of  # noqa: E402
from avalanche.training.plugins import (  # noqa: E402
    EvaluationPlugin,
    EWCPlugin,
    LwFPlugin,
    MASPlugin,
    SupervisedPlugin,
    SynapticIntelligencePlugin,
)
from avalanche.training.templates import SupervisedTemplate  # noqa: E402

SEED, RATE, STEPS, BATCH = 5, 0.1, 50, 8  # SEED of make_learner
CLASSES = ((0, 1), (2, 3), (4, 5))


@pytest.fixture(autouse=True)
def _double() -> None:
    torch.set_default_dtype(torch.float64)


def make_stream(shared: bool = False) -> Stream:
    """Three tasks of 4 x 4 pictures round a mean of each class; one pass over a task is STEPS steps.

    shared: the tasks name their two classes alike, so that each helps or spoils the next a little.
    """
    rng = torch.Generator().manual_seed(11)
    means = torch.randint(40, 216, (6, 1, 4, 4), generator=rng)
    experiences = []
    for t in range(3):
        y = torch.tensor(CLASSES[t])[torch.randint(0, 2, (STEPS * BATCH,), generator=rng)]
        raw = means[y] + torch.randint(-40, 41, (len(y), 1, 4, 4), generator=rng)
        examples = Examples(raw.to(torch.uint8), y % 2 if shared else y)
        experiences.append(Experience(t, f"task{t}", examples, (0, 1) if shared else CLASSES[t]))
    return Stream(tuple(experiences), {}, 6)


def make_network() -> Network:
    torch.manual_seed(0)
    backbone, dim = mlp(input_shape=(1, 4, 4), hidden=[16], batch_norm=False, pretrained=False)
    return Network(backbone, nn.Linear(dim, 6)).double()


def orders(task: int) -> tuple[Tensor, Tensor]:
    """In which order our loop trains on a task's examples, and in which our estimators look at them."""
    count = STEPS * BATCH
    return tuple(torch.randperm(count, generator=generator(SEED, *place)) for place in (("order", task, 0), ("after task", task)))


def our_losses(learner: Any, strategy: Strategy, stream: Stream) -> np.ndarray:
    """Through the loop itself."""
    losses: list[float] = []
    progress = SimpleNamespace(epoch=lambda *_: None, end_epoch=lambda: None, losses=losses.extend)
    plan = Plan(batch_size=BATCH, epochs=1, steps=None, renew_optimizer=False)
    strategy.prepare(learner, stream)
    for e in stream.experiences:
        learner.train_mode(first_task=e.index == 0)
        strategy.before_task(learner, e)
        learn(learner, strategy, e, plan, 0, e.index, SimpleNamespace(due=False), progress, Match(None, 0))
        learner.reseed("after task", e.index)
        strategy.after_task(learner, e)
    return np.array(losses)


class Record(SupervisedPlugin):
    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []

    def after_training_iteration(self, strategy: Any, **_: Any) -> None:
        self.losses.append(float(strategy.loss.detach()))


def in_our_order(dataset: Any, task: int) -> Any:
    """What a plugin looks through after training: its estimators depend on who shares a batch."""
    trained, looked = orders(task)
    return dataset.subset(trained.argsort()[looked].tolist())


class EWC(EWCPlugin):
    task = -1

    def compute_importances(self, model: Any, criterion: Any, optimizer: Any, dataset: Any, *more: Any, **named: Any) -> Any:
        self.task += 1
        return super().compute_importances(model, criterion, optimizer, in_our_order(dataset, self.task), *more, **named)


class MAS(MASPlugin):
    task = -1

    def _get_importance(self, strategy: Any) -> Any:
        self.task += 1
        seen = SimpleNamespace(dataset=in_our_order(strategy.experience.dataset, self.task))
        names = ("model", "train_mb_size", "device", "optimizer")
        return super()._get_importance(SimpleNamespace(experience=seen, **{name: getattr(strategy, name) for name in names}))


@pytest.fixture
def mended(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU 0.6.0 keeps views of the weights for copies, so that no weight ever seems to have moved."""
    views = SynapticIntelligencePlugin.extract_weights

    def copies(model: nn.Module, target: dict[str, Any], excluded_parameters: set[str]) -> None:
        views(model, target, excluded_parameters)
        for kept in target.values():
            kept.data = kept.data.clone()

    monkeypatch.setattr(SynapticIntelligencePlugin, "extract_weights", staticmethod(copies))


def their_si() -> Any:
    return SynapticIntelligencePlugin(200.0, eps=50.0)  # smaller, and all weights are at the cap


def trainer(network: Network, *plugins: Any, evaluator: Any = None) -> SupervisedTemplate:
    return SupervisedTemplate(
        model=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=RATE, momentum=0.9),
        train_mb_size=BATCH,
        eval_mb_size=100,
        plugins=list(plugins),
        evaluator=evaluator,
        eval_every=-1 if evaluator is None else 0,  # its forward transfer asks for it
    )


def benchmark(stream: Stream) -> Any:
    """Its streams hold the examples in the order our loop draws them, for it is not to shuffle."""
    sets = []
    for e in stream.experiences:
        data = e.train.take(orders(e.index)[0])
        images = data.raw.double() / 255
        sets.append(_make_taskaware_tensor_classification_dataset(images, data.y, targets=data.y.tolist(), task_labels=0))
    return benchmark_from_datasets(train=sets, test=sets)


def their_losses(stream: Stream, *plugins: Any) -> np.ndarray:
    record = Record()
    them = trainer(make_network(), *plugins, record)
    for experience in benchmark(stream).train_stream:
        them.train(experience, shuffle=False)
    return np.array(record.losses)


@pytest.fixture
def compare(make_learner: Callable) -> Callable:
    """compare(ours, make_plugin): three tasks; the greatest difference of losses over the curve, which falls."""

    def run(strategy: Strategy, *make_plugin: Callable[[], Any]) -> float:
        stream, learner = make_stream(), make_learner(make_network())
        learner.make_optimizer = lambda parameters: torch.optim.SGD(parameters, lr=RATE, momentum=0.9)
        learner.new_optimizer()
        ours, theirs = our_losses(learner, strategy, stream), their_losses(stream, *(make() for make in make_plugin))
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
