"""DualPrompt: prefixes that all tasks share, and prefixes of each task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cl_bench.core.errors import ConfigError
from cl_bench.core.kinds import Count, NonNegative, Whole
from cl_bench.core.learner import Learner
from cl_bench.core.types import Batch, Experience, Output, Stream
from cl_bench.strategies.frozen import Once, choose_parameters
from cl_bench.strategies.masked import OwnClasses
from cl_bench.strategies.tokens import FrozenViT, PrefixAttention, check_vit, prefixed


class DualPrompt(OwnClasses):
    """DualPrompt (2204.04799): G-prompts for all, one E-prompt a task, as keys and values in front of early layers' own.

    Training uses the task's E-prompt, a test the one with the nearest key; loss + pull * (1 - cos(q(x), k_task)).
    """

    needs_boundaries: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = True
    needs_logits: ClassVar[bool] = True
    remembers = ("current",)

    def __init__(
        self,
        *,
        general_length: Count,
        general_layers: list[Whole],
        expert_length: Count,
        expert_layers: list[Whole],
        pull: NonNegative,
        init: list[float],
        class_mask: bool,
        batch_size: Count,
    ):
        super().__init__(class_mask=class_mask)
        if {*general_layers} & {*expert_layers} or not expert_layers:
            raise ConfigError(
                f"strategy.general_layers={general_layers} and strategy.expert_layers={expert_layers}: give each layer to one of them, "
                "and the experts at least one"
            )
        self.general, self.expert = (general_length, general_layers), (expert_length, expert_layers)
        self.pull, self.init, self.batch_size = pull, init, batch_size

    def prepare(self, learner: Learner, stream: Stream) -> None:
        super().prepare(learner, stream)
        vit: Any = learner.network.backbone
        check_vit("dualprompt", vit)
        check_layers("dualprompt", vit, [*self.general[1], *self.expert[1]])
        self.place = {e.index: n for n, e in enumerate(stream.experiences)}
        learner.reseed("prompts")
        query = Once(lambda x: prefixed(vit, x, {}), learner, stream, self.batch_size)
        self.dual = Dual(vit, query, self.general, self.expert, len(stream.experiences))
        for p in (self.dual.shared, self.dual.own, self.dual.keys):
            nn.init.uniform_(p, self.init[0], self.init[1])
        learner.network.backbone = self.dual.to(learner.parameters[0])
        choose_parameters(learner)

    @property
    def current(self) -> int:
        return self.dual.current

    @current.setter
    def current(self, number: int) -> None:
        self.dual.current = number

    def before_task(self, learner: Learner, task: Experience) -> None:
        self.current = self.place[task.index]

    def terms(self, learner: Learner, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        return {"pull": self.pull * self.dual.distance}


def check_layers(strategy: str, vit: Any, layers: list[int]) -> None:
    """Refuse blocks that are not there, and attention that is not timm's."""
    if max(layers, default=0) >= len(vit.blocks):
        raise ConfigError(f"strategy={strategy}: there is no layer {max(layers)}; this model has layers 0 to {len(vit.blocks) - 1}")
    for block in vit.blocks:
        if not hasattr(getattr(block, "attn", None), "qkv"):
            raise ConfigError(
                f"strategy={strategy} needs attention with keys and values of timm's; use model=vit_nano, vit_b or their like"
            )


class Dual(FrozenViT):
    """images -> class token [B, D]. shared: [layers, 2, L, D], own: [layers, tasks, 2, L, D], keys: [tasks, D]."""

    def __init__(self, vit: Any, query: Once, general: tuple[int, list[int]], expert: tuple[int, list[int]], tasks: int):
        super().__init__(vit, query)
        (length, self.general), (own_length, self.expert), dim, self.current = general, expert, vit.embed_dim, 0
        for layer in (*self.general, *self.expert):
            vit.blocks[layer].attn = PrefixAttention(vit.blocks[layer].attn)
        self.shared = nn.Parameter(torch.empty(len(self.general), 2, length, dim))
        self.own = nn.Parameter(torch.empty(len(self.expert), tasks, 2, own_length, dim))
        self.keys = nn.Parameter(torch.empty(tasks, dim))
        self.chosen = nn.Identity()  # a name by which probes read the choice
        self.distance = torch.zeros(())  # to the task's key, of the last batch

    def forward(self, x: Tensor) -> Tensor:
        distance = 1 - F.normalize(self.query(x).to(self.keys), dim=1) @ F.normalize(self.keys, dim=1).t()
        self.distance = distance[:, self.current].mean()
        if self.training:
            own = self.own[:, self.current, None].expand(-1, len(x), -1, -1, -1)
        else:  # experts to come know nothing yet
            ids = self.chosen(distance[:, : self.current + 1].argmin(1, keepdim=True))
            own = self.own[:, ids[:, 0]]
        parts = dict(zip(self.expert, own, strict=True))
        parts |= {layer: p.expand(len(x), -1, -1, -1) for layer, p in zip(self.general, self.shared, strict=True)}
        return prefixed(self.vit, x, {layer: (p[:, 0], p[:, 1]) for layer, p in parts.items()})
