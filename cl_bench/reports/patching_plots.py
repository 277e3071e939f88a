"""Figures of patching: the segment, its frontier, and the scatter of GradientSimilarity and BackwardKnowledgeTransfer."""

from __future__ import annotations

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from cl_bench.reports.plots import COLOURS, MARKERS, STYLE
from cl_bench.reports.trend import spearman


def figures(segments: pd.DataFrame, pairs: pd.DataFrame) -> dict[str, Figure]:
    with matplotlib.rc_context(STYLE):
        curves = {f"patching_curves_{what}": along(segments, what) for what in ("loss", "accuracy")}
        return {**curves, "patching_frontier": frontier(segments), "patching_transfer": scatter(pairs)}


def shown(segments: pd.DataFrame) -> pd.DataFrame:
    """The part that stands for the tasks: tests where they were measured, and coefficients that all seeds share."""
    part = segments[segments["part"] == ("test" if (segments["part"] == "test").any() else "valid")]
    keys = ["model", "tag", "patched", "on", "role", "coefficient"]
    mean = part.groupby(keys, as_index=False).agg(loss=("loss", "mean"), accuracy=("accuracy", "mean"), seeds=("seed", "nunique"))
    seeds = mean.groupby(["model", "tag", "patched"])["seeds"].transform("max")
    return mean[mean["seeds"] == seeds]


def along(segments: pd.DataFrame, what: str) -> Figure:
    """A panel for each patched task: its own curve thick, those that are kept thin; means over seeds."""
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


def frontier(segments: pd.DataFrame) -> Figure:
    """Mean accuracy on what is kept against accuracy on the new task, from coefficient 0 (filled) to 1 (hollow)."""
    table = shown(segments)
    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes = figure.subplots()
    for i, (name, part) in enumerate(table.groupby("patched", sort=False)):
        new = part[part["role"] == "new"].groupby("coefficient")["accuracy"].mean()
        kept = part[part["role"] == "kept"].groupby("coefficient")["accuracy"].mean().reindex(new.index)
        colour = COLOURS[i % len(COLOURS)]
        axes.plot(new, kept, color=colour, label=name)
        axes.plot(new.iloc[:1], kept.iloc[:1], color=colour, marker=MARKERS[0], linestyle="none")
        axes.plot(new.iloc[-1:], kept.iloc[-1:], color=colour, marker=MARKERS[0], linestyle="none", markerfacecolor="white")
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
            axes.axline((0, 0), slope=1, color="0.6", linewidth=1)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    return figure
