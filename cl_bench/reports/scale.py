"""The questions of the scale study (Ramasesh et al., ICLR 2022), answered from run folders, whatever the numbers say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from cl_bench.core.errors import ConfigError
from cl_bench.reports import along, frontier, handicapped, tables
from cl_bench.reports.settings import described
from cl_bench.reports.trend import LEAST, by_chance, interval, trends

HOW = (
    "Spearman's rho and differences are over all runs of a group, beside each the middle 95 % of a bootstrap over seeds. Of a few seeds it "
    "is too narrow: how often it would exclude 0 where nothing falls or rises stands beside the counts. The seeds are of fine-tuning: all "
    "of a size start from one pretrained backbone, at every rate, so that its luck counts as its size's, and groups are not independent. "
    "The classes come in one order."
)
PLAIN = r"scale\d*_(scratch|pretrained)(_lr[\d.]+)?"  # tags of runs that vary nothing but size, rate and seed
FEW = 4  # seeds: for more the simulation takes minutes
CLOSE = 0.02  # of accuracy on task A, ours: pairs nearer than that are counted and averaged apart
LOST, LEARNED, FINAL = "task_il_average_forgetting", "task_il_learning_accuracy", "task_il_average_accuracy"
STREAM = ["scenario", "data"]
MODEL = [*STREAM, "model", "start", "rate"]


class Answer(NamedTuple):
    question: str
    words: list[str]
    table: pd.DataFrame


def answers(runs: pd.DataFrame) -> list[Answer]:
    """Of runs of conf/experiment/scale; a question that no run is about says so."""
    told = described(runs[runs["tag"].str.startswith("scale") & (runs["scenario"] != "pretrain")])
    if told.empty:
        raise ConfigError("no runs of experiment=scale/<name> are here; run one, such as experiment=scale/split_cifar10 offline=true")
    told = told.assign(
        **{name: math.nan for name in (LOST, LEARNED, FINAL, "loss_average_forgetting", "overlap_within") if name not in told}
    )
    plain = told[told["tag"].str.fullmatch(PLAIN)]
    images = plain.dropna(subset=[LOST])
    steps = told[told["tag"].str.fullmatch(PLAIN.replace("(_lr", r"(_step\d+)?(_lr")) & (told["start"] == "pretrained")]
    data = told[told["tag"].str.fullmatch(PLAIN.replace("(_lr", r"(_fraction[\d.]+)?(_lr")) & (told["start"] == "pretrained")]
    tuned = told[told["tag"].str.fullmatch(PLAIN.replace("(_lr", r"(_steps\d+)?(_lr")) & told["start"].isin(["scratch", "pretrained"])]
    group = [*STREAM, "family", "start", "rate"]
    return [
        at_equal_accuracy(told),
        at_equal_task_b(tuned),
        Answer("Does forgetting fall with size among pretrained models, and not among scratch ones?", *over(images, group, "parameters")),
        Answer(
            "Does forgetting fall with the steps of pretraining?", *over(varied(steps, "pretraining_steps"), MODEL, "pretraining_steps")
        ),
        with_less_data(varied(data, "pretraining_data")),
        overlap_beyond_null(plain.dropna(subset=["overlap_within"]), group),
        Answer("Does forgetting rise with the steps of fine-tuning?", *over(varied(tuned, "finetuning_steps"), MODEL, "finetuning_steps")),
        language(plain.dropna(subset=["loss_average_forgetting"])),
    ]


def varied(runs: pd.DataFrame, axis: str) -> pd.DataFrame:
    """Of models that were run at several values of the axis."""
    known = runs.dropna(subset=[axis, LOST])
    return known[known.groupby(MODEL)[axis].transform("nunique") > 1]


def over(runs: pd.DataFrame, by: Sequence[str], axis: str, metrics: Sequence[str] = (LOST, LEARNED)) -> tuple[list[str], pd.DataFrame]:
    """(in how many groups the first metric falls or rises, by start; rho of each metric in each group)."""
    if runs.empty:
        return ["no run is about this yet"], pd.DataFrame()
    table = trends(runs, by, metrics, axis)
    shown = table[table["metric"] == metrics[0]]
    parts = shown.groupby("start", sort=False) if "start" in by else [("all", shown)]
    words = [f"{name}: {counted(part['low'], part['high'], 'falls', 'rises')}{chance(part)}" for name, part in parts]
    return words, table


def chance(part: pd.DataFrame) -> str:
    """How often the interval would exclude 0 by chance in groups as large as the largest here."""
    values = int(part["sizes" if "sizes" in part else "values"].max())
    seeds = int(part["seeds"].max())
    if values < LEAST or not 2 <= seeds <= FEW:
        return ""
    return f"; by chance {by_chance(values, seeds):.0%} of groups of {values} and {seeds} seeds would fall or rise"


def counted(low: pd.Series, high: pd.Series, below: str, above: str) -> str:
    """falls in 2, rises in 0, undecided in 1 (the interval holds 0), too few sizes or seeds in 0 of 3 groups"""
    down, up, none = int((high < 0).sum()), int((low > 0).sum()), int(low.isna().sum())
    rest = f"undecided in {len(low) - down - up - none} (the interval holds 0), too few sizes or seeds in {none}"
    return f"{below} in {down}, {above} in {up}, {rest} of {len(low)} groups"


def at_equal_accuracy(runs: pd.DataFrame) -> Answer:
    """By model and protocol of handicapped.py, over pairs at all rates: what pretraining saves, and the gap on task A that is left."""
    question = "Do pretrained models forget less than scratch ones at matched accuracy on task A?"
    scale = handicapped.read(runs)
    found = handicapped.pairs(scale) if len(scale) else scale
    if found.empty:
        return Answer(question, ["no run is about this yet"], pd.DataFrame())
    found = found.assign(saved=found["scratch forgetting"] - found["handicapped forgetting"])
    by, lines = [*STREAM, "model", "protocol"], []
    for key, part in tables.ordered(found, by).groupby(by, sort=False):
        close = part[part["gap"].abs() <= CLOSE]
        ends = dict(zip(("low", "high"), difference(part, "saved"), strict=True))
        beside = {name: part[name].mean() for name in ("gap", "scratch forgetting", "handicapped forgetting", "scratch b", "handicapped b")}
        counts = {"pairs": len(part), f"saved within {CLOSE}": close["saved"].mean(), "pairs within": len(close)}
        lines.append({**dict(zip(by, key)), "saved": part["saved"].mean(), **ends, **beside, **counts})
    table = pd.DataFrame(lines)
    words = [f"{p}: {counted(part['low'], part['high'], 'more forgetting', 'less')}" for p, part in table.groupby("protocol", sort=False)]
    agree = f"{table['pairs within'].sum()} of {table['pairs'].sum()} pairs agree on task A within {CLOSE} of accuracy on the test"
    return Answer(question, [*words, agree], table)


def at_equal_task_b(runs: pd.DataFrame) -> Answer:
    """Along the frontiers of rates and moments, at the most accuracy on task B that a model's scratch and pretrained runs all reach."""
    question = "And where they are as accurate on task B?"
    points = frontier.points(runs, [*STREAM, "model", "start"]) if len(runs) else pd.DataFrame()
    lines = []
    for key, part in tables.ordered(points, [*STREAM, "model"]).groupby([*STREAM, "model"], sort=False) if len(points) else ():
        at = frontier.matched(part[part["kind"] == "task_il"], ["start"], None).set_index("start")
        if len(at) == 2:
            means = {f"{name} forgetting": at.loc[name, "mean"] for name in ("scratch", "pretrained")}
            seeds = {f"{name} seeds": at.loc[name, "n"] for name in ("scratch", "pretrained")}
            why = "; ".join(f"{name}: {note}" for name, note in at["note"].items() if note)
            lines.append({**dict(zip((*STREAM, "model"), key)), "task b": at["task_b"].iloc[0], **means, **seeds, "note": why})
    if not lines:
        return Answer(question, ["no run is about this yet"], pd.DataFrame())
    table = pd.DataFrame(lines)
    saved = table["scratch forgetting"] - table["pretrained forgetting"]
    less, none = int((saved > 0).sum()), int(saved.isna().sum())
    words = f"pretrained models forget less in {less} and not less in {len(saved) - less - none}, by means"
    return Answer(question, [f"{words}; no figure for {none} of {len(saved)} models"], table)


