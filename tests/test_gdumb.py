"""GDumb and the cumulative bound: what each experience holds, and from where it is learned."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cl_bench.core.seeds import generator
from cl_bench.core.types import Examples, Experience, Stream
from cl_bench.strategies.compose import Compose
from cl_bench.strategies.gdumb import GDumb
from cl_bench.strategies.simple import Cumulative, Sequential


def labelled(*parts: list[int]) -> Stream:
    """Example n of the whole stream is a picture of n."""
    experiences, start = [], 0
    for t, labels in enumerate(parts):
        raw = torch.arange(start, start + len(labels)).to(torch.uint8)[:, None, None, None].expand(-1, 1, 3, 3)
        experiences.append(Experience(t, f"task{t}", Examples(raw, torch.tensor(labels)), tuple(sorted(set(labels)))))
        start += len(labels)
    return Stream(tuple(experiences), {}, max(max(labels) for labels in parts) + 1)


PARTS = ([0] * 30 + [1] * 9, [2] * 30 + [3] * 2, [0] * 5 + [4] * 20)


@pytest.mark.parametrize("size", [5, 12, 13, 200])
def test_gdumb_counts_follow_algorithm_1(size: int) -> None:
    """The paper's counters alone, without examples: they do not depend on what is drawn."""
    stream = labelled(*PARTS)
    counts: dict[int, int] = {}
    for e, given in zip(GDumb(memory_size=size).arrange(stream, seed=3).experiences, stream.experiences, strict=True):
        for n in torch.randperm(len(given.train), generator=generator(3, "order", e.index, 0)).tolist():
            y = int(given.train.y[n])
            counts.setdefault(y, 0)
            if counts[y] < size / len(counts):
                if sum(counts.values()) >= size:
                    counts[max(counts, key=lambda c: counts[c])] -= 1
                counts[y] += 1
        assert {c: int((e.train.y == c).sum()) for c in counts} == counts
        assert e.classes == stream.seen(e.index) == tuple(sorted(counts)) and len(e.train) <= size
        everything = Examples.concatenate([g.train for g in stream.experiences])
        places = e.train.raw[:, 0, 0, 0].long()
        assert len(places.unique()) == len(places) and torch.equal(everything.y[places], e.train.y)  # no example twice, each with its label
        assert int(places.max()) < sum(len(g.train) for g in stream.experiences[: e.index + 1])  # nothing of the future


def test_gdumb_memory_follows_the_seed() -> None:
    first, again, other = (GDumb(memory_size=10).arrange(labelled(*PARTS), seed) for seed in (0, 0, 1))
    pictures = [[e.train.raw[:, 0, 0, 0].tolist() for e in s.experiences] for s in (first, again, other)]
    assert pictures[0] == pictures[1] != pictures[2]
    whole, before = set(pictures[0][2]), set(pictures[0][1])
    assert {n for n in whole if n < 71} <= before  # old examples are only ever given up


def test_gdumb_refuses_a_memory_smaller_than_the_classes(error) -> None:
    assert "memory_size=4 is fewer than the 5 classes" in error(lambda: GDumb(memory_size=4).arrange(labelled(*PARTS), 0))


def test_gdumb_starts_every_task_from_the_initial_weights(make_learner, make_network, make_stream, train) -> None:
    """Its steps of each task are those of a network that saw that task alone, though the optimizer has moments."""
    stream = GDumb(memory_size=20).arrange(make_stream(3, 24), 0)

    def learner():
        made = make_learner(make_network())
        made.make_optimizer = lambda parameters: torch.optim.Adam(parameters, lr=0.01)
        made.new_optimizer()
        return made

    ours = train(learner(), GDumb(memory_size=20), stream, steps=3)
    for t, e in enumerate(stream.experiences):
        alone = train(learner(), Sequential(), replace(stream, experiences=(e,)), steps=3)
        assert all(torch.equal(a, b) for a, b in zip(ours[3 * t : 3 * t + 3], alone, strict=True))


def test_cumulative_holds_everything_so_far(make_stream) -> None:
    stream = make_stream(3)
    for number, (e, given) in enumerate(zip(Cumulative().arrange(stream, 0).experiences, stream.experiences, strict=True), start=1):
        expected = Examples.concatenate([g.train for g in stream.experiences[:number]])
        assert torch.equal(e.train.raw, expected.raw) and torch.equal(e.train.y, expected.y)
        assert (e.classes, e.merges, e.name, e.index) == (stream.seen(given.index), number, given.name, given.index)


@pytest.mark.parametrize("part", [GDumb(memory_size=9), Cumulative()])
def test_compose_refuses_who_arranges(ewc, error, part) -> None:
    assert type(part).__name__ in error(lambda: Compose(parts={"one": part, "ewc": ewc()}))


def test_gdumb_learns_batch_norm_statistics_anew_each_time(make_learner, make_network, make_stream, train) -> None:
    learner = make_learner(make_network(batch_norm=True))
    learner.batch_norm = "frozen"
    train(learner, GDumb(memory_size=8), make_stream(2), steps=3)
    means = [m.running_mean for m in learner.network.modules() if isinstance(m, torch.nn.BatchNorm1d)]
    assert means and all(mean.abs().sum() > 0 for mean in means)
