"""The analyses of --analyses: frontier, forgetting at matched accuracy, trend over sizes, every forgetting convention."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import pandas as pd
import yaml

from cl_bench.reports import frontier, handicapped, tables
from cl_bench.reports.collect import AXES, KINDS
from cl_bench.reports.plots import OVERLAPS, STYLE, save
from cl_bench.reports.trend import trends

CONVENTIONS = [f"{kind}_{name}" for kind in KINDS for name in ("average_forgetting", "forgetting_last_minus_learned", "forgetting_over_T")]


def pools(runs: pd.DataFrame, by: Sequence[str] | None) -> tuple[pd.DataFrame, list[str]]:
    """(runs with the column init, columns of a group): those given, else what differs but for the tag, which tells rates and steps.

    scratch and pretrained are never pooled, nor are sizes.
    """
    sizes = [f"{count:,} parameters" for count in runs["parameters"]]
    runs = runs.assign(init=[_init(Path(folder)) for folder in runs["folder"]], size=sizes)
    columns = list(by or [axis for axis in (*AXES, "init") if axis not in ("seed", "tag") and runs[axis].nunique() > 1])
    columns += ["init"] * ("init" not in columns and runs["init"].nunique() > 1)
    mixed = not columns or (runs.groupby(columns)["size"].nunique() > 1).any()
    return runs, columns + ["size"] * bool(mixed)


def _init(folder: Path) -> str:
    """scratch, or pretrained from wherever."""
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    return "scratch" if config.get("model", {}).get("init", "scratch") == "scratch" else "pretrained"


def measured(runs: pd.DataFrame, metrics: Sequence[str] | None) -> tuple[pd.DataFrame, list[str]]:
    """(runs, metrics whose trend is asked): those given, else forgetting, and overlap as it is and beyond its null."""
    if metrics:
        return runs, list(metrics)
    known = [name for name in OVERLAPS if name in runs]
    beyond = {f"{name}_beyond_null": runs[name] - runs[f"{name}_null"] for name in known}
    return runs.assign(**beyond), [n for n in tables.HEADLINE if "forgetting" in n and n in runs] + [*known, *beyond]


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
        print("forgetting of the first task at matched accuracy on the last task, interpolated along each group's frontier:")
        shown = same.assign(forgetting=[tables.cell(m, s, n, n) for m, s, n in zip(same["mean"], same["std"], same["n"], strict=True)])
        tables.show(_rounded(shown)[[*pool, "kind", "task_b_accuracy", "forgetting", "n", "note"]])
    sized, asked = measured(runs, metrics)
    over = trends(sized, [column for column in pool if column not in ("model", "size")], asked)
    written.append(_csv(over, out / "trend.csv"))
    print("trend over model sizes (Spearman's rho over runs; 95 % interval from a bootstrap over seeds):")
    tables.show(_rounded(over))
    known = [name for name in CONVENTIONS if name in runs]
    conventions = tables.comparison(runs, list(by or tables.differing(runs)), known)
    (out / "forgetting_conventions.md").write_text(tables.markdown(conventions), encoding="utf-8")
    print("forgetting, every convention: best before less last, over T-1 tasks; when learned less last, over T-1; the first, over T:")
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


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Fractions as text of four digits, an undefined one empty."""
    return table.assign(**{c: table[c].map(lambda v: "" if pd.isna(v) else f"{v:.4f}") for c in table if table[c].dtype.kind == "f"})
