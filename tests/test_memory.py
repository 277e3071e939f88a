"""The reservoir: uniform, and equal to Vitter's loop."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from scipy.stats import chi2

from cl_bench.strategies.memory import Reservoir


@pytest.fixture
def fill(make_stream):
    def make(size: int, count: int, portions: list[int], seed: int) -> Reservoir:
        """Example n carries y = n, raw = n, task = n // 7."""
        memory = Reservoir(size, make_stream(1), torch.device("cpu"))
        rng, n = torch.Generator().manual_seed(seed), 0
        while n < count:
            take = min(portions[n % len(portions)], count - n)
            y = torch.arange(n, n + take)
            memory.add(y.to(torch.uint8)[:, None, None, None].expand(-1, 1, 3, 3), y, y // 7, rng)
            n += take
        return memory

    return make


def test_reservoir_is_uniform_over_its_stream(fill) -> None:
    size, count, runs = 8, 30, 3000
    times = Counter(n for seed in range(runs) for n in fill(size, count, [7, 3, 1], seed).y.tolist())
    p = size / count
    spread = runs * p * (1 - p) * count / (count - 1)  # a memory never holds an example twice
    statistic = sum((times[n] - runs * p) ** 2 for n in range(count)) / spread
    assert chi2.ppf(0.001, count - 1) < statistic < chi2.ppf(0.999, count - 1)


@pytest.mark.parametrize("count", [3, 8, 30])
def test_reservoir_contents(fill, count: int) -> None:
    memory, again, other = (fill(8, count, [5], seed) for seed in (0, 0, 1))
    length = min(count, 8)
    assert len(memory) == length and memory.num_seen == count
    kept = memory.y[:length]
    assert len(set(kept.tolist())) == length and int(kept.max()) < count
    assert torch.equal(memory.raw[:length, 0, 0, 0].long(), kept) and torch.equal(memory.task[:length], kept // 7)
    assert torch.equal(memory.y, again.y) and torch.equal(memory.raw, again.raw)
    if count > 8:
        assert not torch.equal(memory.y, other.y)
        assert not torch.equal(kept, torch.arange(length))
    else:
        assert torch.equal(kept, torch.arange(count))


def test_reservoir_is_algorithm_r_whatever_the_batches(fill) -> None:
    """Vitter's loop over single examples, with the same numbers."""
    rng = torch.Generator().manual_seed(4)
    slots: list[int] = []
    for n in range(50):
        drawn = int(torch.rand(1, generator=rng, dtype=torch.float64) * (n + 1))
        if n < 8:
            slots.append(n)
        elif drawn < 8:
            slots[drawn] = n
    assert fill(8, 50, [1], 4).y.tolist() == slots
    assert fill(8, 50, [50], 4).y.tolist() == slots


def test_reservoir_draws_only_what_is_there(make_stream, fill) -> None:
    memory = fill(8, 3, [3], 0)
    raw, y, task = memory.draw(200, torch.Generator().manual_seed(0))
    assert set(y.tolist()) == {0, 1, 2} and raw.shape == (200, 1, 3, 3) and torch.equal(task, y // 7)
    copy = Reservoir(8, make_stream(1), torch.device("cpu"))
    copy.load_state_dict(fill(8, 30, [7], 0).state_dict())
    assert torch.equal(copy.y, fill(8, 30, [7], 0).y) and copy.num_seen == 30 and len(copy) == 8
