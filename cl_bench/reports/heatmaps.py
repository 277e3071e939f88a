"""The accuracy matrix of a group of runs as a heat map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cl_bench.reports.collect import KINDS, LOSS, read_matrix
from cl_bench.reports.tables import title


def mean_matrix(runs: pd.DataFrame, kind: str) -> pd.DataFrame | None:
    """Mean over runs in percent, or nats; None if a run lacks it or the runs have different tasks or rows."""
    matrices = [read_matrix(Path(folder), kind) for folder in runs["folder"]]
    found = [matrix for matrix in matrices if matrix is not None and not matrix.empty]
    if not found or len(found) < len(matrices) or any(not m.index.equals(found[0].index) for m in found):
        return None
    if any(not m.columns.equals(found[0].columns) for m in found):
        return None
    scale = 1 if kind == LOSS else 100
    return pd.DataFrame(scale * np.mean([m.to_numpy() for m in found], axis=0), found[0].index, found[0].columns)


def matrices(label: str, runs: pd.DataFrame, kinds: Sequence[str] = KINDS) -> Figure | None:
    """Heat map of accuracy (or loss) on each task after each task, one panel a kind of evaluation."""
    found = {kind: matrix for kind in kinds if (matrix := mean_matrix(runs, kind)) is not None}
    if not found:
        return None
    rows, columns = (max(matrix.shape[axis] for matrix in found.values()) for axis in (0, 1))
    side = 0.62 if columns <= 12 else 0.32
    size = (len(found) * (max(columns * side, 3) + 1.2) + 1.2, max(rows * side, 0.8) + 2.2)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    low, high = (float(np.nanmin(found[LOSS])), float(np.nanmax(found[LOSS]))) if LOSS in found else (0.0, 100.0)
    for axes, (kind, matrix) in zip(panels, found.items(), strict=True):
        image = axes.imshow(matrix, cmap="cividis", vmin=low, vmax=high, aspect="auto")
        axes.set(title=title(kind), xlabel="evaluated on task", ylabel="experiences learned", facecolor="0.93")
        step = 1 if columns <= 30 else columns // 15
        axes.set_xticks(range(0, matrix.shape[1], step), matrix.columns[::step], rotation=45, ha="right",
                        rotation_mode="anchor")  # fmt: skip
        axes.set_yticks(range(0, len(matrix), step), matrix.index[::step] + 1)
        axes.grid(False)
        for row, column in zip(*np.nonzero(~np.isnan(matrix.to_numpy())), strict=True):
            if columns <= 12:
                value = matrix.iat[row, column]
                axes.text(column, row, f"{value:.2f}" if kind == LOSS else f"{value:.0f}", ha="center", va="center", size=11,
                          color="black" if value > low + 0.55 * (high - low) else "white")  # fmt: skip
    figure.colorbar(image, ax=panels, label="loss (nats)" if LOSS in found else "accuracy (%)")
    figure.suptitle(f"{label}  (mean of {len(runs)} runs)" if len(runs) > 1 else label)
    return figure
