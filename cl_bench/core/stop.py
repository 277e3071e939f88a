"""SIGTERM and Ctrl-C: between two steps the loop saves first; anywhere else the last save already holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from cl_bench.core.errors import Interrupted


class Stop:
    """Called, it tells the signal that came, or 0; `handle` is the signal handler."""

    def __init__(self) -> None:
        self.received, self.patient = 0, False

    def __call__(self) -> int:
        return self.received

    @contextmanager
    def between_steps(self) -> Iterator[None]:
        """While the loop looks at us after every step, the first signal waits for it."""
        self.patient = True
        try:
            yield
        finally:
            self.patient = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.received or not self.patient:
            raise Interrupted(number)
        self.received = number
