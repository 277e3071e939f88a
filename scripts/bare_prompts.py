"""L2P as one writes it by hand: two passes through a frozen transformer, no queries kept."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from bare import Plain
from torch import Tensor, nn


class Prompted(nn.Module):
    """prompts [M, L, D], keys [M, D], counts [M] and head are those of a copy of ours."""

    def __init__(self, vit: Any, pool: Any, head: nn.Module, top: int):
        super().__init__()
        self.vit, self.prompts, self.keys, self.counts, self.head, self.top = vit.eval(), pool.prompts, pool.keys, pool.counts, head, top

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            query = self.vit.forward_features(x)[:, 0]
        similarity = F.normalize(query, dim=1) @ F.normalize(self.keys, dim=1).t()
        ids = similarity.topk(self.top).indices
        self.pull = (1 - similarity.gather(1, ids)).sum(1).mean()
        if torch.is_grad_enabled():
            self.counts += torch.bincount(ids.flatten(), minlength=len(self.counts))
        prompts = self.prompts[ids].flatten(1, 2)
        tokens = torch.cat([prompts, self.vit._pos_embed(self.vit.patch_embed(x))], 1)
        return self.head(self.vit.norm(self.vit.blocks(tokens))[:, : prompts.shape[1]].mean(1))


class L2P(Plain):
    """Cross-entropy among `own` classes, and the pull of keys."""

    def __init__(self, own: Tensor, pull: float):
        self.own, self.pull = own, pull

    def loss(self, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        logits = network(x).masked_fill(~self.own, -torch.inf)
        return F.cross_entropy(logits, y) + self.pull * network.pull
