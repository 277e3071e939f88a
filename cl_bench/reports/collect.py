"""Run folders -> one data frame. Reads files only; summary.csv marks a finished run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from cl_bench.core.errors import ConfigError
from cl_bench.mistakes import nearest

AXES = ("scenario", "data", "model", "objective", "strategy", "tag", "seed")
KINDS = ("class_il", "task_il")
KNN = ("knn_all", "knn_task")  # of features, where a head has no classes
LOSS = "loss"  # in nats, less is better
ABOUT = ("parameters", "image_size", "folder", "config")  # what else is known of a run
OF_RUNS = ("run.log", "provenance.json", "metrics.jsonl")  # no other folder with a config.yaml has one of them
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast


def find_folders(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Finished and unfinished run folders under the given paths, each once."""
    missing = [str(path) for path in paths if not path.is_dir()]
    if missing:
        raise ConfigError(f"no such folder: {', '.join(missing)}. Give a folder of runs, such as outputs/.")
    configs = {file.parent.resolve() for path in paths for file in path.rglob("config.yaml")}
    found = sorted(folder for folder in configs if any((folder / name).exists() for name in OF_RUNS))
    finished = [folder for folder in found if (folder / "summary.csv").is_file()]
    return finished, [folder for folder in found if folder not in set(finished)]


def read_run(folder: Path) -> dict[str, object]:
    """Name, parameters, image size, cited figures and summary metrics of one finished run."""
    try:
        config = yaml.load((folder / "config.yaml").read_text(encoding="utf-8"), LOADER)
        name = config["name"]
        axes = {axis: int(name[axis]) if axis == "seed" else str(name[axis]) for axis in AXES}
        if config.get("look", {}).get("part") == "valid":
            axes["tag"] = f"{axes['tag']} (valid)"  # held-out training examples: never to be read as the test
        provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
        about = {"parameters": int(provenance["parameters"]), "image_size": image_size(config, provenance)}
        metrics = pd.read_csv(folder / "summary.csv").set_index("metric")["value"].astype(float)
        if metrics.empty:
            raise ValueError("summary.csv has no figures")
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"{folder} is not a readable run ({reason}). Repair it or move it away.") from error
    return {**axes, **about, "folder": str(folder), "config": config, **metrics.to_dict()}


def image_size(config: Mapping[str, Any], provenance: Mapping[str, Any]) -> str | None:
    """Pixels a side that the network saw: 28, or 28x32; None of text, or where neither file tells."""
    size = config.get("model", {}).get("image_size")
    sides = [size] if size else provenance.get("stream", {}).get("input_shape", [])[1:]
    return "x".join(dict.fromkeys(map(str, sides))) or None


def read_runs(paths: Sequence[Path]) -> pd.DataFrame:
    """One row a finished run: axes, what ABOUT names, then every metric of its summary.csv."""
    finished, unfinished = find_folders(paths)
    if not finished:
        given = ", ".join(str(path) for path in paths)
        raise ConfigError(f"no finished runs under {given} ({len(unfinished)} unfinished). Let a run end first.")
    return pd.DataFrame([read_run(folder) for folder in finished])


def matrix_file(folder: Path, kind: str) -> Path:
    return folder / ("loss.csv" if kind == LOSS else f"accuracy_{kind}.csv")


def read_matrix(folder: Path, kind: str) -> pd.DataFrame | None:
    """Accuracy or loss after each experience (rows) on each task (columns); None where this kind was not evaluated."""
    path = matrix_file(folder, kind)
    if not path.is_file():
        return None
    try:
        matrix = pd.read_csv(path).set_index("after").astype(float).sort_index()
    except (KeyError, ValueError) as error:  # pandas' own errors are of these
        raise ConfigError(f"{path} is no table ({error}). Repair it or move its run away.") from error
    return matrix[matrix.index >= 0]


def kinds_of(runs: pd.DataFrame) -> tuple[tuple[str, ...], ...]:
    """What is drawn together, where any run has it: accuracies of the head, of nearest neighbours, losses; the first where none has any."""
    found = [
        kinds for kinds in (KINDS, KNN, (LOSS,)) if any(matrix_file(Path(f), kind).is_file() for f in runs["folder"] for kind in kinds)
    ]
    return tuple(found) or (KINDS,)


def seen_average(folder: Path, kind: str) -> pd.Series | None:
    """Tasks learned -> mean accuracy in percent, or loss, over the tasks seen so far, undefined if one was not evaluated."""
    matrix = read_matrix(folder, kind)
    if matrix is None:
        return None
    by_task = len(matrix) and matrix.index[-1] + 1 == matrix.shape[1]  # else task-free, or one test for all
    rows = {after: row.iloc[: after + 1].mean(skipna=False) if by_task else row.mean() for after, row in matrix.iterrows()}
    means = {after + 1: (1 if kind == LOSS else 100) * mean for after, mean in rows.items()}
    return pd.Series(means, dtype=float).dropna()


def metric_names(runs: pd.DataFrame) -> list[str]:
    """Columns of read_runs that are metrics."""
    return [name for name in runs.columns if name not in {*AXES, *ABOUT}]


def check_names(kind: str, given: Iterable[str], allowed: Sequence[str]) -> None:
    """Stop at the first unknown name, with the nearest one and all that are allowed."""
    for name in given:
        if name not in allowed:
            raise ConfigError(f"{kind} {name} is not known; {nearest(name, allowed)}")
