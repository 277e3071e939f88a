"""Heads that are fitted once, to the features of the weights that are there, and then stand still."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cl_bench.core.learner import Learner
from cl_bench.core.types import Examples
from cl_bench.strategies.passes import features


def fit(learner: Learner, head: Any, data: Examples, classes: Sequence[int], decay: float, steps: int, batch_size: int) -> None:
    """Rows `classes` of a linear head by logistic regression over them: mean cross-entropy + decay / 2 |W|^2, by L-BFGS.

    Features are centred and brought to one scale first, so that decay means the same for every backbone.
    """
    found = list(features(learner, data, batch_size))
    x, y = torch.cat([f for f, _ in found]).double().clone(), torch.cat([y for _, y in found])
    rename = torch.full((len(head.weight),), -1, device=y.device)
    rename[list(classes)] = torch.arange(len(classes), device=y.device)
    weight, bias = regression(x, rename[y], len(classes), decay, steps)
    with torch.no_grad():
        head.weight[list(classes)], head.bias[list(classes)] = weight.to(head.weight), bias.to(head.bias)


def regression(x: Tensor, y: Tensor, count: int, decay: float, steps: int) -> tuple[Tensor, Tensor]:
    """(weight [count, D], bias [count]) for features x [N, D] float64, labels y [N]."""
    mean = x.mean(0)
    scale = (x - mean).square().mean().sqrt().clamp(min=1e-12)
    z = (x - mean) / scale
    weight = torch.zeros(count, x.shape[1], dtype=x.dtype, device=x.device, requires_grad=True)
    bias = torch.zeros(count, dtype=x.dtype, device=x.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=steps, line_search_fn="strong_wolfe", tolerance_grad=1e-10, tolerance_change=0.0)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(z @ weight.t() + bias, y) + decay / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    weight = weight.detach() / scale
    return weight, bias.detach() - weight @ mean
