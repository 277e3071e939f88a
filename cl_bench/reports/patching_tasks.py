"""What patching leaves of the tasks that were known, beside what it learns of the new ones. Reads files only."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import yaml

from cl_bench.reports.collect import read_matrix
from cl_bench.reports.tables import cell, ordered

SHARES = ("supported before", "supported", "patched", "both")


def accuracies(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a run with supported tasks: mean accuracy, each task among its own classes, before the first patch and after the last.

    both: the mean of the two sides, which weigh the same however many tasks they have (2208.05592).
    """
    lines = []
    for run in runs.to_dict("records"):
        config = yaml.safe_load((Path(run["folder"]) / "config.yaml").read_text(encoding="utf-8"))
        supported, matrix = config["strategy"].get("supported"), read_matrix(Path(run["folder"]), "task_il")
        if not supported or matrix is None:
            continue
        last, new = matrix.iloc[-1], [name for name in matrix.columns if name not in supported]
        old, patched = last[supported].mean(), last[new].mean()
        values = (matrix.loc[len(supported) - 1, supported].mean(), old, patched, (old + patched) / 2)
        axes = {key: run[key] for key in ("data", "model", "tag", "seed")}
        lines.append({**axes, "mode": config["strategy"]["mode"], "search": config["strategy"]["search"], **dict(zip(SHARES, values))})
    return pd.DataFrame(lines)


def table(found: pd.DataFrame) -> pd.DataFrame:
    """Mean ± sample standard deviation over seeds: one row for each stream, model and tag."""
    by = ["data", "model", "tag", "mode", "search"]
    lines = []
    for key, group in ordered(found, by).groupby(by, sort=False):
        cells = {name: cell(group[name].mean(), group[name].std(ddof=1), group[name].count(), len(group)) for name in SHARES}
        lines.append({**dict(zip(by, key)), **cells, "n": len(group)})
    same = [name for name in ("data", "model") if found[name].nunique() == 1]  # nothing to tell apart
    return pd.DataFrame(lines).drop(columns=same)
