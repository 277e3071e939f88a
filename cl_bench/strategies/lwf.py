"""Learning without forgetting: new examples, answered as the old network answered them."""

from __future__ import annotations

from collections.abc import Mapping
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
    """

    needs_boundaries: ClassVar[bool] = True
    needs_logits: ClassVar[bool] = True

    def __init__(self, *, strength: NonNegative, temperature: Positive):
        self.strength, self.temperature = strength, temperature

    def prepare(self, learner: Learner, stream: Stream) -> None:
        self.teacher = Teacher(learner.network)
        self.heads: dict[int, Tensor] = {}  # experience -> bool [heads, C], the old heads when it comes
        for number, e in enumerate(stream.experiences[1:], start=1):
            before = stream.experiences[:number]
            old = [stream.seen(before[-1].index)] if learner.objective.shares_logits else sorted({b.classes for b in before})
            heads = torch.zeros(len(old), stream.num_classes, dtype=torch.bool)
            for row, classes in zip(heads, old, strict=True):
                row[list(classes)] = True
            self.heads[e.index] = heads.to(learner.device)

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


def distil(new: Tensor, old: Tensor, heads: Tensor, temperature: float) -> Tensor:
    """Sum over heads bool [H, C] of KL(old || new), each softmax among the head's logits; mean over new, old [..., C]."""

    def log_p(logits: Tensor) -> Tensor:  # [..., H, C]; huge but finite outside the head, where -inf would make 0 * inf
        exact = logits.to(torch.promote_types(logits.dtype, torch.float32))  # half precision loses small differences
        return (exact.unsqueeze(-2) / temperature).masked_fill(~heads, torch.finfo(exact.dtype).min).log_softmax(-1)

    return F.kl_div(log_p(new), log_p(old), log_target=True, reduction="sum") / new[..., 0].numel()
