"""Histograms of the prompts that each test takes, from the files of probe=prompts."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure


def last_counts(folder: Path) -> pd.DataFrame | None:
    """Tests x prompts as of the run's last look, shares of each test."""
    files = sorted((folder / "probes").glob("prompts_after*.csv"), key=lambda f: int(f.stem.removeprefix("prompts_after")))
    if not files:
        return None
    counts = pd.read_csv(files[-1], index_col="test")
    return counts.div(counts.sum(axis=1), axis=0)


def histograms(runs: pd.DataFrame) -> Figure | None:
    """As figure 3 of 2112.08654: prompts across, a colour a test; the mean over the runs of a group."""
    tables = [table for folder in runs["folder"] if (table := last_counts(Path(folder))) is not None]
    if not tables or any(list(t.index) != list(tables[0].index) or list(t) != list(tables[0]) for t in tables):
        return None
    shares = sum(tables[1:], tables[0]) / len(tables)
    figure, axes = plt.subplots(figsize=(9.5, 4.8), layout="constrained")
    width = 0.8 / len(shares)
    for number, (test, row) in enumerate(shares.iterrows()):
        colour = plt.get_cmap("viridis")(number / max(1, len(shares) - 1))
        axes.bar([m + (number - (len(shares) - 1) / 2) * width for m in range(len(row))], row, width, label=str(test), color=colour)
    axes.set(xlabel="prompt", ylabel="share of what a test takes", xticks=range(shares.shape[1]))
    figure.legend(loc="outside right center", frameon=False)
    return figure
