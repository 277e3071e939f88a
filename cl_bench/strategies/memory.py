"""Fixed-size memories of raw examples: every example alike, or every class alike."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cl_bench.core.errors import ConfigError
from cl_bench.core.types import Stream

LOT_BITS = 40  # two of 2**40 lots are hardly ever equal
LOTS = 2**LOT_BITS


class Reservoir:
    """Every example of the stream so far is kept with the same chance (Vitter 1985, algorithm R).

    raw: [size, ...] as in the stream, y and task: int64 [size] and, where outputs are kept, outputs [size, ...] for one such
    as `like`, allocated at once. Counts are Python numbers and slots are drawn on the CPU, so that no write waits for the device.
    """

    def __init__(self, size: int, stream: Stream, device: torch.device, like: Tensor | None):
        self.size, self.device, self.num_seen = size, device, 0
        self.raw = torch.zeros(size, *stream.input_shape, dtype=stream.experiences[0].train.raw.dtype, device=device)
        self.y = torch.zeros(size, dtype=torch.int64, device=device)
        self.task = torch.zeros(size, dtype=torch.int64, device=device)
        self.columns = {"raw": self.raw, "y": self.y, "task": self.task}
        if like is not None:
            self.columns["outputs"] = like.new_zeros(size, *like.shape)

    def __len__(self) -> int:
        return min(self.size, self.num_seen)

    def add(self, raw: Tensor, y: Tensor, task: Tensor | int, rng: torch.Generator, outputs: Tensor | None = None) -> None:
        count = len(y)
        places = torch.arange(self.num_seen, self.num_seen + count, dtype=torch.float64)
        drawn = (torch.rand(count, generator=rng, dtype=torch.float64) * (places + 1)).long().tolist()
        slots = [n if n < self.size else slot for n, slot in enumerate(drawn, start=self.num_seen)]
        self.num_seen += count
        winners = {slot: i for i, slot in enumerate(slots) if slot < self.size}  # of two claims the later stays
        if not winners:
            return
        to = self.place(torch.tensor(list(winners.keys())))
        source = self.place(torch.tensor(list(winners.values())))
        new = {"raw": raw, "y": y, "task": task, "outputs": outputs}
        self.write(to, {k: v.index_select(0, source) if isinstance(v, Tensor) else v for k, v in new.items()})

    def place(self, numbers: Tensor) -> Tensor:
        """On the device, without waiting for it."""
        return numbers.to(self.device, non_blocking=True)

    def write(self, to: Tensor, new: dict[str, Any]) -> None:
        """Slots `to` take the new examples."""
        for name, column in self.columns.items():
            value = new[name]  # the index_ functions are the same as [], in half the time
            if isinstance(value, Tensor):
                column.index_copy_(0, to, value.to(column.dtype))
            else:
                column.index_fill_(0, to, value)

    def draw(self, count: int, rng: torch.Generator) -> tuple[Tensor, ...]:
        """count examples with replacement: raw, y, task and, where kept, outputs."""
        index = self.place(torch.randint(0, len(self), (count,), generator=rng))
        return tuple(column.index_select(0, index) for column in self.columns.values())

    def deal(self, count: int, rng: torch.Generator) -> tuple[Tensor, ...]:
        """count examples without replacement, the whole memory again and again where it holds fewer; columns as draw gives them."""
        shuffled = torch.randperm(len(self), generator=rng)
        index = shuffled[torch.arange(count) % len(self)].to(self.device)
        return tuple(column.index_select(0, index) for column in self.columns.values())

    def state_dict(self) -> dict[str, Any]:
        return {**self.columns, "num_seen": self.num_seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, column in self.columns.items():
            column.copy_(state[name])
        self.num_seen = state["num_seen"]


class Balanced(Reservoir):
    """Classes share the memory evenly, each by a uniform sample of its examples (aim of 2010.05595's balanced reservoir).

    Each example draws a lasting lot; it ranks among its class by lot, and the `size` lowest (rank, lot) stay. That
    depends neither on batches nor on counts, so the device decides alone: rejected writes go to a spare slot.
    """

    def __init__(self, size: int, stream: Stream, device: torch.device, like: Tensor | None):
        one_of_each("a balanced memory", size, stream)
        super().__init__(size + 1, stream, device, like)
        self.size = size
        self.columns["key"] = torch.zeros(size + 1, dtype=torch.int64, device=device)  # class * LOTS + lot: one sort orders by both

    def add(self, raw: Tensor, y: Tensor, task: Tensor | int, rng: torch.Generator, outputs: Tensor | None = None) -> None:
        key = self.place(torch.randint(LOTS, (len(y),), generator=rng)).add(y, alpha=LOTS)
        new = {"raw": raw, "y": y, "task": task, "outputs": outputs, "key": key}
        held, room = len(self), max(0, self.size - self.num_seen)
        self.num_seen += len(y)
        if room:
            first = {k: v[:room] if isinstance(v, Tensor) else v for k, v in new.items()}
            self.write(torch.arange(held, len(self), device=self.device), first)
            new = {k: v[room:] if isinstance(v, Tensor) else v for k, v in new.items()}
        if len(y) > room:
            self.write(self._slots(key[room:]), new)

    def _slots(self, key: Tensor) -> Tensor:
        """Of a full memory: where each new example goes, the spare slot if it does not stay."""
        keys, order = torch.cat([self.columns["key"][: self.size], key]).sort()
        label = keys >> LOT_BITS
        rank = torch.arange(len(keys), device=self.device) - torch.searchsorted(label, label)
        leaves = order.index_select(0, keys.add(rank - label, alpha=LOTS).topk(len(key), sorted=False).indices)
        free = leaves.clamp(max=self.size).sort().values  # as many held examples leave as new ones stay; then the spare slot
        stays = torch.ones(len(keys), dtype=torch.bool, device=self.device).index_fill_(0, leaves, False)[self.size :]
        return torch.full_like(key, self.size).masked_scatter_(stays, free)

    def draw(self, count: int, rng: torch.Generator) -> tuple[Tensor, ...]:
        return super().draw(count, rng)[:-1]  # without the key


def one_of_each(what: str, size: int, stream: Stream) -> None:
    """Refuse a memory that cannot hold every class, and text, which has none."""
    if stream.is_text:
        raise ConfigError(f"{what} keeps examples by class, and text has no classes; use strategy=er, der or derpp")
    if size < stream.num_classes:
        raise ConfigError(
            f"strategy.memory_size={size} is fewer than the {stream.num_classes} classes of the stream, "
            f"and {what} keeps at least one example of each; give {stream.num_classes} or more"
        )