def difference(part: pd.DataFrame, column: str) -> tuple[float, float]:
    """Interval of a mean."""
    values = part[column].to_numpy()
    return interval(part["seed"], lambda index: float(values[index].mean()))


def with_less_data(runs: pd.DataFrame) -> Answer:
    """Means at each share of the data, and what the smallest costs beside all of it, by seed."""
    question = "Does forgetting stay low with less data of pretraining, down to 1/16?"
    words, table = over(runs, MODEL, "pretraining_data")
    if runs.empty:
        return Answer(question, words, table)
    lines = []
    for key, part in tables.ordered(runs, MODEL).groupby(MODEL, sort=False):
        at = part.pivot_table(index="seed", columns="pretraining_data", values=[LOST, FINAL])
        means = {f"at {along.said(share)}": at[LOST, share].mean() for share in sorted(at[LOST].columns)}
        least, most = min(at[LOST].columns), max(at[LOST].columns)
        costs = {name: (at[name, least] - at[name, most]).dropna().rename("value").reset_index() for name in (LOST, FINAL)}
        ends = dict(zip(("low", "high"), difference(costs[LOST], "value"), strict=True))
        more = {"more forgetting": costs[LOST]["value"].mean(), **ends, "more accuracy": costs[FINAL]["value"].mean()}
        lines.append({**dict(zip(MODEL, key)), **means, **more, "seeds": len(costs[LOST])})
    table = pd.DataFrame(lines)
    return Answer(question, [f"the least data beside the most: {counted(table['low'], table['high'], 'less forgetting', 'more')}"], table)


