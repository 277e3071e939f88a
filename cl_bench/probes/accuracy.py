"""Both readings from the same logits: among all classes seen, and among the task's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from cl_bench.probes.readout import Readout


class Accuracy:
    """class_il: argmax over the classes seen so far (up to the task, where it lies ahead); task_il: over its own."""

    needs_logits: ClassVar[bool] = True

    def __call__(self, readout: Readout) -> Mapping[str, Tensor]:
        among = sorted({*readout.seen, *readout.classes})
        return {"class_il": self.share(readout, among), "task_il": self.share(readout, readout.classes)}

    @staticmethod
    def share(readout: Readout, classes: Sequence[int]) -> Tensor:
        mask = torch.full_like(readout.logits[0], -torch.inf)
        mask[list(classes)] = 0
        return ((readout.logits + mask).argmax(1) == readout.y).double().mean()


class Loss:
    """Mean cross-entropy in nats, among the classes seen so far."""

    needs_logits: ClassVar[bool] = True

    def __call__(self, readout: Readout) -> Mapping[str, Tensor]:
        mask = torch.full_like(readout.logits[0], -torch.inf)
        mask[sorted({*readout.seen, *readout.classes})] = 0
        return {"loss": torch.nn.functional.cross_entropy((readout.logits + mask).double(), readout.y)}
