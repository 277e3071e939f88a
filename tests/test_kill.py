"""kill -9, SIGTERM and Ctrl-C at random moments: the run that goes on equals the run that never stopped."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import pytest
from programs import run, seeds, start

COMMAND = [
    "experiment=smoke",
    "strategy=er_ewc",
    "strategy.parts.ewc.samples=null",
    "strategy.parts.er.memory_size=20",
    "train=adam",
    "train.epochs=25",
    "train.batch_size=4",
    "runtime.save_seconds=0",
    "runtime.save_backbone=true",
]
KILLS = 5


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    assert run(folder, *COMMAND)[0] == 0
    (found,) = seeds(folder)
    return found


def stop_at(folder: Path, seconds: float, number: signal.Signals) -> tuple[int, str]:
    """Send the signal that many seconds after the first save of this process; (status, stderr)."""
    process = start(folder, *COMMAND)
    began, deadline = time.time(), time.time() + 120
    while process.poll() is None and time.time() < deadline:
        if any(file.stat().st_mtime > began for file in folder.rglob("checkpoint.pt")):
            break
        time.sleep(0.005)
    time.sleep(seconds)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def same(a: Path, b: Path) -> None:
    for name in ("metrics.jsonl", "summary.csv", "accuracy_class_il.csv", "backbone.safetensors"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    assert not (b / "checkpoint.pt").exists()


def test_killed_runs_resume_to_the_same_bytes(unbroken: Path, tmp_path: Path) -> None:
    moments = random.Random()
    killed = 0
    for _ in range(KILLS):
        status, _ = stop_at(tmp_path, moments.uniform(0, 0.25), signal.SIGKILL)
        killed += status == -signal.SIGKILL
    assert killed == KILLS  # none of them came to its end
    status, out, err = run(tmp_path, *COMMAND)
    assert (status, err) == (0, "") and "resuming" in out
    (folder,) = seeds(tmp_path)
    same(unbroken, folder)
    assert json.loads((folder / "provenance.json").read_text())["resumed"] == KILLS


def test_sigterm_and_ctrl_c_save_and_say_so(unbroken: Path, tmp_path: Path) -> None:
    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        found, err = stop_at(tmp_path, 0.1, number)
        assert found == status and err.count("\n") == 1 and "goes on from there" in err
    assert run(tmp_path, *COMMAND)[0] == 0
    (folder,) = seeds(tmp_path)
    same(unbroken, folder)
