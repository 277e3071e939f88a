"""The ends of every table: no method at all, and all data, at once or kept for ever."""

from __future__ import annotations

from dataclasses import replace

from cl_bench.core.types import Examples, Stream
from cl_bench.strategies.base import Strategy


class Sequential(Strategy):
    """Fine-tune on one task after the other: the lower bound."""


class Joint(Strategy):
    """Train on the whole stream at once: the upper bound."""

    def arrange(self, stream: Stream, seed: int) -> Stream:
        return stream.merged()


class Cumulative(Strategy):
    """Train at each task on all examples so far: what a memory without limit gives.

    Under `own` the loss is over all classes seen, for old examples come with the new experience.
    """

    def arrange(self, stream: Stream, seed: int) -> Stream:
        whole = Examples.concatenate([e.train for e in stream.experiences])
        experiences, end = [], 0
        for number, e in enumerate(stream.experiences, start=1):
            end += len(e.train)
            train = Examples(whole.raw[:end], whole.y[:end])  # views: the data is there once
            experiences.append(replace(e, train=train, classes=stream.seen(e.index), merges=number))
        return replace(stream, experiences=tuple(experiences))
