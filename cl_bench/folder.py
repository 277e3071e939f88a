"""Run folders: claim, rows, tables, finished mark. No torch."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from filelock import FileLock, Timeout

from cl_bench import metrics
from cl_bench.core.errors import ConfigError
from cl_bench.mistakes import about, said

READINGS = ("class_il", "task_il", "knn_task", "knn_all", "linear_task", "linear_all")  # those whose matrices are kept
PARTS = (  # of a config: what a run is made of
    *("seed", "tag", "name", "scenario", "data", "datasets", "model", "objective", "strategy", "view", "train", "probe", "look"),
    *("match", "runtime"),
)
LOSS = "loss"  # nats, of text per token: less is better
Row = dict[str, Any]  # {"after": int, "on": str, "metric": str, "value": float}, and "step": int within an experience


@contextmanager
def named(path: Path) -> Iterator[None]:
    """A full disk's error does not say which file could not grow."""
    try:
        yield
    except OSError as error:
        raise error if error.filename else OSError(error.errno, error.strerror, str(path)) from error


def write(path: Path, text: str) -> None:
    """A kill leaves the old file or the new one, never half of one."""
    partial = path.with_name(path.name + ".partial")
    with named(partial):
        partial.write_text(text)
    partial.replace(path)


def backbone_file(step: int | None = None) -> str:
    """In a run's folder: the backbone as it was after this step of the first experience, or at the end."""
    return "backbone.safetensors" if step is None else f"backbone_step{step}.safetensors"


