"""Lifelong unsupervised mixup: new images blended with remembered ones."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch

from cl_bench.core.errors import ConfigError
from cl_bench.core.kinds import Count, Positive
from cl_bench.core.learner import Learner, View
from cl_bench.core.types import Batch, Output, Stream
from cl_bench.strategies.base import Strategy
from cl_bench.strategies.memory import Reservoir


class LUMP(Strategy):
    """LUMP (2110.06976): the objective of mixed views, lam v + (1 - lam) m, one lam ~ Beta(alpha, alpha) a step; pairs without
    replacement, from a reservoir over presentations.

    m of view 1 is the stored image through `light`, m of view 2 the second view it had when it was stored; with
    buffer_view=ssl both are fresh views of it. With labels the loss is mixed by lam too (1710.09412).
    """

    needs_classes: ClassVar[bool] = True  # of text no blend means anything

    def __init__(self, *, memory_size: Count, alpha: Positive, buffer_view: Literal["stored", "ssl"], light: View):
        self.memory_size, self.alpha, self.buffer_view, self.light = memory_size, alpha, buffer_view, light

    def prepare(self, learner: Learner, stream: Stream) -> None:
        one = stream.experiences[0].train.raw[:1].to(learner.device)
        seen, light = learner.view(one, None), self.light(one, torch.Generator(learner.device))
        if seen.shape != light.shape:
            raise ConfigError(
                f"strategy.light gives images {list(light.shape[1:])} and the view {list(seen.shape[1:])}, which cannot be mixed; "
                "set strategy.light.size=<the view's size>, and size images by view.size, not model.image_size"
            )
        stored = seen[0] if self.buffer_view == "stored" else None
        self.memory = Reservoir(self.memory_size, stream, learner.device, stored)

    def loss(self, learner: Learner, batch: Batch) -> Output:
        views = learner.views(batch.raw)
        if not len(self.memory):
            return learner.judge(views, batch)
        raw, y, task, *stored = self.memory.deal(len(batch.y), learner.rng)
        lam = random.Random(int(torch.randint(1 << 62, (), generator=learner.rng))).betavariate(self.alpha, self.alpha)
        with learner.fabric.autocast():
            old = learner.views(raw) if self.buffer_view == "ssl" else [self.light(raw, learner.view_rng), *stored][: len(views)]
        mixed = [new.mul(lam).add_(then, alpha=1 - lam) for new, then in zip(views, old, strict=True)]
        output = learner.judge(mixed, batch)
        if learner.objective.needs_labels:
            before = learner.judge(mixed, learner.batch(raw, y, batch.task if learner.objective.shares_logits else task))
            output = replace(output, loss=lam * output.loss + (1 - lam) * before.loss)
        return replace(output, views=views)

    def after_step(self, learner: Learner, batch: Batch, output: Output) -> None:
        stored = output.views[-1] if self.buffer_view == "stored" else None
        self.memory.add(batch.raw, batch.y, batch.task, learner.rng, stored)

    def state_dict(self) -> dict[str, Any]:
        return self.memory.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.memory.load_state_dict(state)
