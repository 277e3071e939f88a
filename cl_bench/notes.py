"""What the jobs of a sweep, in whatever processes, note for the process that launched them, and how it has them stop."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

FILE = "CL_BENCH_NOTES"  # names the file
PATIENCE = 60.0  # seconds for a save
STARTED, STOPPED = "started", "stopped"  # keys of the lines about processes; the others are about runs


def begin(folder: Path) -> None:
    """From now on this process is the launcher."""
    os.environ[FILE] = str((folder / f"{_here()}.jsonl").resolve())


def kept() -> bool:
    """Whether there is a sweep."""
    return FILE in os.environ


def of_worker() -> bool:
    """Whether another process launched this one's jobs."""
    return kept() and Path(os.environ[FILE]).stem != _here()


def add(line: Mapping[str, Any]) -> None:
    file = Path(os.environ[FILE])
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as end:
        end.write(json.dumps(line) + "\n")


def read() -> list[dict[str, Any]]:
    """All lines so far."""
    file = Path(os.environ[FILE])
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def close() -> list[dict[str, Any]]:
    """The lines about runs; the file goes."""
    lines = [line for line in read() if not {STARTED, STOPPED} & {*line}]
    Path(os.environ[FILE]).unlink(missing_ok=True)
    return lines


def started() -> None:
    add({STARTED: os.getpid(), "of": os.getppid()})


def stopped() -> None:
    add({STOPPED: os.getpid()})


def stop_workers(number: int) -> None:
    """Our own children save before their launcher ends them: joblib's teardown would give them no time."""
    for pid in _busy() if number == signal.SIGTERM else ():  # a terminal sends Ctrl-C to all of them itself
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGUSR1)
    give_up = time.monotonic() + PATIENCE
    while _busy() and time.monotonic() < give_up:
        time.sleep(0.05)


def _busy() -> set[int]:
    times: Counter[int] = Counter()
    for line in read():
        if line.get("of") == os.getpid():
            times[line[STARTED]] += 1
        elif STOPPED in line:
            times[line[STOPPED]] -= 1
    return {pid for pid, more in times.items() if more > 0}


def _here() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"
