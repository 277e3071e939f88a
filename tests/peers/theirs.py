"""Avalanche's side of the comparison: its trainer and plugins on our stream and network."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ours import BATCH, RATE, make_network, orders

from cl_bench.core.learner import Network
from cl_bench.core.types import Stream

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
