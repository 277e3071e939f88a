"""One pass of a finished network over examples."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from cl_bench.core.learner import Learner
from cl_bench.core.types import Examples


@torch.inference_mode()
def features(learner: Learner, data: Examples, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(features [B, D], y [B]) by portions, of views that draw nothing, in evaluation mode."""
    was_training = learner.network.training
    learner.network.eval()
    for raw, y in zip(data.raw.split(batch_size), data.y.split(batch_size), strict=True):
        with learner.fabric.autocast():
            found = learner.network.features(learner.view(raw.to(learner.device), None))
        yield found, y.to(learner.device)
    learner.network.train(was_training)
