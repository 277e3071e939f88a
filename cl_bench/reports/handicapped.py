"""Scratch models beside pretrained ones that were handicapped until they agree on task A: who then forgets less?

Two protocols (ours; the paper's is not public): `stopped`, task A ended at the scratch run's held-out accuracy; `slowed`, of the
runs at several rates in task A the one whose held-out accuracy on it is nearest. The gap that is left on the test stands beside.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cl_bench.reports.collect import read_matrix
from cl_bench.reports.settings import described
from cl_bench.reports.tables import cell, ordered

KEYS = ["scenario", "data", "model", "rate", "finetuning_steps", "seed"]  # what a scratch run and its handicapped twin share
VALID = "valid_task_il"  # of match.py


def read(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a run of conf/experiment/scale: KEYS, init, start, slow; accuracy on A, held-out and test, forgetting of A, test on B."""
    found = []
    for _, run in described(runs).iterrows():
        folder = Path(run["folder"])
        matrix = read_matrix(folder, "task_il")
        if "row" not in run["config"] or "match" not in run["config"] or matrix is None:
            continue
        a = matrix.iloc[:, 0]
        test = {"a": a.iloc[0], "forgetting": a.iloc[0] - a.iloc[-1], "b": matrix.iloc[-1, -1]}
        names = {**run[[*KEYS, "start", "slow"]].to_dict(), "init": run["config"]["model"]["init"]}
        found.append({**names, "valid": held_out(folder), **test})
    return pd.DataFrame(found).fillna({"finetuning_steps": 0})  # of runs that count epochs


def held_out(folder: Path) -> float:
    """Accuracy on held-out examples of the first task, when it was learned."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return float(next(r["value"] for r in rows if r["metric"] == VALID and r["after"] == 0))


def pairs(table: pd.DataFrame) -> pd.DataFrame:
    """One row a scratch run and protocol: both runs' figures, chosen on held-out examples alone."""
    found = []
    for _, scratch in table[table["start"] == "scratch"].iterrows():
        same = table[(table[KEYS] == scratch[KEYS]).all(axis=1)]
        several = same["init"].isin(same.loc[same["start"] == "slowed", "init"])  # the backbone that was tried at several rates
        slowed = same[several & same["start"].isin(["slowed", "pretrained"])]
        for protocol, runs in (("stopped", same[same["start"] == "stopped"]), ("slowed", slowed)):
            if len(runs):
                found.append(_pair(scratch, runs.loc[(runs["valid"] - scratch["valid"]).abs().idxmin()], protocol))
    return pd.DataFrame(found)


def _pair(scratch: Mapping[str, Any], twin: Mapping[str, Any], protocol: str) -> dict[str, Any]:
    figures = {
        f"{name} {column}": run[column] for column in ("a", "forgetting", "b") for name, run in (("scratch", scratch), (protocol, twin))
    }
    figures = {key.replace(protocol, "handicapped"): value for key, value in figures.items()}
    return {**{key: scratch[key] for key in KEYS}, "protocol": protocol, "gap": twin["a"] - scratch["a"], **figures}


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """Mean ± sample std over seeds; gap: task-A accuracy on the test, handicapped less scratch."""
    by = ["scenario", "data", "model", "protocol", "rate", "finetuning_steps"]
    columns = [c for c in found if c not in (*KEYS, "protocol")]
    lines = []
    for key, group in ordered(found, by).groupby(by, sort=False):
        n = len(group)
        lines.append({**dict(zip(by, key)), **{c: cell(group[c].mean(), group[c].std(ddof=1), n, n) for c in columns}, "n": n})
    return pd.DataFrame(lines)
