"""First task against last task: points of runs, the non-dominated set, forgetting at matched accuracy on the last task.

Models compared at one learning rate reward the one that learned least; at equal accuracy on the new task they do not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cl_bench.reports.collect import KINDS, read_matrix
from cl_bench.reports.plots import finish, groups, panels_of
from cl_bench.reports.tables import ordered

Values = NDArray[np.float64]


def points(runs: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """One row a run, kind and moment at which both tasks were looked at: columns of by, tag, seed, kind, after, final, a, b, forgetting.

    a, b: accuracy on the first and the last task then; forgetting: a when it was first looked at, less a then.
    """
    found = []
    for _, run in runs.iterrows():
        for kind in KINDS:
            matrix = read_matrix(Path(run["folder"]), kind)
            if matrix is None or matrix.shape[1] < 2:
                continue
            a, b = matrix.iloc[:, 0], matrix.iloc[:, -1]
            learned = a.dropna().iloc[0] if len(matrix) > 1 and a.notna().any() else math.nan  # joint is looked at once
            for after in matrix.index[a.notna() & b.notna()]:
                place = {"kind": kind, "after": after, "final": after == matrix.index[-1]}
                at = {"a": a[after], "b": b[after], "forgetting": learned - a[after]}
                found.append({**run[list(dict.fromkeys([*by, "tag", "seed"]))].to_dict(), **place, **at})
    return pd.DataFrame(found)


def non_dominated(a: Values, b: Values) -> NDArray[np.bool_]:
    """Points that no other beats in one accuracy without losing in the other."""
    better = (a[:, None] >= a) & (b[:, None] >= b) & ((a[:, None] > a) | (b[:, None] > b))  # [i, j]: i dominates j
    return np.asarray(~better.any(0))


def mark(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """The points with a column `frontier`: not dominated within their group and kind."""
    parts = [part.assign(frontier=non_dominated(part["a"].to_numpy(), part["b"].to_numpy())) for _, part in table.groupby([*by, "kind"])]
    return pd.concat(parts).sort_index()


def frontier(table: pd.DataFrame, by: Sequence[str]) -> Figure:
    """Every point, hollow where the run went on after it; a line through the non-dominated ones of each group."""
    figure, panels = panels_of(KINDS, "accuracy on the first task (%)", "accuracy on the last task (%)")
    for kind, axes in panels.items():
        for label, group, style in groups(table, by):
            group = group[group["kind"] == kind].sort_values("b")
            if group.empty:
                continue
            best = group[group["frontier"]]
            axes.plot(100 * best["b"], 100 * best["a"], color=style["color"], linestyle=style["linestyle"], lw=1.5)
            axes.plot([], [], label=label, color=style["color"], linestyle="none", marker=style["marker"])
            for _, at in group.iterrows():
                look = {"marker": style["marker"], "color": style["color"], "alpha": 1 if at["frontier"] else 0.35}
                axes.plot(100 * at["b"], 100 * at["a"], markersize=6, markerfacecolor=None if at["final"] else "white", **look)
        axes.plot([], [], color="0.4", lw=1.5, label="not dominated")
        if not table["final"].all():
            axes.plot([], [], color="0.4", linestyle="none", marker="o", markerfacecolor="white", label="before the end")
    return finish(figure, panels)


def matched(table: pd.DataFrame, by: Sequence[str], target: float | None) -> pd.DataFrame:
    """Forgetting of the first task where accuracy on the last one is `target`; None: the best that every group and seed reaches.

    One row a group and kind; per seed linear interpolation between the non-dominated final points of its runs, which differ
    in learning rate, steps or whatever else the group pools. `note` says why a figure is missing.
    """
    final = table[table["final"] & table["forgetting"].notna()]
    lines = []
    for kind, part in final.groupby("kind", sort=False):
        aim = part.groupby([*by, "seed"])["b"].max().min() if target is None else target
        for key, group in ordered(part, by).groupby(list(by), sort=False):
            spans = [_frontier(runs) for _, runs in group.groupby("seed")]
            values = np.array([np.interp(aim, b, lost) for b, lost in spans if b[0] <= aim <= b[-1]])
            mean, std = values.mean() if len(values) else math.nan, values.std(ddof=1) if len(values) > 1 else math.nan
            lack = [b for b, _ in spans if not b[0] <= aim <= b[-1]]
            ends = f"{min(b[0] for b in lack):.3f} to {max(b[-1] for b in lack):.3f}" if lack else ""
            note = f"no figure for {len(lack)} of {len(spans)} seeds: frontier from {ends}; add rates or steps" if lack else ""
            figures = {"task_b_accuracy": aim, "mean": mean, "std": std, "n": len(values), "note": note}
            lines.append({**dict(zip(by, key)), "kind": kind, **figures})
    return pd.DataFrame(lines, columns=[*by, "kind", "task_b_accuracy", "mean", "std", "n", "note"])


def _frontier(runs: pd.DataFrame) -> tuple[Values, Values]:
    """(accuracy on the last task, rising; forgetting) of the non-dominated runs, equal ones averaged."""
    best = runs[non_dominated(runs["a"].to_numpy(), runs["b"].to_numpy())].groupby("b")["forgetting"].mean()
    return best.index.to_numpy(), best.to_numpy()
