"""What the nearest training images say of a test image: features judged without a head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cl_bench.core.errors import ConfigError
from cl_bench.core.kinds import Count, Positive
from cl_bench.core.learner import Learner
from cl_bench.core.types import Examples, Stream
from cl_bench.probes.moment import PENULTIMATE, Moment, MomentProbe, Row


class Banks(MomentProbe):
    """A probe that also wants the features of every test's training images, in the views that draw nothing."""

    num_classes: int

    def prepare(self, learner: Learner, stream: Stream, held_out: Mapping[str, Examples]) -> None:
        train = {e.index: e.train for e in stream.experiences}
        several = [e.name for e in stream.experiences if not e.announced]
        if several:
            raise ConfigError(f"probe=knn asks for the training images of a task, and this stream tells none ({several[0]}); leave it out")
        self.banks = {on: train[test.task] for on, test in stream.tests.items()}
        self.num_classes = stream.num_classes

    def bank(self, moment: Moment, on: str) -> tuple[Tensor, Tensor]:
        """(features [N, D], y [N]) of one test's training images, read once a moment."""
        found = moment.features(f"train of {on}", self.banks[on])
        return found, self.banks[on].y.to(found.device)


class KNN(Banks):
    """Weighted k nearest neighbours (1805.01978): cosine, votes exp(similarity / temperature).

    knn_task: the bank is the training images of the test's own task, so the task is told. knn_all: of all tasks looked at.
    k_rule: `fixed` refuses a bank smaller than k, `cap` takes all of it (2110.06976's first code), `tasks` takes as many
    neighbours as tasks are looked at (its code since October 2022, a fault). Memory: chunk x bank similarities at a time.
    """

    def __init__(self, *, k: Count, temperature: Positive, k_rule: Literal["fixed", "cap", "tasks"], chunk: Count):
        self.k, self.temperature, self.k_rule, self.chunk = k, temperature, k_rule, chunk

    def prepare(self, learner: Learner, stream: Stream, held_out: Mapping[str, Examples]) -> None:
        super().prepare(learner, stream, held_out)
        on, bank = min(self.banks.items(), key=lambda item: len(item[1]))
        if self.k_rule == "fixed" and self.k > len(bank):
            raise ConfigError(
                f"probe.knn.k={self.k} is above the {len(bank)} training images of {on}; give {len(bank)} or less, or probe.knn.k_rule=cap"
            )

    def __call__(self, moment: Moment) -> Iterator[Row]:
        assert moment.learner is not None
        banks = {held.on: self.bank(moment, held.on) for held in moment.held}
        every, labels = (torch.cat(parts) for parts in zip(*banks.values(), strict=True))
        every = F.normalize(every)
        for held in moment.held:
            found, (bank, y) = held.features[PENULTIMATE].float(), banks[held.on]
            own = moment.learner.network.own
            told = self.share(own(found, held.task), F.normalize(own(bank, held.task)), y, held.y, len(banks))
            yield moment.row(held.on, "knn_task", told)
            yield moment.row(held.on, "knn_all", self.share(found, every, labels, held.y, len(banks)))

    def share(self, queries: Tensor, bank: Tensor, labels: Tensor, y: Tensor, tasks: int) -> Tensor:
        """How many are right."""
        k = min(tasks if self.k_rule == "tasks" else self.k, len(bank))
        scores = votes(queries, bank, labels, self.num_classes, k, self.temperature, self.chunk)
        return (scores.argmax(1) == y).double().mean()


def votes(queries: Tensor, bank: Tensor, labels: Tensor, num_classes: int, k: int, temperature: float, chunk: int) -> Tensor:
    """[N, C] from queries [N, D] and a bank [M, D] of unit length; no more than chunk x M similarities at once."""
    found = []
    for part in queries.split(chunk):
        near, index = (F.normalize(part) @ bank.T).topk(k, sorted=False)
        weight = (near / temperature).exp_()
        found.append(weight.new_zeros(len(part), num_classes).scatter_add_(1, labels[index], weight))
    return torch.cat(found)


class Linear(Banks):
    """Multinomial logistic regression on standardised features, its own penalty decay * |W|^2 / 2 a sample: convex, so no draws.

    linear_task: among the task's own classes, from its training images; linear_all: of all tasks looked at.
    """

    def __init__(self, *, decay: Positive, iterations: Count):
        self.decay, self.iterations = decay, iterations

    def __call__(self, moment: Moment) -> Iterator[Row]:
        assert moment.learner is not None
        banks = {held.on: self.bank(moment, held.on) for held in moment.held}
        every, labels = (torch.cat(parts) for parts in zip(*banks.values(), strict=True))
        whole = Logistic(every, labels, self.num_classes, self.decay, self.iterations)
        for held in moment.held:
            found, (bank, y) = held.features[PENULTIMATE].float(), banks[held.on]
            own = moment.learner.network.own
            told = Logistic(own(bank, held.task), y, self.num_classes, self.decay, self.iterations)
            yield moment.row(held.on, "linear_task", (told(own(found, held.task)).argmax(1) == held.y).double().mean())
            yield moment.row(held.on, "linear_all", (whole(found).argmax(1) == held.y).double().mean())


class Logistic:
    """Fitted on x [N, D], y [N]; a call gives logits [M, C], classes never seen the lowest."""

    def __init__(self, x: Tensor, y: Tensor, num_classes: int, decay: float, iterations: int):
        self.mean, self.std = x.mean(0), x.std(0).clamp(min=1e-6)
        x = self.standard(x)
        there = torch.zeros(num_classes, dtype=torch.bool, device=x.device)
        there[y] = True
        self.closed = torch.zeros(num_classes, device=x.device, dtype=x.dtype).masked_fill_(~there, -torch.inf)
        with torch.inference_mode(False), torch.enable_grad():
            x, y = x.clone(), y.clone()  # of inference tensors
            closed = self.closed.clone()
            weight = torch.zeros(num_classes, x.shape[1], device=x.device, dtype=x.dtype, requires_grad=True)
            bias = torch.zeros(num_classes, device=x.device, dtype=x.dtype, requires_grad=True)
            solver = torch.optim.LBFGS([weight, bias], max_iter=iterations, tolerance_grad=1e-7, line_search_fn="strong_wolfe")

            def closure() -> Tensor:
                solver.zero_grad()
                loss = F.cross_entropy(x @ weight.T + bias + closed, y) + 0.5 * decay * weight.square().sum()
                loss.backward()
                return loss

            solver.step(closure)
        self.weight, self.bias = weight.detach(), bias.detach()

    def standard(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def __call__(self, x: Tensor) -> Tensor:
        return self.standard(x) @ self.weight.T + self.bias + self.closed
