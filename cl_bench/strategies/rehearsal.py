"""What replay methods share: a memory, filled after each step and drawn from at the next."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor

from cl_bench.core.kinds import Count
from cl_bench.core.learner import Learner
from cl_bench.core.types import Batch, Output, Stream
from cl_bench.strategies.base import Strategy
from cl_bench.strategies.memory import Balanced, Reservoir

MEMORIES = {"reservoir": Reservoir, "balanced": Balanced}


class Rehearsal(Strategy):
    """memory: `reservoir` keeps every example with the same chance, `balanced` gives every class the same share."""

    keeps_outputs: ClassVar[bool] = False

    def __init__(self, *, memory: Literal["reservoir", "balanced"], memory_size: Count, batch_size: Count):
        self.kind, self.memory_size, self.batch_size = memory, memory_size, batch_size

    def prepare(self, learner: Learner, stream: Stream) -> None:
        like = learner.parameters[0].detach().new_zeros(learner.objective.output_shape(stream)) if self.keeps_outputs else None
        self.memory = MEMORIES[self.kind](self.memory_size, stream, learner.device, like)

    def recall(self, learner: Learner, now: int | Tensor) -> tuple[Batch, list[Tensor]]:
        """Remembered examples as one batch, and their outputs where these are kept."""
        raw, y, task, *outputs = self.memory.draw(self.batch_size, learner.rng)
        # Under `seen` the old examples compete with all classes seen now, not with those of their own day.
        return learner.batch(raw, y, now if learner.objective.shares_logits else task), outputs

    def after_step(self, learner: Learner, batch: Batch, output: Output) -> None:
        outputs = output.outputs.detach() if self.keeps_outputs else None
        self.memory.add(batch.raw, batch.y, batch.task, learner.rng, outputs)

    def state_dict(self) -> dict[str, Any]:
        return self.memory.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.memory.load_state_dict(state)
