"""PAINT: after fine-tuning, go back part of the way, as far as held-out examples of old and new tasks say."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from cl_bench.core.errors import ConfigError
from cl_bench.core.kinds import Count, Fraction, NonNegative, Positive, Whole
from cl_bench.core.learner import Learner
from cl_bench.core.types import Batch, Examples, Experience, Output, Stream
from cl_bench.interpolation.search import Settings
from cl_bench.mistakes import nearest, said
from cl_bench.scenarios.common import hold_out
from cl_bench.strategies.base import Strategy
from cl_bench.strategies.choice import Choice
from cl_bench.strategies.frozen_heads import fit
from cl_bench.strategies.segment import Held, Segment
from cl_bench.strategies.weights import flatten, split


class PAINT(Strategy):
    """PAINT (2208.05592): theta = (1 - a) theta_before + a theta_after over every floating tensor of the backbone, heads frozen.

    a by the search of that name on held-out examples of what is known and of the new task (`quasiconvex`: the least sum of
    normalised losses, which is quasi-convex in a). `supported` tasks are known from the start: no step is taken on them.
    mode `sequential`: each task from the last patched weights; `joint`: all at once; `parallel`: each from the first weights,
    theta_0 + a sum_i (theta_i - theta_0).
    """

    needs_boundaries: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = True
    needs_logits: ClassVar[bool] = True
    remembers = ("start", "origin", "reached", "met", "known", "rows")

    def __init__(
        self,
        *,
        supported: list[str],
        mode: Literal["sequential", "joint", "parallel"],
        search: Literal["quasiconvex", "grid", "golden", "brent", "accuracy", "fixed"],
        coefficient: float,
        low: float,
        high: float,
        extrapolate: bool,
        points: Count,
        tolerance: Positive,
        slack: NonNegative,
        normaliser: Literal["initial", "range", "log_classes", "none"],
        heads: Literal["frozen", "trained"],
        head_decay: NonNegative,
        head_steps: Count,
        held_out: Fraction,
        held_out_most: Count,
        norm_examples: Count,
        batch_size: Count,
        pairs: bool,
        survey: Whole,
        tests: bool,
    ):
        outside = [f"strategy.{k}={v}" for k, v in (("coefficient", coefficient), ("low", low), ("high", high)) if not 0 <= v <= 1]
        if outside and not extrapolate:
            raise ConfigError(f"{', '.join(outside)} lies outside 0 to 1; give less, or set strategy.extrapolate=true")
        if low >= high or (points < 2 and search in ("grid", "accuracy")) or survey == 1:
            raise ConfigError(
                f"strategy.low={low}, strategy.high={high}, strategy.points={points}, strategy.survey={survey}: "
                "give low < high, 2 points or more, and a survey of 0 or of 2 or more"
            )
        self.supported, self.mode, self.heads, self.normaliser, self.search = supported, mode, heads, normaliser, search
        self.settings = Settings(low, high, points, tolerance, slack, coefficient)
        self.head_decay, self.head_steps, self.batch_size, self.norm_examples = head_decay, head_steps, batch_size, norm_examples
        self.held_out, self.held_out_most = held_out, held_out_most
        self.pairs, self.survey, self.tests = pairs, survey, tests
        self.members: dict[int, Sequence[Experience]] = {}  # of an experience that stands for several

    def arrange(self, stream: Stream, seed: int) -> Stream:
        """Hold out where the scenario does not; joint makes one experience of all tasks that are not supported."""
        names = [e.name for e in stream.experiences]
        unknown = [name for name in self.supported if name not in names]
        if unknown:
            raise ConfigError(f"strategy.supported: there is no task {unknown[0]}; {nearest(str(unknown[0]), names)}")
        first, rest = (
            [self.hold_out(e, seed) for e in stream.experiences if (e.name in self.supported) == known] for known in (True, False)
        )
        if not rest or [e.name for e in first] != names[: len(first)]:
            raise ConfigError(
                f"strategy.supported={said(self.supported)} of the tasks {', '.join(names)}: "
                "supported tasks come first in the stream, and at least one other follows"
            )
        if self.mode == "joint" and len(rest) > 1:
            merged = replace(stream, experiences=tuple(rest)).merged().experiences[0]
            self.members = {merged.index: rest}
            rest = [merged]
        return replace(stream, experiences=(*first, *rest))

    def hold_out(self, e: Experience, seed: int) -> Experience:
        if e.valid is not None or not self.held_out:
            return e
        share = min(self.held_out, self.held_out_most / len(e.train))
        train, valid = hold_out(e.train, share, seed, e.index)
        return replace(e, train=train, valid=valid)

    def prepare(self, learner: Learner, stream: Stream) -> None:
        network = learner.network
        if not learner.objective.needs_labels:
            raise ConfigError("strategy=paint weighs losses of labelled examples; use objective=supervised or zero_shot")
        self.own_heads = any(p.requires_grad for p in network.head.parameters())  # else told beforehand, as by a text tower
        if self.own_heads and [tuple(p.shape[:1]) for p in network.head.parameters()] != [(stream.num_classes,)] * 2:
            raise ConfigError("strategy=paint fits linear heads, a row of weights and a bias for each class; use objective=supervised")
        if self.heads == "frozen":
            network.head.requires_grad_(False)
        learner.parameters = [p for p in network.parameters() if p.requires_grad]
        learner.new_optimizer()
        own = [t for t in network.backbone.state_dict(keep_vars=True).values() if t.is_floating_point()]
        tensors = own + [p for p in network.head.parameters() if p.requires_grad]
        self.segment = Segment(learner, tensors, sum(t.numel() for t in own), self.batch_size, self.norm_examples)
        self.origin = flatten(tensors)
        self.start, self.reached = self.origin.clone(), self.origin.clone()
        self.met = torch.zeros(stream.num_classes, dtype=torch.bool)
        self.known: list[str] = []
        self.rows: dict[str, list[dict[str, Any]]] = {"segments.csv": [], "searches.csv": [], "seconds.json": []}
        self.valid: dict[str, Held] = {}
        self.test: dict[str, Held] = {}
        self.open: dict[int, Tensor] = {}  # experience -> bool [C], or [C, C] by label: logits of the head that an example belongs to
        for e in stream.experiences:
            several = self.members.get(e.index, (e,))
            rows = torch.zeros(stream.num_classes, stream.num_classes, dtype=torch.bool)
            for member in several:
                rows[torch.tensor(member.classes)[:, None], torch.tensor(member.classes)] = True
                self._hold(learner, member, stream)
            self.open[e.index] = (rows if len(several) > 1 else rows.any(0)).to(learner.device)

    def _hold(self, learner: Learner, task: Experience, stream: Stream) -> None:
        if task.valid is None or not len(task.valid):
            raise ConfigError(
                f"strategy=paint: {task.name} has no held-out examples to choose the coefficient on; "
                "set strategy.held_out, for example 0.1, or scenario.valid_fraction"
            )
        closed = torch.ones(stream.num_classes, dtype=torch.bool, device=learner.device)
        closed[list(task.classes)] = False
        self.valid[task.name] = Held(task.name, "valid", task.valid.to(learner.device), closed)  # small, and read again and again
        if self.tests and task.name in stream.tests:
            self.test[task.name] = Held(task.name, "test", stream.tests[task.name].data, closed)

    def learns(self, task: Experience) -> bool:
        return task.name not in self.supported

    def loss(self, learner: Learner, batch: Batch) -> Output:
        assert isinstance(batch.task, int)
        rows = self.open[batch.task]
        return learner.teach(replace(batch, allowed=rows if rows.dim() == 1 else rows[batch.y]))

    def before_task(self, learner: Learner, task: Experience) -> None:
        if not self.learns(task):
            return
        if self.mode == "parallel":
            torch._foreach_copy_([t.detach() for t in self.segment.tensors], split(self.origin, self.segment.tensors))
        self.fit_heads(learner, task)
        self.start.copy_(flatten(self.segment.tensors))

    def fit_heads(self, learner: Learner, task: Experience) -> None:
        """Of classes not met before; of several tasks each one's own."""
        for member in self.members.get(task.index, (task,)):
            new = [c for c in member.classes if not self.met[c]]
            if new and self.own_heads:
                mine = torch.isin(member.train.y, torch.tensor(new)).nonzero().flatten()
                data = Examples(member.train.raw[mine], member.train.y[mine])
                fit(learner, learner.network.head, data, new, self.head_decay, self.head_steps, self.batch_size)
            self.met[new] = True

    def after_task(self, learner: Learner, task: Experience) -> None:
        names = [member.name for member in self.members.get(task.index, (task,))]
        if not self.learns(task):
            self.fit_heads(learner, task)
        elif self.mode == "parallel":
            end = flatten(self.segment.tensors)
            first = torch.equal(self.reached, self.origin)  # then to the bit
            self.reached.copy_(end if first else self.reached + (end - self.origin))
            self.choose(task.index, names, self.origin, self.reached)
        else:
            self.choose(task.index, names, self.start, flatten(self.segment.tensors))
        self.known += names

    def choose(self, after: int, new: Sequence[str], start: Tensor, end: Tensor) -> None:
        """Search, keep every row, leave the network at the chosen point."""
        self.segment.span(start, end, [self.valid[name] for name in (*self.known, *new)])
        choice = Choice(self.segment, self.valid, self.test, self.settings, self.search, self.normaliser, self.pairs)
        if self.known:
            coefficient = choice.decide(self.known, new)
            if self.pairs and len(self.known) * len(new) > 1:  # else it was one
                for s, p in itertools.product(self.known, new):
                    choice.decide([s], [p])
            choice.look_around(self.known, new, self.survey)
            self.said = [f"{row['kept']}, patched on {row['new']}: {row['note']}" for row in choice.decisions if row["note"]]
        else:
            coefficient = self.settings.coefficient if self.search == "fixed" else 1.0  # nothing to keep
        self.segment.move(coefficient)
        for kind, rows in choice.rows(self.known, new).items():
            self.rows[kind] += [{"after": after, "patched": "+".join(new), **row} for row in rows]

    def files(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        return self.rows
