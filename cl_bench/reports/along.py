"""Forgetting and accuracy along an axis other than size: steps or data of pretraining, steps of fine-tuning."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from cl_bench.core.errors import ConfigError
from cl_bench.reports import tables
from cl_bench.reports.plots import STYLE, finish, groups, panels_of, save
from cl_bench.reports.settings import described
from cl_bench.reports.trend import LEAST, trends

PANELS = {"task_il_average_forgetting": "forgetting", "task_il_average_accuracy": "accuracy at the end"}  # metric -> title


def series(runs: pd.DataFrame, axis: str) -> list[str]:
    """Columns of a line: models, and what else differs; scratch lies at 0 of the axes of pretraining."""
    others = ("data", "rate") if axis.startswith("pretraining") else ("data", "rate", "start")
    return ["model", *(column for column in others if runs[column].nunique() > 1)]


def along(runs: pd.DataFrame, axis: str) -> Figure:
    """Mean and sample standard deviation over seeds at each value."""
    figure, panels = panels_of(list(PANELS), "percent", axis.replace("_", " "))
    places = sorted(runs[axis].unique())
    for metric, axes in panels.items():
        axes.set_xscale("symlog", linthresh=next(place for place in places if place > 0), linscale=0.5)  # first: margins are of the scale
        for label, group, style in groups(runs, series(runs, axis)):
            at = 100 * group.groupby(axis)[metric].agg(["mean", "std"])
            axes.errorbar(at.index, at["mean"], at["std"].fillna(0), label=label, **style)
        axes.set(title=PANELS[metric])
        axes.set_xticks(places, [said(value) for value in places], minor=False)
        axes.minorticks_off()
    if all(axes.dataLim.y0 >= 0 for axes in panels.values()):  # a gain lies below
        axes.set_ylim(bottom=0)  # of both panels, when both are drawn
    return finish(figure, panels)


def said(value: float) -> str:
    """none, 1/16, 1, 3000"""
    return "none" if value == 0 else str(Fraction(value).limit_denominator(1024)) if value < 1 else f"{value:.0f}"


def write(runs: pd.DataFrame, axis: str, out: Path) -> list[Path]:
    """Figure and trend of the models that were run at enough values of the axis."""
    told = described(runs)
    if told[axis].isna().all():
        lack = "steps" if axis == "finetuning_steps" else "config.yaml of the run that made its first weights, beside them"
        raise ConfigError(f"--along {axis}: no run here tells its own, for want of {lack}; give folders of runs that do")
    known = told.dropna(subset=[axis, *(metric for metric in PANELS if metric in runs)])
    by = series(known, axis)
    known = known[known.groupby(by)[axis].transform("nunique") >= LEAST]
    if set(PANELS) - set(known) or known.empty:
        raise ConfigError(f"--along {axis}: no model here has runs at {LEAST} values of it; give folders of runs, or leave --along out")
    over = trends(known[known[axis] > 0], by, list(PANELS), axis)
    over.to_csv(out / f"trend_{axis}.csv", index=False)
    print(f"trend along {axis.replace('_', ' ')} (Spearman's rho over runs; 95 % interval from a bootstrap over seeds):")
    tables.show(tables.rounded(over))
    with matplotlib.rc_context(STYLE):
        return [*save({f"along_{axis}": along(known, axis)}, out), out / f"trend_{axis}.csv"]
