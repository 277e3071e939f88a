"""Rehearsal: old examples beside the new ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from cl_bench.core.kinds import Count, NonNegative
from cl_bench.core.learner import Learner
from cl_bench.core.types import Batch, Output, Stream
from cl_bench.strategies.base import Strategy
from cl_bench.strategies.memory import Reservoir


class ER(Strategy):
    """Experience replay with a reservoir memory (1902.10486): loss(new) + strength * loss(remembered)."""

    def __init__(self, *, memory_size: Count, batch_size: Count, strength: NonNegative):
        self.memory_size, self.batch_size, self.strength = memory_size, batch_size, strength

    def prepare(self, learner: Learner, stream: Stream) -> None:
        self.memory = Reservoir(self.memory_size, stream, learner.device)

    def terms(self, learner: Learner, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        if not len(self.memory) or not self.strength:
            return {}
        raw, y, task = self.memory.draw(self.batch_size, learner.rng)
        # Under `seen` the old examples compete with all classes seen now, not with those of their own day.
        now = batch.task if learner.objective.shares_logits else task
        return {"replay": self.strength * learner.teach(learner.batch(raw, y, now)).loss}

    def after_step(self, learner: Learner, batch: Batch, output: Output) -> None:
        self.memory.add(batch.raw, batch.y, batch.task, learner.rng)

    def state_dict(self) -> dict[str, Any]:
        return self.memory.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.memory.load_state_dict(state)
