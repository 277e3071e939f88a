"""What a run or a sweep prints at its end, read back from the files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table


def show_run(folder: Path) -> None:
    """The accuracy matrices and the summary of one run."""
    console = Console()
    for reading in ("class_il", "task_il"):
        file = folder / f"accuracy_{reading}.csv"
        if not file.exists():
            continue
        header, *lines = list(csv.reader(file.open()))
        table = Table(*header, title=f"accuracy, {reading}", title_justify="left")
        for after, *cells in lines:
            table.add_row(after, *(f"{float(c):.3f}" if c else "" for c in cells))
        console.print(table)
    table = Table("metric", "class_il", "task_il", title="summary", title_justify="left")
    figures = {name: value for name, value in csv.reader((folder / "summary.csv").open())}
    for name in dict.fromkeys(n.split("_il_")[1] for n in figures if "_il_" in n):
        cells = [figures.get(f"{reading}_{name}", "") for reading in ("class_il", "task_il")]
        table.add_row(name, *(f"{float(c):.4f}" if c else "-" for c in cells))
    console.print(table, f"{folder}", sep="\n")


def show_sweep(folders: Sequence[Path]) -> None:
    """One comparison table over the runs of a sweep."""
    from cl_bench.reports.collect import read_runs
    from cl_bench.reports.final import final_accuracy, references
    from cl_bench.reports.tables import comparison, differing, show

    runs = read_runs(folders)
    by = differing(runs)
    show(comparison(runs, by))
    if references(runs):
        show(final_accuracy(runs, by))
