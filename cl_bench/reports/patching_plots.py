"""Figures of patching: the segment, its frontier, and the scatter of GradientSimilarity and BackwardKnowledgeTransfer."""

from __future__ import annotations

from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from cl_bench.reports.plots import COLOURS, MARKERS, STYLE
from cl_bench.reports.trend import spearman


def figures(segments: pd.DataFrame, searches: pd.DataFrame, pairs: pd.DataFrame) -> dict[str, Figure]:
    with matplotlib.rc_context(STYLE):
        curves = {f"patching_curves_{what}": along(segments, what) for what in ("loss", "accuracy")}
        return {**curves, "patching_frontier": frontier(segments, searches), "patching_transfer": scatter(pairs)}


def shown(segments: pd.DataFrame) -> pd.DataFrame:
    """Coefficients that all seeds share, means over seeds."""
    part = measured(segments)
    keys = ["model", "tag", "patched", "on", "role", "coefficient"]
    mean = part.groupby(keys, as_index=False).agg(loss=("loss", "mean"), accuracy=("accuracy", "mean"), seeds=("seed", "nunique"))
    seeds = mean.groupby(["model", "tag", "patched"])["seeds"].transform("max")
    return mean[mean["seeds"] == seeds]


def measured(segments: pd.DataFrame) -> pd.DataFrame:
    """The part that stands for the tasks: tests where they were measured."""
    return segments[segments["part"] == ("test" if (segments["part"] == "test").any() else "valid")]


def chosen(segments: pd.DataFrame, searches: pd.DataFrame) -> pd.DataFrame:
    """Rows where a run went to: by the search over all that it kept, its first after each task."""
    keys = ["folder", "after"]
    return measured(segments).merge(searches.drop_duplicates(keys)[[*keys, "coefficient"]], on=[*keys, "coefficient"])


def along(segments: pd.DataFrame, what: str) -> Figure:
    """A panel for each patched task: its own curve dashed, and those of the kept ones; means over seeds."""
    table = shown(segments)
    names = list(dict.fromkeys(table["patched"]))
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows + 0.8), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    kept = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(sorted(set(table["on"][table["role"] == "kept"])))}
    for axes, name in zip(panels, names):
        for (on, role), curve in table[table["patched"] == name].groupby(["on", "role"]):
            style = {"color": kept[on], "label": on} if role == "kept" else {"color": "k", "linestyle": "--", "label": "new task"}
            axes.plot(curve["coefficient"], curve[what], **style)
        axes.set(title=name, xlabel="coefficient", ylabel=f"{what} (nats)" if what == "loss" else what)
    for axes in panels[len(names) :]:
        axes.remove()
    handles = {label: h for axes in panels[: len(names)] for h, label in zip(*axes.get_legend_handles_labels())}
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", frameon=False, ncols=columns)
    return figure


def frontier(segments: pd.DataFrame, searches: pd.DataFrame) -> Figure:
    """Mean accuracy on what is kept against accuracy on the new task, from coefficient 0 to 1; means over seeds."""
    table, reached = shown(segments), chosen(segments, searches)
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    looks: dict[str, dict[str, Any]] = {
        "before": {"markerfacecolor": None},
        "after": {"markerfacecolor": "white"},
        "chosen": {"marker": "*", "markersize": 13},
    }
    for i, (name, part) in enumerate(table.groupby("patched", sort=False)):
        new, kept = (part[part["role"] == role].groupby("coefficient")["accuracy"].mean() for role in ("new", "kept"))
        kept, here = kept.reindex(new.index), reached[reached["patched"] == name].groupby("role")["accuracy"].mean()
        colour = COLOURS[i % len(COLOURS)]
        axes.plot(new, kept, color=colour, label=name)
        ends = {"before": (new.iloc[0], kept.iloc[0]), "after": (new.iloc[-1], kept.iloc[-1]), "chosen": (here["new"], here["kept"])}
        for place, (x, y) in ends.items():
            axes.plot([x], [y], **{"color": colour, "marker": MARKERS[0], "linestyle": "none", **looks[place]})
    for place, look in looks.items():
        axes.plot([], [], **{"color": "0.4", "marker": MARKERS[0], "linestyle": "none", "label": place, **look})
    axes.set(xlabel="accuracy on the new task", ylabel="mean accuracy on kept tasks")
    figure.legend(loc="outside right center", frameon=False)
    return figure


def scatter(pairs: pd.DataFrame) -> Figure:
    """Left the transfer itself, right per length of the gradient; the line is what transfer is where the loss is convex."""
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("transfer", "transfer_per_gradient")):
        for i, (kept, part) in enumerate(pairs.groupby("kept")):
            axes.scatter(
                part["gradient_similarity"], part[name], color=COLOURS[i % len(COLOURS)], marker=MARKERS[i % len(MARKERS)], label=kept
            )
        x, y = pairs["gradient_similarity"], pairs[name]
        pearson = x.corr(y) if len(x) > 1 else float("nan")
        axes.set(xlabel="GradientSimilarity", title=f"Spearman {spearman(x, y):.2f}, Pearson {pearson:.2f}")
        axes.set_ylabel("BackwardKnowledgeTransfer" + (" / |gradient|" if name != "transfer" else ""))
        if name != "transfer":
            axes.axline((0, 0), slope=1, color="0.6", linewidth=1, label="where it is convex")
        axes.locator_params(axis="x", nbins=5)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    return figure
