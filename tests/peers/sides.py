"""Both sides of the comparison with Avalanche: one stream, one network, our loop and theirs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cl_bench.core.learner import Network
from cl_bench.core.seeds import generator
from cl_bench.core.types import Examples, Experience, Stream
from cl_bench.loop import Plan, learn
from cl_bench.match import Match
from cl_bench.models.mlp import mlp
from cl_bench.strategies.base import Strategy

pytest.importorskip("avalanche", reason="make peers installs it")

from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils.classification_dataset import _make_taskaware_tensor_classification_dataset
from avalanche.training.plugins import (
    EWCPlugin,
    MASPlugin,
    SupervisedPlugin,
    SynapticIntelligencePlugin,
)
from avalanche.training.templates import SupervisedTemplate

SEED, RATE, STEPS, BATCH = 5, 0.1, 50, 8  # SEED of make_learner
CLASSES = ((0, 1), (2, 3), (4, 5))


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
