"""Replay with an asymmetric loss: what is new may not push down what is old."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch

from cl_bench.core.kinds import Count
from cl_bench.core.learner import Learner
from cl_bench.core.types import Batch, Output, Stream
from cl_bench.strategies.rehearsal import Rehearsal


class ERACE(Rehearsal):
    """ER-ACE (2104.05025): loss(new, over the batch's classes and those never seen) + loss(remembered, over all seen).

    Both within what the objective leaves open. The formula names the batch's classes alone; the authors' code opens the unseen ones too.
    """

    needs_classes: ClassVar[bool] = True
    needs_logits: ClassVar[bool] = True

    def __init__(self, *, memory: Literal["reservoir", "balanced"], memory_size: Count, batch_size: Count):
        super().__init__(memory=memory, memory_size=memory_size, batch_size=batch_size)

    def prepare(self, learner: Learner, stream: Stream) -> None:
        super().prepare(learner, stream)
        self.seen = torch.zeros(stream.num_classes, dtype=torch.bool, device=learner.device)

    def loss(self, learner: Learner, batch: Batch) -> Output:
        present = torch.zeros_like(self.seen).index_fill_(0, batch.y, True)
        output = learner.teach(narrow(batch, present | ~self.seen))
        self.seen |= present
        if not len(self.memory):
            return output
        old, _ = self.recall(learner, batch.task)
        return output.plus({"replay": learner.teach(narrow(old, self.seen)).loss})

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.seen.copy_(state["seen"])


def narrow(batch: Batch, classes: torch.Tensor) -> Batch:
    """Only classes bool [C] of the logits open to it."""
    return replace(batch, allowed=classes if batch.allowed is None else batch.allowed & classes)
