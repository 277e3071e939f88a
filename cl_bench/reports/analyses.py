"""The analyses of --analyses: frontier, forgetting at matched accuracy, trend over sizes, every forgetting convention."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import pandas as pd

from cl_bench.reports import along, frontier, handicapped, tables
from cl_bench.reports.collect import AXES, KINDS, LOSS
from cl_bench.reports.plots import OVERLAPS, STYLE, save
from cl_bench.reports.settings import described
from cl_bench.reports.trend import trends

CONVENTIONS = {  # name -> what it is
    "average_forgetting": "best since learned less last, over T-1 tasks",
    "forgetting_last_minus_learned": "when learned less last, over T-1",
    "forgetting_largest": "the same of the task that lost most",
    "forgetting_over_T": "the first, over T",
    "forgetting_best_ever": "best at any look less last, over T-1",
    "forgetting_best_ever_over_T": "the same over all T, the last task with it",
}


def pools(runs: pd.DataFrame, by: Sequence[str] | None) -> tuple[pd.DataFrame, list[str]]:
    """(runs with the column init, columns of a group): those given, else what differs but for the tag, which tells rates and steps.

    scratch, pretrained (by the steps and the data of that, where they differ) and handicapped are never pooled, nor are sizes.
    """
    runs = described(runs)
    runs = runs.assign(init=_inits(runs), size=[f"{count:,} parameters" for count in runs["parameters"]])
    columns = list(by or [axis for axis in (*AXES, "init") if axis not in ("seed", "tag") and runs[axis].nunique() > 1])
    columns += ["init"] * ("init" not in columns and runs["init"].nunique() > 1)
    mixed = not columns or (runs.groupby(columns)["size"].nunique() > 1).any()
    return runs, columns + ["size"] * bool(mixed)


def _inits(runs: pd.DataFrame) -> pd.Series:
    """scratch, pretrained, stopped, slowed; `pretrained, 300 steps` or `pretrained, 1/4 of the data` where others are there too."""
    names, weights = runs["start"], runs["start"] != "scratch"
    for axis, words in (("pretraining_steps", "{} steps"), ("pretraining_data", "{} of the data")):
        if runs.loc[weights, axis].nunique() > 1:
            told = ", " + runs[axis].map(lambda value, words=words: words.format(along.said(value)))
            names = names + told.where(weights & runs[axis].notna(), "")
    return names


def measured(runs: pd.DataFrame, metrics: Sequence[str] | None) -> list[str]:
    """Metrics whose trend is asked: those given, else forgetting, and overlap as it is, of its null, and at one width for all sizes."""
    if metrics:
        return list(metrics)
    overlaps = [f"{name}{end}" for name in OVERLAPS for end in ("", "_null", "_projected")]
    return [n for n in tables.HEADLINE if "forgetting" in n and n in runs] + [name for name in overlaps if name in runs]


def write(runs: pd.DataFrame, by: Sequence[str] | None, out: Path, metrics: Sequence[str] | None, target: float | None) -> list[Path]:
    """Files and, on the terminal, the tables."""
    runs, pool = pools(runs, by)
    written = []
    points = frontier.points(runs, pool)
    if points.empty:
        print("note: no frontier: no run has looked at two tasks in one moment.")
    else:
        points = frontier.mark(points, pool)
        same = frontier.matched(points, pool, target)
        with matplotlib.rc_context(STYLE):
            written += save({"frontier": frontier.frontier(points, pool)}, out)
        written += [_csv(points, out / "frontier.csv"), _csv(same, out / "matched_forgetting.csv")]
        print("forgetting of the first task at matched accuracy (or loss) on the last task, interpolated along each group's frontier:")
        shown = same.assign(forgetting=[tables.cell(m, s, n, n) for m, s, n in zip(same["mean"], same["std"], same["n"], strict=True)])
        tables.show(tables.rounded(shown)[[*pool, "kind", "task_b", "forgetting", "n", "note"]])
    apart = [c for c in ("rate", "finetuning_steps") if c not in pool and runs[c].notna().all() and runs[c].nunique() > 1]
    over = trends(runs, [*(column for column in pool if column not in ("model", "size")), *apart], measured(runs, metrics))
    written.append(_csv(over, out / "trend.csv"))
    print("trend over model sizes (Spearman's rho over runs; 95 % interval from a bootstrap over seeds):")
    tables.show(tables.rounded(over))
    known = [name for kind in (*KINDS, LOSS) for c in CONVENTIONS if (name := f"{kind}_{c}") in runs and runs[name].notna().any()]
    conventions = tables.comparison(runs, list(by or tables.differing(runs)), known)
    (out / "forgetting_conventions.md").write_text(tables.markdown(conventions), encoding="utf-8")
    print("forgetting, every convention:", *(f"{name.replace('_', ' ')}: {what};" for name, what in CONVENTIONS.items()))
    tables.show(conventions)
    scale = handicapped.read(runs)
    found = handicapped.pairs(scale) if len(scale) else scale
    if len(found):
        written.append(_csv(found, out / "handicapped.csv"))
        print("pretrained models handicapped until they agree with scratch on task A (a, b: accuracy on the first and the last task):")
        tables.show(handicapped.summary(found))
    return [*written, out / "forgetting_conventions.md"]


def _csv(table: pd.DataFrame, path: Path) -> Path:
    table.to_csv(path, index=False)
    return path
