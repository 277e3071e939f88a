"""CODA-Prompt: prefixes mixed from components that the query weighs."""

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
from cl_bench.strategies.dualprompt import check_layers
from cl_bench.strategies.frozen import Once, choose_parameters
from cl_bench.strategies.masked import OwnClasses
from cl_bench.strategies.tokens import FrozenViT, PrefixAttention, check_vit, prefixed


class CODAPrompt(OwnClasses):
    """CODA-Prompt (2211.13218): prefix = sum_m cos(q * A_m, K_m) P_m, over the components of the tasks so far; old ones are fixed.

    loss + orthogonality * sum over layers and X in (K, A, P) of mean((X X' - I)^2). Half of P's length is keys, half values.
    """

    needs_boundaries: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = True
    needs_logits: ClassVar[bool] = True
    remembers = ("current",)

    def __init__(self, *, size: Count, length: Count, layers: list[Whole], orthogonality: NonNegative, class_mask: bool, batch_size: Count):
        super().__init__(class_mask=class_mask)
        if length % 2 or not layers:
            raise ConfigError(
                f"strategy.length={length} and strategy.layers={layers}: give an even length, for keys and values, and layers"
            )
        self.size, self.length, self.layers = size, length, layers
        self.orthogonality, self.batch_size = orthogonality, batch_size

    def prepare(self, learner: Learner, stream: Stream) -> None:
        super().prepare(learner, stream)
        vit: Any = learner.network.backbone
        check_vit("coda_prompt", vit)
        check_layers("coda_prompt", vit, self.layers)
        share = self.size // len(stream.experiences)
        if not share:
            raise ConfigError(
                f"strategy.size={self.size} components leave some of {len(stream.experiences)} tasks without one; give as many or more"
            )
        self.place = {e.index: n for n, e in enumerate(stream.experiences)}
        learner.reseed("prompts")
        query = Once(lambda x: prefixed(vit, x, {}), learner, stream, self.batch_size)
        self.coda = Coda(vit, query, self.layers, self.size, self.length, share)
        learner.network.backbone = self.coda.to(learner.parameters[0])
        choose_parameters(learner)

    @property
    def current(self) -> int:
        return self.coda.current

    @current.setter
    def current(self, number: int) -> None:
        self.coda.current = number

    def before_task(self, learner: Learner, task: Experience) -> None:
        self.current = self.place[task.index]

    def terms(self, learner: Learner, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        return {"orthogonality": self.orthogonality * self.coda.overlap()} if self.orthogonality else {}


class Coda(FrozenViT):
    """images -> class token [B, D]. prompts: [layers, M, L, D], keys and attention: [layers, M, D], in equal shares of the tasks."""

    def __init__(self, vit: Any, query: Once, layers: list[int], size: int, length: int, share: int):
        super().__init__(vit, query)
        self.layers, self.share, self.current = layers, share, 0
        for layer in layers:
            vit.blocks[layer].attn = PrefixAttention(vit.blocks[layer].attn)
        dim = vit.embed_dim
        self.prompts = nn.Parameter(torch.stack([orthogonal(size, length * dim).view(size, length, dim) for _ in layers]))
        self.keys, self.attention = (nn.Parameter(torch.stack([orthogonal(size, dim) for _ in layers])) for _ in range(2))

    def components(self) -> list[Tensor]:
        """Prompts, keys, attention of the tasks so far; in training, only those of the current task learn."""
        old, end = self.current * self.share, (self.current + 1) * self.share
        if not self.training:
            return [p[:, :end] for p in (self.prompts, self.keys, self.attention)]
        return [torch.cat([p[:, :old].detach(), p[:, old:end]], 1) for p in (self.prompts, self.keys, self.attention)]

    def overlap(self) -> Tensor:
        total = torch.zeros((), device=self.keys.device, dtype=self.keys.dtype)
        for part in self.components():
            flat = part.flatten(2)
            total = total + (flat @ flat.mT - torch.eye(flat.shape[1]).to(flat)).square().mean((1, 2)).sum()
        return total

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).to(self.keys)
        prompts, keys, attention = self.components()
        attended = F.normalize(query[:, None, None] * attention, dim=3)  # [B, layers, M, D]
        weight = (attended * F.normalize(keys, dim=2)).sum(3)
        mixed = torch.einsum("bnm,nmld->nbld", weight, prompts)
        half = mixed.shape[2] // 2
        return prefixed(self.vit, x, {layer: (p[:, :half], p[:, half:]) for layer, p in zip(self.layers, mixed, strict=True)})


def orthogonal(rows: int, columns: int) -> Tensor:
    return nn.init.orthogonal_(torch.empty(rows, columns))
