"""Does a figure rise or fall with model size? Spearman's rank correlation, with a bootstrap over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cl_bench.reports.tables import ordered

RESAMPLES = 2000
LEAST_SIZES = 3  # two can only rise or fall


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Correlation of ranks, ties at their mean rank, which keep it from 1; undefined where one side is constant."""
    ranks = [(z[:, None] > z).sum(1) + (z[:, None] == z).sum(1) / 2 for z in (np.asarray(x), np.asarray(y))]
    if min(np.ptp(r) for r in ranks) == 0:
        return math.nan
    return float(np.corrcoef(*ranks)[0, 1])


def bootstrap(sizes: ArrayLike, values: ArrayLike, seeds: ArrayLike) -> tuple[float, float]:
    """The middle 95 % of rho over resampled seeds, each with its runs of every size; a few seeds give too narrow an interval."""
    size, value, seed = (np.asarray(z) for z in (sizes, values, seeds))
    runs = [np.flatnonzero(seed == s) for s in np.unique(seed)]
    if len(runs) < 2:
        return math.nan, math.nan
    rng = np.random.default_rng(0)
    drawn = [np.concatenate([runs[i] for i in rng.integers(len(runs), size=len(runs))]) for _ in range(RESAMPLES)]
    found = np.array([spearman(size[index], value[index]) for index in drawn])
    if np.isnan(found).all():
        return math.nan, math.nan
    low, high = np.nanquantile(found, [0.025, 0.975])
    return float(low), float(high)


def trends(runs: pd.DataFrame, by: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """One row a group and metric: rho of the metric with the parameters over all its runs, its interval, sizes, runs, note."""
    lines = []
    for key, group in ordered(runs, by).groupby(list(by), sort=False) if by else [((), runs)]:
        for metric in metrics:
            part = group.dropna(subset=metric)
            count, seeds = part["parameters"].nunique(), part["seed"].nunique()
            enough = count >= LEAST_SIZES
            columns = (part["parameters"], part[metric], part["seed"])
            low, high = bootstrap(*columns) if enough else (math.nan, math.nan)
            tags = part.groupby("parameters")["tag"].nunique().max()
            doubts = ["one seed: no interval"] * (seeds < 2) + [f"pools {tags} tags"] * bool(tags > 1)
            lines.append(
                {
                    **dict(zip(by, key)),
                    "metric": metric,
                    "rho": spearman(*columns[:2]) if enough else math.nan,
                    **{"low": low, "high": high, "sizes": count, "seeds": seeds, "runs": len(part)},
                    "note": "; ".join(doubts) if enough else f"a trend needs {LEAST_SIZES} sizes",
                }
            )
    return pd.DataFrame(lines)
