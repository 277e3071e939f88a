"""The two ends of every table: no method at all, and all data at once."""

from __future__ import annotations

from cl_bench.core.types import Stream
from cl_bench.strategies.base import Strategy


class Sequential(Strategy):
    """Fine-tune on one task after the other: the lower bound."""


class Joint(Strategy):
    """Train on the whole stream at once: the upper bound."""

    def arrange(self, stream: Stream) -> Stream:
        return stream.merged()
