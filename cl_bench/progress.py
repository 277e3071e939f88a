"""What a waiting person sees: a live bar on a terminal, one plain line per epoch elsewhere, both in run.log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """Also keeps seconds per phase, for provenance.json."""

    def __init__(self, log: Path | None, live: bool):
        self.log, self.seconds = log, dict[str, float]()
        self.values: list[float] = []
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
        )
        self.bar = Bar(*columns, console=Console(stderr=True), transient=True) if live and sys.stderr.isatty() else None
        self.row: TaskID | None = None

    def say(self, line: str) -> None:
        if self.bar is None:
            print(line, flush=True)
        else:
            self.bar.console.print(line, highlight=False)
        self.note(line)

    def note(self, line: str) -> None:
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(line + "\n")

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            if self.bar is not None and name == "train":
                with self.bar:
                    yield
            else:
                yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def epoch(self, name: str, epoch: int, epochs: int, steps: int, first: int) -> None:
        self.label, self.start, self.values = f"{name} epoch {epoch + 1}/{epochs}", time.perf_counter(), []
        if self.bar is not None:
            if self.row is not None:
                self.bar.remove_task(self.row)
            self.row = self.bar.add_task(self.label, total=steps, completed=first, note="")

    def losses(self, values: list[float]) -> None:
        self.values += values
        if self.bar is not None and self.row is not None:
            rate = len(self.values) / max(1e-9, time.perf_counter() - self.start)
            self.bar.update(self.row, advance=len(values), note=f"loss {values[-1]:.4f}  {rate:.0f} steps/s")

    def end_epoch(self) -> None:
        seconds = max(1e-9, time.perf_counter() - self.start)
        mean = sum(self.values) / max(1, len(self.values))
        line = f"{self.label}: loss {mean:.4f}, {len(self.values) / seconds:.0f} steps/s"
        self.note(line) if self.bar is not None else self.say(line)
