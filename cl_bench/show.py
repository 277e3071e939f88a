"""What a run or a sweep prints at its end, read back from the files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cl_bench.folder import LOSS, READINGS


def show_grid(grid: Table) -> None:
    """Never cut a number: a narrow terminal wraps the line."""
    width = Console(width=10_000).measure(grid).maximum
    Console(width=max(Console().width, width)).print(grid)


def show_run(folder: Path) -> None:
    """The matrices and the summary of one run."""
    titles = {f"accuracy_{reading}": f"accuracy, {reading}" for reading in READINGS} | {LOSS: "loss in nats (less is better)"}
    for name, title in titles.items():
        file = folder / f"{name}.csv"
        if not file.exists():
            continue
        header, *lines = list(csv.reader(file.open()))
        table = Table(*header, title=title, title_justify="left")
        for after, *cells in lines:
            table.add_row(after, *(f"{float(c):.3f}" if c else "" for c in cells))
        show_grid(table)
    figures = {name: value for name, value in csv.reader((folder / "summary.csv").open())}
    kinds = [kind for kind in (*READINGS, LOSS) if any(name.startswith(f"{kind}_") for name in figures)]
    table = Table("metric", *kinds, title="summary", title_justify="left")
    for name in dict.fromkeys(n.removeprefix(f"{kind}_") for kind in kinds for n in figures if n.startswith(f"{kind}_")):
        cells = [figures.get(f"{kind}_{name}", "") for kind in kinds]
        table.add_row(name, *(f"{float(c):.4f}" if c else "-" for c in cells))
    show_grid(table)
    print(folder)


def show_sweep(folders: Sequence[Path]) -> None:
    """One comparison table over the runs of a sweep."""
    from cl_bench.reports.collect import read_runs
    from cl_bench.reports.final import beside_published
    from cl_bench.reports.tables import comparison, differing, show

    runs = read_runs(folders)
    by = differing(runs)
    show(comparison(runs, by))
    for published in beside_published(runs, by):
        show(published)
