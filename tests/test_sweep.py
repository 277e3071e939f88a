"""Sweeps in one process and by launchers: one table, failures told, a second time skipped."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from programs import run, seeds, start

SMALL = ["-m", "experiment=smoke", "seed=0,1"]


def test_sweep_twice_skips_and_says_so(tmp_path: Path) -> None:
    status, out, err = run(tmp_path, *SMALL, "strategy=sequential,er")
    assert (status, err) == (0, "") and out.count("starting") == 4 and out.count("┏") == 1
    (finished, *_) = folders = seeds(tmp_path)
    assert len(folders) == 4
    before = {file: file.read_bytes() for folder in folders for file in folder.iterdir() if file.is_file()}
    (finished / "summary.csv").unlink()  # this one did not come to its end
    status, out, err = run(tmp_path, *SMALL, "strategy=sequential,er")
    assert (status, err) == (0, "") and out.count("finished already, skipped") == 3 and out.count("starting") == 1
    assert all(file.read_bytes() == text for file, text in before.items() if file.name in ("metrics.jsonl", "summary.csv"))
    assert "er" in out and "sequential" in out.rpartition("┏")[2]


def test_a_failure_does_not_stop_the_others(tmp_path: Path) -> None:
    status, out, err = run(tmp_path, "-m", "experiment=smoke", "train.optimizer.lr=1e30,0.05", "tag=lr${train.optimizer.lr}")
    assert status == 2 and err.startswith("error: 1 of 2 runs failed: loss is") and err.count("\n") == 1
    assert [folder.parent.name for folder in seeds(tmp_path) if (folder / "summary.csv").exists()] == ["lr0.05"]
    assert out.count("┏") == 1


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_launchers(launcher: str, tmp_path: Path) -> None:
    if launcher == "joblib":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
        words = ["hydra.launcher.n_jobs=2"]
    else:
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher.submitit_launcher")
        words = []
    status, out, err = run(tmp_path, *SMALL, f"hydra/launcher={launcher}", *words, "runtime.threads=1")
    assert (status, err) == (0, "")
    assert [folder.name for folder in seeds(tmp_path) if (folder / "summary.csv").exists()] == ["seed0", "seed1"]
    assert out.count("┏") == 1 and "sequential" in out


def test_a_launchers_stop_lets_its_workers_save(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = [
        *SMALL,
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
        "runtime.threads=1",
        "train.epochs=3000",
        "runtime.save_seconds=1000",
    ]
    process, deadline = start(tmp_path, *words), time.time() + 120
    while sum("epoch" in log.read_text() for log in tmp_path.rglob("run.log")) < 2 and time.time() < deadline:
        time.sleep(0.05)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143 and "goes on from there" in err
    assert len([*tmp_path.rglob("checkpoint.pt")]) == 2 and not [*tmp_path.rglob(".lock")]


def test_a_search_names_its_best_and_skips_when_run_again(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    search = ["-m", "experiment=smoke", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "strategy=ewc", "look.part=valid"]
    search += ["scenario.valid_fraction=0.25", "strategy.strength=tag(log,interval(0.01,10.0))", 'tag="s${strategy.strength}"']
    for word, count in (("starting", 3), ("finished already, skipped", 3)):
        status, out, err = run(tmp_path, *search)
        assert status == 0 and "error" not in err and out.count(word) == count
        best = re.search(r"best of 3: ([\d.]+), (.+)", out)
        scores = []
        for folder in seeds(tmp_path):
            figures = dict(line.split(",") for line in (folder / "summary.csv").read_text().splitlines()[1:])
            scores.append((float(figures["class_il_average_accuracy"]) + float(figures["task_il_average_accuracy"])) / 2)
        assert best is not None and best[1] == f"{max(scores):.4f}" and len(scores) == 3
