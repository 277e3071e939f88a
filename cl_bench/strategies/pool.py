"""A pool of prompts with a key each, and who takes which."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Selection = Literal["per_sample", "batchwise", "random"]


class Pool(nn.Module):
    """prompts [M, L, D], keys [M, D]; a query [B, D] takes the `top` keys at the least distance 1 - cosine.

    counts: how often each was taken in training; past: the same before this task, for the frequency penalty.
    """

    counts: Tensor
    past: Tensor

    def __init__(self, *, size: int, length: int, top: int, dim: int, selection: Selection, vote: int | None, penalty: bool):
        super().__init__()
        self.top, self.selection, self.vote, self.penalty = top, selection, vote, penalty
        self.prompts, self.keys = nn.Parameter(torch.empty(size, length, dim)), nn.Parameter(torch.empty(size, dim))
        self.register_buffer("counts", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("past", torch.zeros(size, dtype=torch.int64))
        self.chosen = nn.Identity()  # a name by which probes read the choice
        self.forced: Tensor | None = None  # int64 [B, top] or [top]: the prompts of the task, in training
        self.rng: torch.Generator | None = None  # of the step
        self.distance = torch.zeros(())  # of the last choice, summed over it, mean over the batch

    def forward(self, query: Tensor) -> Tensor:
        """[B, top * L, D]."""
        distance = 1 - F.normalize(query.to(self.keys), dim=1) @ F.normalize(self.keys, dim=1).t()
        if self.training and self.forced is not None:
            ids = self.forced.expand(len(query), self.top)
        elif self.selection == "random":
            ids = self.draw(len(query)).to(query.device)
        else:
            ids = self.nearest(distance.detach())
        ids = self.chosen(ids)
        self.distance = distance.gather(1, ids).sum(1).mean()
        if self.training:
            self.counts.index_add_(0, ids.flatten(), torch.ones_like(ids).flatten())  # bincount would wait for the device
        return self.prompts[ids].flatten(1, 2)

    def draw(self, count: int) -> Tensor:
        """A place in the batch draws the same at every look, so that looks agree."""
        rng = self.rng if self.training else torch.Generator().manual_seed(0)
        return torch.rand(count, len(self.keys), generator=rng).argsort(1)[:, : self.top]

    def nearest(self, distance: Tensor) -> Tensor:
        order = distance.argsort(dim=1, stable=True)  # of equal ones the lowest number
        if self.training and self.penalty:
            share = self.past / self.past.sum().clamp(min=1) + (self.past.sum() == 0)  # none is held back in the first task
            order = order.gather(1, (distance * share).gather(1, order).argsort(dim=1, stable=True))  # of equal ones the nearest
        ids = order[:, : self.top]
        return self.voted(ids) if self.selection == "batchwise" else ids

    def voted(self, ids: Tensor) -> Tensor:
        """The `top` most frequent of every `vote` samples, of equal ones the lowest; where there are fewer, the lowest there is."""
        size, among = self.vote or len(ids), len(self.keys)
        group = torch.arange(len(ids), device=ids.device) // size
        votes = torch.zeros(-(-len(ids) // size), among, dtype=torch.int64, device=ids.device)
        votes.index_add_(0, group, F.one_hot(ids, among).sum(1))
        count, winners = votes.sort(dim=1, descending=True, stable=True)
        lowest = (votes > 0).int().argmax(1, keepdim=True)
        return winners.where(count > 0, lowest)[:, : self.top][group]
