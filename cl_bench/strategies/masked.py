"""The control of every method for pretrained networks: the same class mask and nothing else."""

from __future__ import annotations

from typing import ClassVar, Literal

from cl_bench.core.kinds import Count
from cl_bench.core.learner import Learner
from cl_bench.core.types import Batch, Output, Stream
from cl_bench.objectives.supervised import Supervised
from cl_bench.strategies.base import Strategy
from cl_bench.strategies.er_ace import narrow
from cl_bench.strategies.frozen import Still, choose_parameters


class OwnClasses(Strategy):
    """In training, the logits of all classes but the experience's own are -inf (2112.08654's code: train_mask)."""

    needs_classes: ClassVar[bool] = True
    needs_logits: ClassVar[bool] = True

    def __init__(self, *, class_mask: bool):
        self.class_mask = class_mask

    def prepare(self, learner: Learner, stream: Stream) -> None:
        own = Supervised(loss_over="own").masks(stream)
        assert own is not None
        self.own = own.to(learner.device)

    def loss(self, learner: Learner, batch: Batch) -> Output:
        return super().loss(learner, narrow(batch, self.own[batch.task]) if self.class_mask else batch)


class Masked(OwnClasses):
    """Fine-tuning under the class mask, of the whole network or of the head alone."""

    needs_classes: ClassVar[bool] = True
    needs_logits: ClassVar[bool] = True

    def __init__(self, *, class_mask: bool, backbone: Literal["trained", "frozen"], batch_size: Count):
        super().__init__(class_mask=class_mask)
        self.backbone, self.batch_size = backbone, batch_size

    def prepare(self, learner: Learner, stream: Stream) -> None:
        super().prepare(learner, stream)
        if self.backbone == "frozen":
            learner.network.backbone = Still(learner.network.backbone.requires_grad_(False), learner, stream, self.batch_size)
            choose_parameters(learner)
