"""The reservoir: uniform, and equal to Vitter's loop."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from scipy.stats import chi2

from cl_bench.strategies.memory import LOTS, Balanced, Reservoir


@pytest.fixture
def fill(make_stream):
    def make(size: int, count: int, portions: list[int], seed: int) -> Reservoir:
        """Example n carries y = n, raw = n, task = n // 7."""
        memory = Reservoir(size, make_stream(1), torch.device("cpu"), None)
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
    copy = Reservoir(8, make_stream(1), torch.device("cpu"), None)
    copy.load_state_dict(fill(8, 30, [7], 0).state_dict())
    assert torch.equal(copy.y, fill(8, 30, [7], 0).y) and copy.num_seen == 30 and len(copy) == 8


def kept_by_hand(keys: list[int], classes: list[int], size: int) -> set[int]:
    """Rounds: each class gives its next lowest key; the last round, where not all fit, its lowest keys first."""
    queues = {c: sorted((k, n) for n, k in enumerate(keys) if classes[n] == c) for c in set(classes)}
    kept: list[int] = []
    while len(kept) < size and any(queues.values()):
        kept += [n for _, n in sorted(q.pop(0) for q in queues.values() if q)]
    return set(kept[:size])


@pytest.mark.parametrize("portions", [[1], [3], [7, 2], [40]])
@pytest.mark.parametrize("count", [3, 7, 8, 20, 40])
def test_balanced_keeps_what_the_rule_keeps_whatever_the_batches(make_stream, portions: list[int], count: int) -> None:
    classes = [(0, 0, 0, 0, 1, 0, 2, 0, 0, 3)[n % 10] if n < 30 else 1 for n in range(count)]
    memory, rng, n, turn = Balanced(7, make_stream(1), torch.device("cpu"), torch.zeros(2)), torch.Generator().manual_seed(3), 0, 0
    while n < count:
        take = min(portions[turn % len(portions)], count - n)
        place = torch.arange(n, n + take)
        raw = place.to(torch.uint8)[:, None, None, None].expand(-1, 1, 3, 3)
        memory.add(raw, torch.tensor(classes)[place], place, rng, place[:, None].float().expand(-1, 2))
        n, turn = n + take, turn + 1
        keys = torch.randint(LOTS, (count,), generator=torch.Generator().manual_seed(3)).tolist()
        kept = memory.task[: len(memory)].tolist()
        assert set(kept) == kept_by_hand(keys[:n], classes[:n], 7) and len(kept) == len(set(kept)) == min(n, 7)
    assert memory.y[: len(kept)].tolist() == [classes[n] for n in kept]
    raw, y, task, outputs = memory.draw(100, torch.Generator().manual_seed(0))
    assert set(task.tolist()) == set(kept) and torch.equal(raw[:, 0, 0, 0].long(), task) and torch.equal(outputs[:, 1].long(), task)
    again = Balanced(7, make_stream(1), torch.device("cpu"), torch.zeros(2))
    again.load_state_dict(memory.state_dict())
    for m in (memory, again):
        m.add(raw[:5], y[:5], 1000 + torch.arange(5), torch.Generator().manual_seed(1), outputs[:5])
    assert torch.equal(memory.task, again.task) and len(again) == len(memory)


def test_balanced_is_uniform_within_a_class(make_stream) -> None:
    times: Counter[int] = Counter()
    for seed in range(600):
        memory, rng = Balanced(8, make_stream(1), torch.device("cpu"), None), torch.Generator().manual_seed(seed)
        for n in range(0, 24, 4):  # class 0: 20 examples; class 1: 4
            place = torch.arange(n, n + 4)
            memory.add(torch.zeros(4, 1, 3, 3, dtype=torch.uint8), (place % 6 == 5).long(), place, rng)
        assert memory.y[:8].sum() == 4
        times.update(memory.task[:8][memory.y[:8] == 0].tolist())
    p = 4 / 20
    statistic = sum((times[n] - 600 * p) ** 2 for n in range(24) if n % 6 != 5) / (600 * p * (1 - p) * 20 / 19)
    assert len(times) == 20 and chi2.ppf(0.001, 19) < statistic < chi2.ppf(0.999, 19)


def test_a_memory_deals_without_replacement(make_stream) -> None:
    memory = Reservoir(6, make_stream(), torch.device("cpu"), None)
    rng = torch.Generator().manual_seed(0)
    memory.add(torch.zeros(6, 1, 3, 3), torch.arange(6), 0, rng)
    assert sorted(memory.deal(6, rng)[1].tolist()) == list(range(6)) and len(set(memory.deal(4, rng)[1].tolist())) == 4
    assert sorted(memory.deal(12, rng)[1].tolist()) == sorted([*range(6)] * 2)
    dealt = [memory.deal(6, rng)[1].tolist() for _ in range(5)]
    assert dealt[0] != dealt[1]


def test_the_reservoir_is_uniform_over_presentations(make_stream) -> None:
    """Three epochs of 20 images, offered in batches of 5: each presentation stays with chance 8 / 60, copies of one image included."""
    kept, runs, stream = torch.zeros(60), 600, make_stream()
    for run in range(runs):
        memory, rng = Reservoir(8, stream, torch.device("cpu"), None), torch.Generator().manual_seed(run)
        for begin in range(0, 60, 5):
            memory.add(torch.zeros(5, 1, 3, 3), torch.arange(begin, begin + 5), 0, rng)
        kept[memory.y] += 1
    expected = runs * 8 / 60
    assert ((kept - expected).square() / expected).sum() < 59 + 4 * math.sqrt(2 * 59)
