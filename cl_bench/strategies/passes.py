"""A task's examples once more: as batches, and in one pass of a finished network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cl_bench.core.learner import Learner
from cl_bench.core.types import Batch, Examples, Experience, Stream


def batch_at(learner: Learner, task: Experience, index: Tensor) -> Batch:
    """The task's examples at index [B], where the learner is: a stream stays in main memory."""
    data = task.train.take(index).to(learner.device)
    return learner.batch(data.raw, data.y, task.index)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """In evaluation mode; afterwards each module in its own again, for batch norm may be frozen."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    yield
    for module, training in modes:
        module.training = training


@torch.inference_mode()
def features(learner: Learner, data: Examples, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(features [B, D], y [B]) by portions, of views that draw nothing, in evaluation mode."""
    with evaluating(learner.network):
        for raw, y in zip(data.raw.split(batch_size), data.y.split(batch_size), strict=True):
            with learner.fabric.autocast():
                found = learner.network.features(learner.view(raw.to(learner.device), None))
            yield found, y.to(learner.device)


def width(learner: Learner, stream: Stream) -> int:
    """Of a feature, asked with one example."""
    ((found, _),) = features(learner, stream.experiences[0].train.take(torch.arange(1)), 1)
    return found.shape[1]
