"""Starts the real program as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

QUIET = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "COLUMNS": "140"}


def start(folder: Path, *arguments: str, python: str = sys.executable) -> subprocess.Popen[str]:
    """`python -m cl_bench` in a folder of its own; outputs/ is made there."""
    return subprocess.Popen(
        [python, "-m", "cl_bench", *arguments],
        cwd=folder,
        env={**os.environ, **QUIET},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a signal of ours reaches it alone
    )


def run(folder: Path, *arguments: str, python: str = sys.executable) -> tuple[int, str, str]:
    """(status, standard output, standard error)."""
    process = start(folder, *arguments, python=python)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def seeds(folder: Path) -> list[Path]:
    """All run folders below."""
    return sorted(file.parent for file in folder.rglob("config.yaml"))


def one_line(outcome: tuple[int, str, str], *words: str) -> None:
    """Refused in one line that has these words."""
    status, _, err = outcome
    assert status == 2 and err.startswith("error: ") and err.count("\n") == 1, err
    assert not [word for word in words if word not in err], err