class RunFolder:
    """outputs/<scenario>_<data>/<model>/<objective>_<strategy>/<tag>/seed<k>/ while one process owns it."""

    def __init__(self, path: Path):
        self.path = path
        self.rows_file = path / "metrics.jsonl"
        self.checkpoint = path / "checkpoint.pt"
        self.lock = FileLock(path / ".lock")

    @property
    def finished(self) -> bool:
        return (self.path / "summary.csv").exists()

    def check(self, config: Mapping[str, Any]) -> None:
        """Refuse a folder that holds another configuration."""
        file = self.path / "config.yaml"
        if not file.exists():
            return
        try:
            old = yaml.safe_load(file.read_text())
        except (yaml.YAMLError, UnicodeDecodeError):
            old = None
        if not isinstance(old, Mapping):
            raise ConfigError(f"{file} is damaged; move its folder away, or give this run a tag of its own with tag=<name>")
        differing = differences(old, config)
        if differing:
            raise ConfigError(
                f"{self.path} holds a run with another configuration ({'; '.join(differing)}); "
                "give this one a tag of its own with tag=<name>"
            )

    def check_saved(self, wanted: bool | Sequence[int]) -> None:
        """Of a finished run: refuse runtime.save_backbone where it asks for more than was saved."""
        steps = [] if isinstance(wanted, bool) else wanted
        lacking = [name for name in map(backbone_file, [None, *steps] if wanted else []) if not (self.path / name).exists()]
        if lacking:
            raise ConfigError(
                f"{self.path} is finished and has no {lacking[0]}, which runtime.save_backbone={said(wanted)} asks for; "
                "give this run a tag=<name> of its own, or delete the folder to train it again"
            )

    def claim(self, config: Mapping[str, Any]) -> None:
        """Make the folder ours; the first claim writes config.yaml."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock.acquire(timeout=0)
            self.check(config)
            if not (self.path / "config.yaml").exists():
                write(self.path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))
        except Timeout:
            raise ConfigError(f"{self.path} is in use by another process; wait for it, or give this run a tag=<name>") from None
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be written: {about(error, 'runtime.outputs')}") from error

    def release(self) -> None:
        if not self.lock.is_locked:
            return
        (self.path / ".lock").unlink(missing_ok=True)  # while it is ours: nobody can wait on a name that is gone
        self.lock.release()

    def discard(self) -> None:
        """Leave nothing of a run that we hold and that never came to its first save."""
        if not self.lock.is_locked or self.checkpoint.exists():
            return
        self.release()
        shutil.rmtree(self.path)
        for parent in self.path.parents[:4]:  # up to the folder of outputs
            if any(parent.iterdir()):
                break
            parent.rmdir()

    def read_rows(self) -> list[Row]:
        if not self.rows_file.exists():
            return []
        return [json.loads(line) for line in self.rows_file.read_text().splitlines()]

    def append(self, rows: Iterable[Row]) -> None:
        with named(self.rows_file), self.rows_file.open("a") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))
            file.flush()
            os.fsync(file.fileno())

    def leave(self, files: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """What a strategy leaves: rows of one kind a file, x.csv or, for what differs from run to run, x.json."""
        for name, rows in files.items():
            lines = [tuple(rows[0]), *(map(str, row.values()) for row in rows)] if rows else []
            write(self.path / name, json.dumps(rows, indent=1) if name.endswith(".json") else _csv(lines))

    def cut(self, count: int) -> None:
        """Keep the first count rows: those that the checkpoint knows of."""
        lines = self.rows_file.read_bytes().splitlines(keepends=True)[:count] if self.rows_file.exists() else []
        if sum(line.endswith(b"\n") for line in lines) < count:
            raise ConfigError(f"{self.rows_file} lacks rows of the {count} at the last save; delete its folder to start this run again")
        if self.rows_file.exists():
            write(self.rows_file, b"".join(lines).decode())

    def finish(self, tests: Mapping[str, int], looks: Sequence[int], provenance: Mapping[str, Any]) -> None:
        """Tables, provenance, and last of all summary.csv, the finished mark.

        tests: name -> experience from which on it counts; looks: the experiences that end with an evaluation.
        """
        rows, tasks = [row for row in self.read_rows() if "step" not in row], list(tests)
        learned = [next(i for i, after in enumerate(looks) if after >= first) for first in tests.values()]
        figures: list[tuple[str, float]] = []
        for reading in READINGS:
            afters, cells = table(rows, reading, tasks)
            if not afters:
                continue
            write(self.path / f"accuracy_{reading}.csv", _table_text(afters, tasks, cells))
            matrix, before = full_matrix(afters, cells, looks)
            measured = [a for a in afters if a >= 0]
            lost = metrics.forgetting(matrix, learned)[[looks.index(a) for a in measured]]
            write(self.path / f"forgetting_{reading}.csv", _table_text(measured, tasks, lost))
            figures += [(f"{reading}_{name}", value) for name, value in metrics.summary(matrix, before, learned).items()]
        afters, cells = table(rows, LOSS, tasks)
        if afters:
            write(self.path / "loss.csv", _table_text(afters, tasks, cells))
            matrix, before = full_matrix(afters, cells, looks)
            measured = [a for a in afters if a >= 0]
            risen = metrics.forgetting(-matrix, learned)[[looks.index(a) for a in measured]]
            write(self.path / "loss_forgetting.csv", _table_text(measured, tasks, risen))
            figures += [(f"{LOSS}_{name}", value) for name, value in metrics.loss_summary(matrix, before, learned).items()]
        figures += [(r["metric"], r["value"]) for r in rows if r["on"] == "all" and r["after"] == looks[-1]]
        write(self.path / "provenance.json", json.dumps(provenance, indent=2) + "\n")
        write(self.path / "summary.csv", _csv([("metric", "value"), *((name, _cell(value)) for name, value in figures)]))
        self.checkpoint.unlink(missing_ok=True)


def score(folder: Path, figures: Sequence[str]) -> float:
    """Mean of these figures of a finished run; NaN if one is undefined."""
    with (folder / "summary.csv").open() as file:
        found = dict(csv.reader(file))
    return sum(float(found.get(name) or "nan") for name in figures) / len(figures)


def table(rows: Iterable[Row], metric: str, tasks: Sequence[str]) -> tuple[list[int], metrics.Matrix]:
    """(values of after, cells [len(after), T]) of one metric; NaN where not evaluated."""
    values = {(row["after"], row["on"]): row["value"] for row in rows if row["metric"] == metric}
    afters = sorted({after for after, _ in values})
    cells = [[values.get((after, task), math.nan) for task in tasks] for after in afters]
    return afters, np.array(cells, dtype=np.float64).reshape(len(afters), len(tasks))


def full_matrix(afters: Sequence[int], cells: metrics.Matrix, looks: Sequence[int]) -> tuple[metrics.Matrix, metrics.Matrix | None]:
    """([looks, T] with NaN rows where nothing was measured, the row before training if there is one)."""
    matrix = np.full((len(looks), cells.shape[1]), math.nan)
    for after, row in zip(afters, cells, strict=True):
        if after >= 0:
            matrix[looks.index(after)] = row
    return matrix, cells[afters.index(-1)] if -1 in afters else None


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Settings that differ and could change a number: not where and how fast a run goes."""
    a, b = _flat(old), _flat(new)
    return [f"{k}: {a.get(k, 'absent')} there, {b.get(k, 'absent')} here" for k in {**a, **b} if a.get(k) != b.get(k) and _matters(k, b)]


def digest(config: Mapping[str, Any]) -> str:
    """sha256 of all settings that could change a number."""
    flat = _flat(config)
    return hashlib.sha256(json.dumps({k: flat[k] for k in sorted(flat) if _matters(k, flat)}).encode()).hexdigest()


def _matters(key: str, flat: Mapping[str, Any]) -> bool:
    """A place does not, unless it is a user's own folder: there the place is the data. What else a preset has shows in PARTS."""
    if key.partition(".")[0] not in PARTS:
        return False
    if key.endswith(".root"):
        return str(flat.get(key.removesuffix("root") + "_target_", "")).endswith((".Folder", ".texts.Text", ".texts.Hub"))
    if key.startswith("runtime."):
        return key == "runtime.precision"
    return not key.endswith(".cache")


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


def _table_text(afters: Sequence[int], tasks: Sequence[str], cells: metrics.Matrix) -> str:
    return _csv([("after", *tasks), *((str(a), *map(_cell, row)) for a, row in zip(afters, cells, strict=True))])


def _csv(lines: Iterable[Iterable[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
