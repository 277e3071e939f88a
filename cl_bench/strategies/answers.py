"""One answer [B, C] from the answers of one expert per task, no task told: class c is asked of the task that owns it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cl_bench.core.types import Stream


def own_classes(stream: Stream) -> Tensor:
    """bool [T, C]: row n, the classes of the n-th experience."""
    rows = torch.zeros(len(stream.experiences), stream.num_classes, dtype=torch.bool)
    for n, e in enumerate(stream.experiences):
        rows[n, list(e.classes)] = True
    return rows


def owners(own: Tensor) -> Tensor:
    """int64 [T + 1, C] from own [T, C]: row n, who owns each class once n tasks have come; the latest to have it, -1 none."""
    rows = [torch.full_like(own[0], -1, dtype=torch.int64)]
    for n, classes in enumerate(own):
        rows.append(torch.where(classes, n, rows[-1]))
    return torch.stack(rows)


def answer(logits: Sequence[Tensor], owner: Tensor) -> Tensor:
    """logits of each expert [B, C], owner [C] -> [B, C], column c from the expert that owns class c."""
    index = owner.clamp(min=0).expand(1, *logits[0].shape)
    return below(torch.stack(list(logits)).gather(0, index)[0], owner >= 0)


def below(logits: Tensor, seen: Tensor) -> Tensor:
    """Classes not yet seen (bool [C]) lie one nat below the least of the seen: they cannot win, and a loss stays finite."""
    least = logits.masked_fill(~seen, torch.inf).amin(1, keepdim=True)
    return logits.where(seen, least.nan_to_num(posinf=0.0) - 1)
