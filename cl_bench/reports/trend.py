"""Does a figure rise or fall with model size, or along another axis? Spearman's rank correlation, with a bootstrap over seeds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cl_bench.reports.tables import ordered

RESAMPLES = 2000
SIMULATED = 400
LEAST = 3  # sizes, or values of another axis: two can only rise or fall


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Correlation of ranks, ties at their mean rank, which keep it from 1; undefined where one side is constant."""
    ranks = [(z[:, None] > z).sum(1) + (z[:, None] == z).sum(1) / 2 for z in (np.asarray(x), np.asarray(y))]
    if min(np.ptp(r) for r in ranks) == 0:
        return math.nan
    return float(np.corrcoef(*ranks)[0, 1])


def interval(seeds: ArrayLike, statistic: Callable[[NDArray[np.intp]], float]) -> tuple[float, float]:
    """The middle 95 % of a statistic over resampled seeds, each with all of its runs; of few seeds all resamples are taken.

    Undefined for one seed; a few seeds give too narrow an interval.
    """
    seed = np.asarray(seeds)
    runs = [np.flatnonzero(seed == s) for s in np.unique(seed)]
    k, rng = len(runs), np.random.default_rng(0)
    if k < 2:
        return math.nan, math.nan
    drawn = list(itertools.product(range(k), repeat=k)) if k**k <= RESAMPLES else rng.integers(k, size=(RESAMPLES, k))
    found = np.array([statistic(np.concatenate([runs[i] for i in draw])) for draw in drawn])
    if np.isnan(found).all():
        return math.nan, math.nan
    low, high = np.nanquantile(found, [0.025, 0.975], method="inverted_cdf")
    return float(low), float(high)


@cache
def by_chance(values: int, seeds: int) -> float:
    """Share of groups whose interval excludes 0 although nothing falls or rises: simulated, independent noise in each run."""
    axis, seed = np.repeat(np.arange(values), seeds), np.tile(np.arange(seeds), values)
    rng = np.random.default_rng(0)
    ends = [bootstrap(axis, rng.standard_normal(len(axis)), seed) for _ in range(SIMULATED)]
    return float(np.mean([low > 0 or high < 0 for low, high in ends]))


def bootstrap(sizes: ArrayLike, values: ArrayLike, seeds: ArrayLike) -> tuple[float, float]:
    """The interval of rho."""
    size, value = (np.asarray(z) for z in (sizes, values))
    return interval(seeds, lambda index: spearman(size[index], value[index]))


def trends(runs: pd.DataFrame, by: Sequence[str], metrics: Sequence[str], axis: str = "parameters") -> pd.DataFrame:
    """One row a group and metric: rho of the metric with the axis over all runs, its interval, values of the axis, runs, note."""
    what = "sizes" if axis == "parameters" else "values"
    lines = []
    for key, group in ordered(runs, by).groupby(list(by), sort=False) if by else [((), runs)]:
        for metric in metrics:
            part = group.dropna(subset=metric)
            count, seeds = part[axis].nunique(), part["seed"].nunique()
            enough = count >= LEAST
            columns = (part[axis], part[metric], part["seed"])
            low, high = bootstrap(*columns) if enough else (math.nan, math.nan)
            tags = part.groupby(axis)["tag"].nunique().max()
            doubts = ["one seed: no interval"] * (seeds < 2) + [f"pools {tags} tags"] * bool(tags > 1)
            lines.append(
                {
                    **dict(zip(by, key)),
                    "metric": metric,
                    "rho": spearman(*columns[:2]) if enough else math.nan,
                    **{"low": low, "high": high, what: count, "seeds": seeds, "runs": len(part)},
                    "note": "; ".join(doubts) if enough else f"a trend needs {LEAST} {what}",
                }
            )
    return pd.DataFrame(lines)
