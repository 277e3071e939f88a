"""Histograms of the prompts that each test takes, from the files of probe=prompts."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

PANELS = 4  # runs drawn at most


def last_counts(folder: Path) -> pd.DataFrame | None:
    """Tests x prompts as of the run's last look, shares of each test."""
    files = sorted((folder / "probes").glob("prompts_after*.csv"), key=lambda f: int(f.stem.removeprefix("prompts_after")))
    if not files:
        return None
    counts = pd.read_csv(files[-1], index_col="test")
    return counts.div(counts.sum(axis=1), axis=0)


def histograms(runs: pd.DataFrame) -> Figure | None:
    """As figure 3 of 2112.08654: prompts across, a colour a test, a panel a run: the prompts of two runs have nothing in common."""
    tables = {str(run.seed): last_counts(Path(run.folder)) for run in runs.sort_values("seed").itertuples()}
    found = {seed: table for seed, table in list(tables.items())[:PANELS] if table is not None}
    if not found:
        return None
    figure = Figure(figsize=(9.5, 1.6 + 2.6 * len(found)), layout="constrained")
    panels = figure.subplots(len(found), squeeze=False, sharex=True)
    for (seed, shares), axes in zip(found.items(), panels[:, 0]):
        width = 0.8 / len(shares)
        for number, (test, row) in enumerate(shares.iterrows()):
            colour = matplotlib.colormaps["viridis"](number / max(1, len(shares) - 1))
            axes.bar([m + (number - (len(shares) - 1) / 2) * width for m in range(len(row))], row, width, label=str(test), color=colour)
        axes.set(title=f"seed {seed}", ylabel="share of what a test takes", xticks=range(shares.shape[1]))
    axes.set_xlabel("prompt")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False)
    return figure
