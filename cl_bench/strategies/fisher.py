"""Diagonal of the Fisher information [P], by the estimators that 2502.11756 compares.

F_i = E_x E_c~p(c|x) (d log p(c|x) / d theta_i)^2. `exact` weighs every class, `sample` draws one,
`empirical` takes the label, `batched` squares the gradient of a batch's mean (not a Fisher, but
common), `legacy` keeps the faults of the code behind the EWC article (see `_legacy`).
Their sizes differ by orders of magnitude: a strength found for one means nothing for another.
Of text c is a whole block: log p sums over its tokens, and `sample` draws each after the true ones before it, so that
the terms between tokens vanish on average.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cl_bench.core.learner import Learner
from cl_bench.core.types import Experience
from cl_bench.strategies.passes import batch_at
from cl_bench.strategies.squares import Choose, SquaredGradients
from cl_bench.strategies.weights import flatten


def fisher(estimator: str, learner: Learner, task: Experience, order: Tensor, batch_size: int) -> Tensor:
    """F [P] over the parameters in learner.parameters, from the examples of task at order [N]."""
    modes = [(module, module.training) for module in learner.network.modules()]
    batches = list(order.split(batch_size))
    if estimator == "legacy":
        result = _legacy(learner, task, batches)
    else:
        learner.network.eval()  # a per-example gradient through batch statistics does not exist
        result = (_batched if estimator == "batched" else _per_example)(estimator, learner, task, batches)
    for module, training in modes:  # each its own: batch norm may be frozen
        module.training = training
    return result


def _log_probabilities(learner: Learner, task: Experience, index: Tensor) -> tuple[Tensor, Tensor]:
    """log p [B, C] under the loss's own mask, and the labels [B]; of text [B, L, C] and [B, L]."""
    batch = batch_at(learner, task, index)
    logits = learner.network(learner.view(batch.raw, None))
    if batch.allowed is not None:
        logits = logits.masked_fill(~batch.allowed, -torch.inf)
    return logits.log_softmax(-1), learner.objective.targets(batch)


def _per_example(estimator: str, learner: Learner, task: Experience, batches: list[Tensor]) -> Tensor:
    """Sum of squared per-example gradients, a backward pass per batch (and class), never per example."""
    squares = SquaredGradients(learner.network, learner.parameters)
    total = torch.zeros_like(flatten(learner.parameters))
    for index in batches:
        batch = batch_at(learner, task, index)
        images, mask, y = learner.view(batch.raw, None), batch.allowed, learner.objective.targets(batch)

        def log_p(logits: Tensor, mask: Tensor | None = mask) -> Tensor:
            return (logits if mask is None else logits.masked_fill(~mask, -torch.inf)).log_softmax(-1)

        total += squares(images, log_p, _targets(estimator, y, mask, learner.rng))
    return total / sum(map(len, batches))


def _targets(estimator: str, y: Tensor, mask: Tensor | None, rng: torch.Generator) -> Choose:
    """log p [B, C] -> pairs (class [B], weight [B]): what is squared, and how much it counts."""

    def choose(log_p: Tensor) -> list[tuple[Tensor, Tensor]]:
        p = log_p.detach().exp()
        ones = p.new_ones(len(p))
        if estimator == "empirical":
            return [(y, ones)]
        if estimator == "sample":
            draw = torch.rand(*p.shape[:-1], 1, generator=rng, dtype=torch.float64).to(p.device)
            drawn = (p.double().cumsum(-1) < draw * p.double().sum(-1, keepdim=True)).sum(-1)
            return [(drawn.clamp(max=p.shape[-1] - 1), ones)]
        classes = range(p.shape[1]) if mask is None else mask.nonzero().flatten().tolist()
        return [(torch.full_like(y, c), p[:, c]) for c in classes]

    return choose


def _batched(estimator: str, learner: Learner, task: Experience, batches: list[Tensor]) -> Tensor:
    total = torch.zeros_like(flatten(learner.parameters))
    for index in batches:
        log_p, y = _log_probabilities(learner, task, index)
        mean = log_p.gather(-1, y[..., None]).flatten(1).sum(1).mean()
        total += flatten(torch.autograd.grad(mean, learner.parameters)).square_()
    return total / len(batches)


def _legacy(learner: Learner, task: Experience, batches: list[Tensor]) -> Tensor:
    """The article's estimate, faults kept: log p[:, y] pairs every image with every label of its batch,
    the mean over all is differentiated once and then squared, and batch norm stays in training mode,
    so that the pass moves its running statistics."""
    learner.network.train()
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches = [*batches[:-2], torch.cat(batches[-2:])]  # batch norm cannot take a batch of one
    total, pairs = torch.zeros_like(flatten(learner.parameters)), 0
    for index in batches:
        log_p, y = _log_probabilities(learner, task, index)
        total += flatten(torch.autograd.grad(log_p[:, y].sum(), learner.parameters))
        pairs += len(y) * len(y)
    return (total / pairs).square_()
