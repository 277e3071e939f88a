"""What a waiting person sees: a live bar on a terminal, one plain line per epoch elsewhere, both in run.log."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from cl_bench.folder import named


class Progress:
    """Also keeps what a run costs, over all processes that worked on it, for provenance.json."""

    def __init__(self, log: Path | None, live: bool):
        self.log = log
        self.seconds = {"whole": 0.0}  # of phases that ended, and of earlier processes
        self.under_way = {"whole": time.perf_counter()}  # phase -> its start
        self.peak = self.resumed = 0
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
        self.looked = 0.0

    def say(self, line: str) -> None:
        if self.bar is None:
            print(line, flush=True)
        else:
            self.bar.console.print(line, highlight=False, markup=False, soft_wrap=True)
        self.note(line)

    def note(self, line: str) -> None:
        if self.log is not None:
            with named(self.log), self.log.open("a") as file:
                file.write(line + "\n")

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self.under_way[name] = time.perf_counter()
        try:
            if self.bar is not None and name == "train":
                with self.bar:
                    yield
                if self.row is not None:
                    self.bar.remove_task(self.row)
            else:
                yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - self.under_way.pop(name)

    def costs(self, device: torch.device) -> dict[str, Any]:
        """Seconds per phase, most memory of any process, how often resumed; in the midst of a phase too."""
        now, seconds = time.perf_counter(), dict(self.seconds)
        for name, start in self.under_way.items():
            seconds[name] = seconds.get(name, 0.0) + now - start
        return {
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
            "peak_memory_mib": max(self.peak, peak_memory_mib(device)),
            "resumed": self.resumed,
        }

    def resume(self, costs: Mapping[str, Any]) -> None:
        """Go on from what the processes before this one cost."""
        for name, value in costs["seconds"].items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value
        self.peak, self.resumed = costs["peak_memory_mib"], costs["resumed"] + 1

    def task(self, steps: int, done: int) -> None:
        """A bar of its own, over all steps of a task."""
        if self.bar is not None:
            self.row = self.bar.add_task("", total=steps, completed=done, note="")

    def epoch(self, label: str) -> None:
        self.label, self.start, self.values = label, time.perf_counter(), []
        if self.bar is not None and self.row is not None:
            self.bar.update(self.row, description=label)

    @property
    def stale(self) -> bool:
        """Whether a watched bar has stood still for a second."""
        return self.bar is not None and time.perf_counter() - self.looked > 1

    def losses(self, values: list[float]) -> None:
        self.looked = time.perf_counter()
        self.values += values
        if self.bar is not None and self.row is not None:
            rate = len(self.values) / max(1e-9, self.looked - self.start)
            self.bar.update(self.row, advance=len(values), note=f"loss {values[-1]:.4f}  {_rate(rate)}")

    def end_epoch(self) -> None:
        seconds = max(1e-9, time.perf_counter() - self.start)
        mean = sum(self.values) / max(1, len(self.values))
        line = f"{self.label}: loss {mean:.4f}, {_rate(len(self.values) / seconds)}"
        self.note(line) if self.bar is not None else self.say(line)


def _rate(steps: float) -> str:
    return f"{steps:.{0 if steps >= 10 else 2}f} steps/s"


def peak_memory_mib(device: torch.device) -> int:
    """Of the GPU where one is used, else of this process."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20)
    per_mib = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / per_mib)
