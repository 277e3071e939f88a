"""Runs -> figures, each as PNG and SVG: heat maps, accuracy or loss over tasks, forgetting against size."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator

from cl_bench.reports.collect import KINDS, KNN, LOSS, kinds_of, seen_average
from cl_bench.reports.heatmaps import matrices
from cl_bench.reports.prompts import histograms
from cl_bench.reports.tables import aggregate, ordered, title

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000", "#56B4E9")  # Okabe and Ito, no yellow
MARKERS = "osD^vPX*<>"
LINES = ("-", "--", ":", "-.")
HEAT_MAPS, CURVES = 24, 24  # at most
STYLE: Any = {"font.size": 12, "axes.titlesize": 13, "axes.spines.top": False, "axes.spines.right": False,
         "axes.grid": True, "grid.alpha": 0.3, "lines.linewidth": 2, "lines.markersize": 7,
         "errorbar.capsize": 3, "svg.hashsalt": "cl_bench"}  # fmt: skip
OVERLAPS = ("overlap_within", "overlap_across")
BESIDE = {  # overlap: what stands beside it, its line and marker
    "_null": ("null: random features", "--", "x"),
    "_shuffled": ("null: shuffled labels", ":", "+"),
    "_projected": ("projected to one width", "-.", "d"),
}


def groups(runs: pd.DataFrame, by: Sequence[str]) -> list[tuple[str, pd.DataFrame, dict[str, Any]]]:
    """Label, runs and look of each group, in the order of the table."""
    found = list(ordered(runs, by).groupby(list(by), sort=False))
    styles = looks([key for key, _ in found], by)
    return [(" · ".join(map(str, key)), group, style) for (key, group), style in zip(found, styles, strict=True)]


def looks(keys: Sequence[Sequence[object]], by: Sequence[str]) -> list[dict[str, Any]]:
    """How each series is drawn: a strategy (else a model) has its colour, whatever else differs has a line style.

    The marker is the strategy's, moved on by what else differs; where models have the colours it is of what else differs alone.
    """
    lead = next((column for column in ("strategy", "model") if column in by and len(by) > 1), None)
    at = None if lead is None else by.index(lead)
    names = [str(key if at is None else key[at]) for key in keys]
    others = [str("" if at is None else [*key[:at], *key[at + 1 :]]) for key in keys]
    colour, line = ({name: i for i, name in enumerate(dict.fromkeys(found))} for found in (names, others))
    return [
        {
            "color": COLOURS[colour[name] % len(COLOURS)],
            "marker": MARKERS[(line[other] + (0 if lead == "model" else colour[name])) % len(MARKERS)],
            "linestyle": LINES[(line[other] + colour[name] // len(COLOURS)) % len(LINES)],
        }
        for name, other in zip(names, others, strict=True)
    ]


def panels_of(kinds: Sequence[str], ylabel: str, xlabel: str) -> tuple[Figure, dict[str, Axes]]:
    """One panel a kind of evaluation with a common y axis."""
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    panels = dict(zip(kinds, figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0], strict=True))
    for kind, axes in panels.items():
        axes.set(title=title(kind), xlabel=xlabel)
    panels[kinds[0]].set_ylabel(ylabel)
    return figure, panels


def finish(figure: Figure, panels: dict[str, Axes]) -> Figure:
    """A legend outside of the axes, and a word in a panel without data."""
    handles: dict[str, Artist] = {}
    for axes in panels.values():
        handles |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        if not axes.has_data():
            axes.text(0.5, 0.5, "undefined for these runs", ha="center", transform=axes.transAxes, color="0.4")
    if handles:
        columns = -(-len(handles) // 18)  # a longer legend would be higher than the axes
        width = 0.1 * max(map(len, handles)) + 0.8  # inches a legend column takes from the axes
        figure.set_size_inches(9.5 + columns * width, 4.8)
        figure.legend(list(handles.values()), list(handles), loc="outside right center", frameon=False, ncols=columns)
    return figure


def over_tasks(runs: pd.DataFrame, by: Sequence[str], kinds: Sequence[str] = KINDS) -> Figure:
    """Average accuracy (or loss) over the tasks seen so far; the band is one sample standard deviation over runs."""
    what = "loss over seen tasks (nats)" if LOSS in kinds else "accuracy over seen tasks (%)"
    figure, panels = panels_of(kinds, f"average {what}", "experiences learned")
    for kind, axes in panels.items():
        for label, group, style in groups(runs, by):
            curves = [curve for folder in group["folder"] if (curve := seen_average(Path(folder), kind)) is not None]
            table = pd.concat(curves, axis=1).sort_index() if curves else pd.DataFrame()
            mean, std = table.mean(axis=1), table.std(axis=1, ddof=1).fillna(0)
            if len(mean) == 1:  # a joint run is evaluated once, at the end
                axes.errorbar(mean.index, mean, std, label=label, **style | {"linestyle": "none"})
            elif len(mean):
                axes.plot(mean.index, mean, label=label, **style)
                axes.fill_between(mean.index, mean - std, mean + std, color=style["color"], alpha=0.18, lw=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return finish(figure, panels)


def over_sizes(runs: pd.DataFrame, by: Sequence[str], metrics: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """(table with the parameters as size, columns of a series): models of one method make one series."""
    runs = runs.assign(**{name: np.nan for name in metrics if name not in runs.columns})
    sizes = runs.groupby(list(by), as_index=False)["parameters"].mean()
    table = aggregate(runs, by, metrics).merge(sizes, on=list(by)).rename(columns={"parameters": "size"})
    for dropped in (("model", "tag"), ("model",), ("tag",), ()):  # what may differ along a series
        series = [column for column in by if column not in dropped]
        if series and not table.duplicated([*series, "size"]).any():
            break
    return table.sort_values("size"), series


def size_axis(axes: Axes, sizes: pd.Series) -> None:
    """Logarithmic, 1k, 2k, 5k, ..."""
    axes.set(xscale="log", xlim=(sizes.min() / 2, sizes.max() * 2))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if np.ptp(np.log10(sizes)) < 1.5 else (1,)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_locator(NullLocator())


def forgetting_vs_parameters(runs: pd.DataFrame, by: Sequence[str], kinds: Sequence[str] = KINDS) -> Figure | None:
    """Average forgetting against the number of parameters; models of one method are joined by a line. None where all have one."""
    metrics = [f"{kind}_average_forgetting" for kind in kinds]
    unit, scale = ("nats", 1) if LOSS in kinds else ("percentage points", 100)
    table, series = over_sizes(runs, by, metrics)
    if not table.duplicated(series).any() and runs["model"].nunique() == 1:
        return None
    figure, panels = panels_of(kinds, f"average forgetting ({unit})", "parameters")
    for axes, metric in zip(panels.values(), metrics, strict=True):
        for label, group, style in groups(table, series):
            group = group.dropna(subset=f"{metric}_mean")
            mean, std = scale * group[f"{metric}_mean"], scale * group[f"{metric}_std"].fillna(0)
            if len(mean):
                axes.errorbar(group["size"], mean, std, label=label, **style)
        size_axis(axes, table["size"])
    return finish(figure, panels)


def overlap_vs_parameters(runs: pd.DataFrame, by: Sequence[str]) -> Figure:
    """Class overlap against the number of parameters, beside it its nulls, and the same at one width for all."""
    metrics = [f"{name}{end}" for name in OVERLAPS for end in ("", *BESIDE)]
    table, series = over_sizes(runs, by, metrics)
    figure, panels = panels_of(KINDS, "overlap of class representations", "parameters")
    for axes, metric in zip(panels.values(), OVERLAPS, strict=True):
        axes.set_title(f"{metric.removeprefix('overlap_')} tasks")
        for label, group, style in groups(table, series):
            group = group.dropna(subset=f"{metric}_mean")
            if group.empty:
                continue
            look: dict[str, Any] = style | {"linestyle": "-"}
            axes.errorbar(group["size"], group[f"{metric}_mean"], group[f"{metric}_std"].fillna(0), label=label, **look)
            for end, (_, line, marker) in BESIDE.items():
                look = {"linestyle": line, "marker": marker, "markersize": 5, "lw": 1.2, "alpha": 0.7, "color": style["color"]}
                axes.plot(group["size"], group[f"{metric}{end}_mean"], **look)
        size_axis(axes, table["size"])
    axes.set_ylim(bottom=0)
    for words, line, marker in BESIDE.values():
        axes.plot([], [], linestyle=line, marker=marker, markersize=5, lw=1.2, color="0.4", label=words)
    return finish(figure, panels)


def streams(runs: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """(what to add to a file's name, the runs of a stream)."""
    found = list(runs.groupby(["scenario", "data"], sort=False))
    return [("" if len(found) == 1 else f"_{scenario}_{data}", part) for (scenario, data), part in found]


def write(runs: pd.DataFrame, by: Sequence[str], out: Path) -> list[Path]:
    """Draw everything; a group whose runs have no common matrix gets no heat map, and a note says so."""
    with matplotlib.rc_context(STYLE):
        figures = {}
        for kinds in kinds_of(runs):
            what, prefix = {KINDS: ("accuracy", ""), KNN: ("knn_accuracy", "knn_"), (LOSS,): ("loss", "loss_")}[kinds]
            for stream, part in streams(runs):  # unlike streams have no common axis of tasks
                own = [column for column in by if column not in ("scenario", "data") or part[column].nunique() > 1] or ["strategy"]
                lines = len(groups(part, own))
                if lines > CURVES:
                    print(
                        f"note: {lines} groups are too many curves for {what}_over_tasks{stream}; give fewer folders, or columns to --by."
                    )
                else:
                    figures[f"{what}_over_tasks{stream}"] = over_tasks(part, own, kinds)
            if figure := forgetting_vs_parameters(runs, by, kinds):
                figures[f"{prefix}forgetting_vs_parameters"] = figure
            found = groups(runs, by)
            if len(found) > HEAT_MAPS:
                print(f"note: {len(found)} groups are too many for a heat map each; give fewer folders, or fewer columns to --by.")
            for label, group, _ in found if len(found) <= HEAT_MAPS else ():
                if figure := matrices(label, group, kinds):
                    figures[f"{what}_matrix_{re.sub('[^A-Za-z0-9.=_-]+', '_', label)}"] = figure
                else:
                    print(f"note: no heat map for {label}: its runs have different tasks, or lack {what} files.")
        for label, group, _ in groups(runs, by):
            if figure := histograms(group):
                figures[f"prompts_{re.sub('[^A-Za-z0-9.=_-]+', '_', label)}"] = figure
        if {*OVERLAPS} & {*runs.columns} and runs["model"].nunique() > 1:
            figures["overlap_vs_parameters"] = overlap_vs_parameters(runs, by)
    return save(figures, out)


def save(figures: Mapping[str, Figure], out: Path) -> list[Path]:
    """Each as PNG and SVG."""
    written = []
    with matplotlib.rc_context(STYLE):
        for name, figure in figures.items():
            for suffix in ("png", "svg"):
                written.append(out / f"{name}.{suffix}")
                figure.savefig(written[-1], dpi=150, metadata={"Date": None} if suffix == "svg" else None)
    return written
