"""What a method may do, and when. A method returns a loss; the loop owns the step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from cl_bench.core.learner import Learner
from cl_bench.core.types import Batch, Experience, Output, Stream


class Strategy:
    """Plain fine-tuning; a method overrides the moments it needs."""

    needs_boundaries: ClassVar[bool] = False
    remembers: tuple[str, ...] = ()  # attributes (tensors, numbers) that a restart needs
    said: Sequence[str] = ()  # what the last after_task met, for the run's log

    @property
    def remarks(self) -> list[str]:
        """What a reader of the run must know; said before training."""
        return []

    def arrange(self, stream: Stream, seed: int) -> Stream:
        """The same examples in other experiences (joint); seed is the run's, for what is drawn."""
        return stream

    def prepare(self, learner: Learner, stream: Stream) -> None:
        """Allocate everything; shapes never change afterwards."""

    def learns(self, task: Experience) -> bool:
        """Whether the loop takes steps on it; what has a closed form works in after_task alone, which then needs no announcement."""
        return True

    def before_task(self, learner: Learner, task: Experience) -> None:
        """Announced tasks only."""

    def after_task(self, learner: Learner, task: Experience) -> None:
        """Announced tasks, and what no steps are taken on."""

    def loss(self, learner: Learner, batch: Batch) -> Output:
        output = learner.teach(batch)
        return output.plus(self.terms(learner, batch, output))

    def terms(self, learner: Learner, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        """Named losses on top of the task's own."""
        return {}

    def after_backward(self, learner: Learner) -> None:
        """Gradients are there, the step is not yet taken."""

    def after_step(self, learner: Learner, batch: Batch, output: Output) -> None:
        """The step is taken: fill a memory."""

    def files(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Rows for files of the run folder, x.csv or x.json, as of now; written whole after each announced task."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.remembers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self.remembers:
            value = state[name]
            if isinstance(value, Tensor):
                getattr(self, name).copy_(value)  # in place: it may be a view of another tensor
            else:
                setattr(self, name, value)