def overlap_beyond_null(runs: pd.DataFrame, by: Sequence[str]) -> Answer:
    """Width alone lowers the overlap of random features: the same null for all sizes have features projected to one width."""
    metrics = ["overlap_within_projected", "overlap_within", "overlap_within_null"]
    runs = runs.assign(**{name: math.nan for name in metrics if name not in runs})
    question = "Does the overlap of class representations fall with size, beyond its null (projected to one width: one null for all)?"
    return Answer(question, *over(runs, by, "parameters", metrics))


def language(runs: pd.DataFrame) -> Answer:
    """Forgetting in nats per token."""
    metrics = ["loss_average_forgetting", "loss_learning"]
    question = "Language: does the rise of the first domain's loss fall with size?"
    return Answer(question, *over(runs, [*STREAM, "family", "start"], "parameters", metrics))


def brief(table: pd.DataFrame) -> pd.DataFrame:
    """For people: a figure and its interval in one cell; of trends one row a group, a column a metric."""
    shown = tables.rounded(table)
    if "low" in shown:
        value = "rho" if "rho" in shown else shown.columns[list(shown.columns).index("low") - 1]
        ends = shown["low"].where(shown["low"] == "", " [" + shown["low"] + ", " + shown["high"] + "]")
        shown = shown.assign(**{value: shown[value] + ends}).drop(columns=["low", "high"])
    if "metric" in shown:
        by = list(shown.columns[: list(shown.columns).index("metric")])
        wide = shown.assign(metric="rho of " + shown["metric"]).pivot_table(
            index=by, columns="metric", values="rho", aggfunc="first", sort=False
        )
        rest = shown.drop_duplicates(by).drop(columns=["metric", "rho"])
        shown = rest.merge(wide.reset_index(), on=by)
    return shown


def write(runs: pd.DataFrame, out: Path) -> list[Path]:
    """answers.md, and a CSV a question; printed too."""
    out.mkdir(parents=True, exist_ok=True)
    text, written = f"# The scale study's questions\n\n{HOW}\n", []
    for number, answer in enumerate(answers(runs), 1):
        shown = brief(answer.table)
        text += f"\n## {number}. {answer.question}\n\n" + "".join(f"- {line}\n" for line in answer.words)
        if len(shown):
            text += f"\n{tables.markdown(shown)}"
            written.append(out / f"question{number}.csv")
            answer.table.to_csv(written[-1], index=False)
    (out / "answers.md").write_text(text, encoding="utf-8")
    print(text)
    return [*written, out / "answers.md"]
