"""Final accuracy task by task, beside the figures that an experiment's config cites as `reference`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from cl_bench.reports.collect import read_matrix
from cl_bench.reports.tables import cell, ordered


def beside_published(runs: pd.DataFrame, by: Sequence[str]) -> Iterator[pd.DataFrame]:
    """One table a stream of which figures are cited: a reference is of the tasks of its own stream."""
    cited = runs[[bool(config.get("reference")) for config in runs["config"]]]
    for _, group in cited.groupby(["scenario", "data"], sort=False):
        yield final_accuracy(group, by)


def final_accuracy(runs: pd.DataFrame, by: Sequence[str], kind: str = "class_il") -> pd.DataFrame:
    """Of one stream's runs. Rows: groups and references; columns: tasks, mean ± sample std over the group's runs, n."""
    lines, head = [], ", ".join(by)
    for key, group in ordered(runs, by).groupby(list(by), sort=False):
        matrices = [read_matrix(Path(folder), kind) for folder in group["folder"]]
        last = pd.concat([m.iloc[-1] for m in matrices if m is not None], axis=1)
        label = ", ".join(map(str, key if isinstance(key, tuple) else (key,)))
        n = last.shape[1]
        cells = {task: cell(float(row.mean()), float(row.std(ddof=1)), n, n) for task, row in last.iterrows()}
        lines.append({head: label, **cells, "n": str(n)})
    tasks = [column for column in lines[0] if column not in (head, "n")]
    cited = {label: values for config in runs["config"] for label, values in (config.get("reference") or {}).items()}
    for label, values in cited.items():
        lines.append({head: label, **{t: f"{v:.4f}" for t, v in zip(tasks, values, strict=True)}, "n": "published"})
    return pd.DataFrame(lines, columns=[head, *tasks, "n"])
