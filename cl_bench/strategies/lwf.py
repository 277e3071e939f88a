"""Learning without forgetting: new examples, answered as the old network answered them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from cl_bench.core.kinds import NonNegative, Positive
from cl_bench.core.learner import Learner
from cl_bench.core.types import Batch, Experience, Output, Stream
from cl_bench.strategies.base import Strategy
from cl_bench.strategies.teacher import Teacher


class LwF(Strategy):
    """LwF (1606.09282): strength * sum over old heads of KL(softmax(old / T) || softmax(new / T)), mean over the batch.

    Where tasks share logits (all, seen) the old classes are one head; under `own` each old task has its own.
    The paper's warm-up, the new head alone first, is left out.
    """

    needs_boundaries: ClassVar[bool] = True
    needs_logits: ClassVar[bool] = True

    def __init__(self, *, strength: NonNegative, temperature: Positive):
        self.strength, self.temperature = strength, temperature

    def prepare(self, learner: Learner, stream: Stream) -> None:
        self.teacher = Teacher(learner.network)
        self.heads: dict[int, list[Tensor]] = {}  # experience -> the old heads when it comes, those of a size [H, K] together
        for number, e in enumerate(stream.experiences[1:], start=1):
            before = stream.experiences[:number]
            old = [stream.seen(before[-1].index)] if learner.objective.shares_logits else sorted({b.classes for b in before})
            sizes = sorted({len(classes) for classes in old})
            self.heads[e.index] = [torch.tensor([c for c in old if len(c) == size], device=learner.device) for size in sizes]

    def before_task(self, learner: Learner, task: Experience) -> None:
        self.teacher.become(learner.network)

    def terms(self, learner: Learner, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        assert isinstance(batch.task, int)  # new examples come from one experience
        if batch.task not in self.heads or not self.strength:
            return {}
        with learner.fabric.autocast():
            old = self.teacher(output.views[0])
        return {"lwf": self.strength * distil(output.outputs, old, self.heads[batch.task], self.temperature)}

    def state_dict(self) -> dict[str, Any]:
        return {"teacher": self.teacher.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.teacher.load_state_dict(state["teacher"])


def distil(new: Tensor, old: Tensor, heads: Sequence[Tensor], temperature: float) -> Tensor:
    """Sum over heads, classes [H, K] of a size together, of KL(old || new) within a head; mean over new, old [..., C]."""

    def log_p(logits: Tensor, classes: Tensor) -> Tensor:  # [..., H, K]
        exact = logits.to(torch.promote_types(logits.dtype, torch.float32))  # half precision loses small differences
        return (exact.index_select(-1, classes.view(-1)).view(*new.shape[:-1], *classes.shape) / temperature).log_softmax(-1)

    parts = [F.kl_div(log_p(new, h), log_p(old, h), log_target=True, reduction="sum") for h in heads]
    return sum(parts[1:], parts[0]) / new[..., 0].numel()
