"""Final accuracy task by task, beside the figures that an experiment's config cites as `reference`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cl_bench.reports.collect import read_matrix
from cl_bench.reports.tables import cell, ordered


def references(runs: pd.DataFrame) -> dict[str, list[float]]:
    """row -> accuracy by task, from the runs' own config.yaml."""
    found: dict[str, list[float]] = {}
    for config in runs["config"]:
        found |= config.get("reference") or {}
    return found


def final_accuracy(runs: pd.DataFrame, by: Sequence[str], kind: str = "class_il") -> pd.DataFrame:
    """Rows: groups and references; columns: tasks, mean ± sample std over the group's runs, n."""
    lines, head = [], ", ".join(by)
    for key, group in ordered(runs, by).groupby(list(by), sort=False):
        matrices = [read_matrix(Path(folder), kind) for folder in group["folder"]]
        last = pd.concat([m.iloc[-1] for m in matrices if m is not None], axis=1)
        label = ", ".join(map(str, key if isinstance(key, tuple) else (key,)))
        n = last.shape[1]
        cells = {task: cell(float(row.mean()), float(row.std(ddof=1)), n, n) for task, row in last.iterrows()}
        lines.append({head: label, **cells, "n": str(n)})
    tasks = [column for column in lines[0] if column not in (head, "n")]
    for label, values in references(runs).items():
        lines.append({head: label, **{t: f"{v:.4f}" for t, v in zip(tasks, values)}, "n": "published"})
    return pd.DataFrame(lines, columns=[head, *tasks, "n"])
