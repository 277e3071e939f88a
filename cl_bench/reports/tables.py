"""Runs -> comparison tables: mean ± sample standard deviation and n per group."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cl_bench.reports.collect import AXES, KINDS, check_names, metric_names

HEADLINE = (
    *(f"{kind}_{name}" for kind in KINDS for name in ("average_accuracy", "average_forgetting")),
    *("loss_average", "loss_average_forgetting"),
)
SAID = {"class_il": "class-IL", "task_il": "task-IL", "knn_all": "KNN among all", "knn_task": "KNN in task"}
TEX = str.maketrans({"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
                    | {sign: f"\\{sign}" for sign in "&%$#_{}"})  # fmt: skip


def differing(runs: pd.DataFrame) -> list[str]:
    """Axes other than the seed that differ between the runs; strategy if none does."""
    return [axis for axis in AXES if axis != "seed" and runs[axis].nunique() > 1] or ["strategy"]


def ordered(runs: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Sorted by the columns of by, with numbers inside of names by value: w32 before w128, lr0.003 before lr0.01."""

    def padded(name: object) -> str:
        return re.sub(r"(?<![\d.])\d+", lambda number: number[0].zfill(12), str(name))

    return runs.sort_values(list(by), key=lambda column: column.map(padded), kind="stable")


def aggregate(runs: pd.DataFrame, by: Sequence[str], metrics: Sequence[str] | None = None) -> pd.DataFrame:
    """Numbers per group: metric_mean, metric_std (sample), metric_n (runs where it is defined), and n."""
    check_names("column", by, AXES)
    known = metric_names(runs)
    if metrics is None:
        averages = [name for name in known if name.endswith(("_average_accuracy", "_average_forgetting"))]
        metrics = [name for name in HEADLINE if name in known] or averages  # runs without logits: their own probe's
    check_names("metric", metrics, known)
    groups = ordered(runs, by).groupby(list(by), sort=False)
    columns: dict[str, pd.Series] = {}
    for name in metrics:
        columns[f"{name}_mean"] = groups[name].mean()
        columns[f"{name}_std"] = groups[name].std(ddof=1)
        columns[f"{name}_n"] = groups[name].count()
    return pd.DataFrame({**columns, "n": groups.size()}).reset_index()


def cell(mean: float, std: float, count: int, n: int) -> str:
    """One table cell; a mean over fewer runs than the group has says so, an undefined one is empty."""
    if math.isnan(mean):
        return ""
    text = f"{mean:.4f}" if math.isnan(std) else f"{mean:.4f} ± {std:.4f}"
    return text if count == n else f"{text} (n={count})"


def comparison(runs: pd.DataFrame, by: Sequence[str], metrics: Sequence[str] | None = None) -> pd.DataFrame:
    """One row a group: the columns of by, each metric as "mean ± std", and n."""
    numbers = aggregate(runs, by, metrics)
    names = [name.removesuffix("_mean") for name in numbers.columns if name.endswith("_mean")]
    table = numbers[list(by)].copy()
    for name in names:
        parts = zip(*(numbers[c] for c in (f"{name}_mean", f"{name}_std", f"{name}_n", "n")), strict=True)
        table[name] = [cell(mean, std, count, n) for mean, std, count, n in parts]
    return table.assign(n=numbers["n"])


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Fractions as text of four digits, an undefined one empty."""
    return table.assign(**{c: table[c].map(lambda v: "" if pd.isna(v) else f"{v:.4f}") for c in table if table[c].dtype.kind == "f"})


def title(column: str) -> str:
    """class_il_average_accuracy -> class-IL average accuracy; a task's own name stays."""
    words = re.sub("^loss_", "loss ", column)
    for name, said in SAID.items():
        words = words.replace(name, said)
    return words.replace("_", " ") if words != column else column


def markdown(table: pd.DataFrame) -> str:
    """GitHub table, names to the left and numbers to the right."""
    rows = [[str(value).replace("|", "\\|") for value in row] for row in table.itertuples(index=False)]
    rule = [":--" if column in AXES else "--:" for column in table.columns]
    lines = [[title(column) for column in table.columns], rule, *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def tex(table: pd.DataFrame) -> str:
    """LaTeX tabular in the style of booktabs."""
    lines = [" & ".join(title(column).translate(TEX) for column in table.columns) + r" \\", r"\midrule"]
    for _, row in table.iterrows():
        cells = [
            str(value).translate(TEX) if column in AXES else f"${value}$".replace("±", r"\pm") if value != "" else ""
            for column, value in row.items()
        ]
        lines.append(" & ".join(cells) + r" \\")
    layout = "".join("l" if column in AXES else "r" for column in table.columns)
    return "\n".join([rf"\begin{{tabular}}{{{layout}}}", r"\toprule", *lines, r"\bottomrule", r"\end{tabular}", ""])


def write(runs: pd.DataFrame, by: Sequence[str], out: Path, metrics: Sequence[str] | None = None) -> list[Path]:
    """runs.csv (one row a run) and table.{csv,md,tex} (one row a group)."""
    table = comparison(runs, by, metrics)
    runs.drop(columns=["folder", "config"]).to_csv(out / "runs.csv", index=False)
    aggregate(runs, by, metrics).to_csv(out / "table.csv", index=False)
    (out / "table.md").write_text(markdown(table), encoding="utf-8")
    (out / "table.tex").write_text("% needs \\usepackage{booktabs}\n" + tex(table), encoding="utf-8")
    return [out / name for name in ("runs.csv", "table.csv", "table.md", "table.tex")]


def show(table: pd.DataFrame) -> None:
    """Print a comparison in the terminal."""
    from rich.table import Table
    from rich.text import Text

    from cl_bench.show import show_grid

    grid = Table()
    for column in table.columns:
        name = column in AXES
        heading = title(column).replace(" ", "\n")
        grid.add_column(heading, justify="left" if name else "right", no_wrap=True)
    for row in table.itertuples(index=False):
        grid.add_row(*(Text(str(value)) for value in row))
    show_grid(grid)
