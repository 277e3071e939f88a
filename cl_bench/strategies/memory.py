"""A fixed-size memory of raw examples, filled by reservoir sampling."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cl_bench.core.types import Stream


class Reservoir:
    """Every example of the stream so far is kept with the same chance (Vitter 1985, algorithm R).

    raw: uint8 [size, C, H, W], y and task: int64 [size], allocated at once. Counts are Python
    numbers and slots are drawn on the CPU, so that no write waits for the device.
    """

    def __init__(self, size: int, stream: Stream, device: torch.device):
        self.size, self.device, self.num_seen = size, device, 0
        self.raw = torch.zeros(size, *stream.input_shape, dtype=torch.uint8, device=device)
        self.y = torch.zeros(size, dtype=torch.int64, device=device)
        self.task = torch.zeros(size, dtype=torch.int64, device=device)

    def __len__(self) -> int:
        return min(self.size, self.num_seen)

    def add(self, raw: Tensor, y: Tensor, task: Tensor | int, rng: torch.Generator) -> None:
        count = len(y)
        places = torch.arange(self.num_seen, self.num_seen + count, dtype=torch.float64)
        drawn = (torch.rand(count, generator=rng, dtype=torch.float64) * (places + 1)).long().tolist()
        slots = [n if n < self.size else slot for n, slot in enumerate(drawn, start=self.num_seen)]
        self.num_seen += count
        winners = {slot: i for i, slot in enumerate(slots) if slot < self.size}  # of two claims the later stays
        if not winners:
            return
        to = torch.tensor(list(winners.keys()), device=self.device)
        source = torch.tensor(list(winners.values()), device=self.device)
        self.raw[to], self.y[to] = raw[source], y[source]
        self.task[to] = task[source] if isinstance(task, Tensor) else task

    def draw(self, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """count examples with replacement: raw, y, task."""
        index = torch.randint(0, len(self), (count,), generator=rng).to(self.device)
        return self.raw[index], self.y[index], self.task[index]

    def state_dict(self) -> dict[str, Any]:
        return {"raw": self.raw, "y": self.y, "task": self.task, "num_seen": self.num_seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("raw", "y", "task"):
            getattr(self, name).copy_(state[name])
        self.num_seen = state["num_seen"]
