"""First task against last task: points of runs, the non-dominated set, forgetting at matched accuracy on the last task.

Models compared at one learning rate reward the one that learned least; at equal accuracy on the new task they do not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cl_bench.reports.collect import KINDS, LOSS, read_matrix
from cl_bench.reports.plots import finish, groups, panels_of
from cl_bench.reports.tables import ordered

Values = NDArray[np.float64]


def points(runs: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """One row a run, kind and moment at which both tasks were looked at: by, tag, seed, kind, after, step, last, final, a, b, forgetting.

    step: of looks within an experience (look.within), at its end infinite; last: in the last experience; final: at its end.
    a, b: accuracy (or loss) on the first and the last task then; forgetting: what a has lost (or risen) since it was learned.
    """
    found = []
    for _, run in runs.iterrows():
        names = run[list(dict.fromkeys([*by, "tag", "seed"]))].to_dict()
        for kind in (*KINDS, LOSS):
            matrix = read_matrix(Path(run["folder"]), kind)
            if matrix is None or matrix.shape[1] < 2:
                continue
            a, b = matrix.iloc[:, 0], matrix.iloc[:, -1]
            learned = a.dropna().iloc[0] if len(matrix) > 1 and a.notna().any() else math.nan  # joint is looked at once
            looks = {(after, math.inf): (a[after], b[after]) for after in matrix.index[a.notna() & b.notna()]}
            looks |= within(Path(run["folder"]), kind, matrix)
            for (after, step), (on_a, on_b) in sorted(looks.items()):
                last = after == matrix.index[-1]
                place = {"kind": kind, "after": after, "step": step, "last": last, "final": last and math.isinf(step)}
                found.append({**names, **place, "a": on_a, "b": on_b, "forgetting": sign(kind) * (learned - on_a)})
    return pd.DataFrame(found)


def within(folder: Path, kind: str, matrix: pd.DataFrame) -> dict[tuple[int, float], tuple[float, float]]:
    """(after, step) -> figures on the first and the last test, of looks within the last experience."""
    file = folder / "metrics.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    last, first, final = matrix.index[-1], matrix.columns[0], matrix.columns[-1]
    rows = [row for line in lines if (row := json.loads(line)).get("step") and row["metric"] == kind and row["after"] == last]
    on = {(row["step"], row["on"]): row["value"] for row in rows}
    return {(last, float(step)): (on[step, first], b) for (step, test), b in on.items() if test == final and (step, first) in on}


def sign(kind: str) -> int:
    """Of losses less is better."""
    return -1 if kind == LOSS else 1


def non_dominated(a: Values, b: Values) -> NDArray[np.bool_]:
    """Points that no other beats in one accuracy without losing in the other."""
    better = (a[:, None] >= a) & (b[:, None] >= b) & ((a[:, None] > a) | (b[:, None] > b))  # [i, j]: i dominates j
    return np.asarray(~better.any(0))


def mark(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """The points with a column `frontier`: at the end of their run, and not dominated by another run of their group, seed and kind."""
    final = table[table["final"]]
    parts = [part for _, part in final.groupby([*dict.fromkeys([*by, "seed"]), "kind"])]
    best = [part.index[non_dominated(*_better(part))] for part in parts]
    return table.assign(frontier=table.index.isin(np.concatenate(best) if best else []))


def _better(part: pd.DataFrame) -> tuple[Values, Values]:
    """(a, b) of one kind, more is better."""
    by = sign(part["kind"].iloc[0])
    return by * part["a"].to_numpy(), by * part["b"].to_numpy()


def frontier(table: pd.DataFrame, by: Sequence[str]) -> Figure:
    """Runs, pale and hollow where they went on; of means over seeds the ends, and a line through those in the last task none beats."""
    kinds = [kind for kind in (*KINDS, LOSS) if (table["kind"] == kind).any()]
    unit, scale = (("loss", "nats"), 1) if kinds == [LOSS] else (("accuracy", "%"), 100)
    figure, panels = panels_of(kinds, "{} on the first task ({})".format(*unit), "{} on the last task ({})".format(*unit))
    same = list(dict.fromkeys([*by, "tag", "kind", "step"]))
    for kind, axes in panels.items():
        for label, group, style in groups(table, by):
            group = group[group["kind"] == kind]
            if group.empty:
                continue
            pale: dict[str, Any] = {"color": style["color"], "marker": style["marker"], "markersize": 4, "alpha": 0.35, "linestyle": "none"}
            for final, part in group.groupby("final"):
                axes.plot(scale * part["b"], scale * part["a"], markerfacecolor=None if final else "white", **pale)
            means = group[group["last"]].groupby(same, as_index=False)[["a", "b"]].mean().sort_values("b")
            if means.empty:
                continue
            best, ends = means[non_dominated(*_better(means))], means[np.isinf(means["step"])]
            axes.plot(scale * best["b"], scale * best["a"], color=style["color"], linestyle=style["linestyle"], lw=1.5)
            axes.plot(scale * ends["b"], scale * ends["a"], label=label, color=style["color"], linestyle="none", marker=style["marker"])
        axes.plot([], [], color="0.4", lw=1.5, label="not dominated")
        if not table["final"].all():
            axes.plot([], [], color="0.4", linestyle="none", marker="o", markersize=4, markerfacecolor="white", label="before the end")
    return finish(figure, panels)


def matched(table: pd.DataFrame, by: Sequence[str], target: float | None) -> pd.DataFrame:
    """Forgetting of the first task where the last one's accuracy (or loss) comes to `target`; None: the best that all of a stream reach.

    One row a group and kind; per seed linear interpolation between the non-dominated points of its runs in the last task: their ends,
    and moments within it (look.within). Runs differ in learning rate, or whatever else the group pools. A frontier that begins above
    the target counts with its first point, more accurate on the last task; `note` says so, and why a figure is missing.
    """
    points = table[table["last"] & table["forgetting"].notna()]
    streams, lines = [column for column in ("scenario", "data") if column in by], []
    for (*_, kind), part in points.groupby([*streams, "kind"], sort=False):
        reached = (sign(kind) * part["b"]).groupby([part[column] for column in (*by, "seed")]).max()
        aim = reached.min() if target is None else sign(kind) * target
        for key, group in ordered(part, by).groupby(list(by), sort=False):
            spans = [_frontier(runs) for _, runs in group.groupby("seed")]
            values = np.array([np.interp(aim, b, lost) for b, lost in spans if aim <= b[-1]])  # left of b[0]: its value
            mean, std = values.mean() if len(values) else math.nan, values.std(ddof=1) if len(values) > 1 else math.nan
            above, short = [b[0] for b, _ in spans if aim < b[0]], [b[-1] for b, _ in spans if b[-1] < aim]
            note = [f"{len(above)} of {len(spans)} seeds begin at {abs(min(above)):.3f}"] if above else []
            note += [f"no figure for {len(short)} of {len(spans)} seeds: they come to {abs(max(short)):.3f}"] if short else []
            figures = {"task_b": sign(kind) * aim, "mean": mean, "std": std, "n": len(values), "note": "; ".join(note)}
            lines.append({**dict(zip(by, key)), "kind": kind, **figures})
    return pd.DataFrame(lines, columns=[*by, "kind", "task_b", "mean", "std", "n", "note"])


def _frontier(runs: pd.DataFrame) -> tuple[Values, Values]:
    """(accuracy on the last task, or loss with a minus, rising; forgetting) of the non-dominated runs, equal ones averaged."""
    a, b = _better(runs)
    kept = non_dominated(a, b)
    best = runs["forgetting"][kept].groupby(b[kept]).mean()
    return best.index.to_numpy(), best.to_numpy()
