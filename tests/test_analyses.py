"""Frontier, matched forgetting and trend: by hand, beside slow twins, and as the command writes them."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from made_up_runs import make_run
from scipy.stats import spearmanr

from cl_bench.reports import analyses, collect, frontier, plots, tables
from cl_bench.reports.__main__ import main
from cl_bench.reports.trend import bootstrap, by_chance, spearman, trends

SIZES = {"vit_xs": 10, "vit_s": 20, "vit_b": 40}


def two_tasks(a: float, after: float, b: float) -> str:
    return f"after,task0,task1\n0,{a},\n1,{after},{b}\n"


def sweep(root: Path, model: str, strategy: str, rates: dict[str, str], seed: int = 0, init: str = "scratch", **summary: float) -> None:
    """One run a learning rate, the rate in its tag."""
    for tag, matrix in rates.items():
        folder = make_run(root, strategy, seed, 0.5, matrix, model=model, tag=f"{init}_{tag}")
        config = yaml.safe_load((folder / "config.yaml").read_text()) | {"model": {"init": init}}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / "provenance.json").write_text(f'{{"parameters": {SIZES[model]}}}')
        with (folder / "summary.csv").open("a") as file:
            file.writelines(f"{name},{value}\n" for name, value in summary.items())


def table(*paths: Path) -> tuple[pd.DataFrame, list[str]]:
    runs, pool = analyses.pools(collect.read_runs(paths), None)
    return frontier.mark(frontier.points(runs, pool), pool), pool


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12))
def test_non_dominated_twin(points: list[tuple[int, int]]) -> None:
    a, b = (np.array(z, dtype=float) for z in zip(*points))
    slow = [not any(p[0] >= q[0] and p[1] >= q[1] and p != q for p in points) for q in points]
    assert frontier.non_dominated(a, b).tolist() == slow


def test_points_are_runs_and_their_moments(tmp_path: Path) -> None:
    sweep(tmp_path, "vit_s", "er", {"ahead": "after,task0,task1\n-1,0.1,0.1\n0,0.9,0.5\n1,0.6,0.8\n", "plain": two_tasks(0.8, 0.5, 0.7)})
    found, pool = table(tmp_path)
    assert pool == ["size"] and set(found["kind"]) == set(collect.KINDS)
    part = found[found["kind"] == "task_il"].sort_values(["tag", "after"])
    assert part[["after", "final", "a", "b", "frontier"]].to_numpy().tolist() == [
        [0, False, 0.9, 0.5, False],  # before training: left out; before the last task: a point, and no end
        [1, True, 0.6, 0.8, True],
        [1, True, 0.5, 0.7, False],  # of another rate of the same group, and beaten by it
    ]
    assert part["forgetting"].tolist() == pytest.approx([0, 0.3, 0.3])


RATES = {"1": two_tasks(0.9, 0.85, 0.6), "2": two_tasks(0.9, 0.7, 0.8), "3": two_tasks(0.9, 0.1, 0.75)}


def test_matched_by_hand(tmp_path: Path) -> None:
    sweep(tmp_path, "vit_s", "er", RATES)
    sweep(tmp_path, "vit_s", "er", {"1": two_tasks(0.9, 0.8, 0.5), "2": two_tasks(0.9, 0.6, 0.9)}, seed=1)
    sweep(tmp_path, "vit_b", "er", {"1": two_tasks(0.9, 0.9, 0.7)})
    found, pool = table(tmp_path)
    assert pool == ["model"]  # the tag tells rates and is pooled
    at = frontier.matched(found, pool, None).query("kind == 'task_il'").set_index("model")
    assert at["task_b"].tolist() == [0.7, 0.7]  # the least of the bests 0.8, 0.9, 0.7
    # 0.05 + (0.2 - 0.05) / 2, the dominated run left out; 0.1 + (0.3 - 0.1) / 2
    assert at.loc["vit_s", "mean"] == pytest.approx((0.125 + 0.2) / 2)
    assert at.loc["vit_s", "std"] == pytest.approx(0.075 / math.sqrt(2)) and at.loc["vit_s", "n"] == 2
    assert at.loc["vit_b", "mean"] == pytest.approx(0) and at.loc["vit_b", "note"] == ""


def test_of_losses_less_is_better(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, runs in enumerate((((2.0, 2.5, 3.0), (2.0, 2.9, 2.6), (2.0, 3.5, 2.8)), ((2.0, 2.4, 3.2), (2.0, 2.8, 2.4)))):
        for rate, (a, after, b) in enumerate(runs):
            folder = make_run(tmp_path, "er", seed, None, tag=f"lr{rate}")
            for kind in collect.KINDS:
                (folder / f"accuracy_{kind}.csv").unlink()
            (folder / "loss.csv").write_text(two_tasks(a, after, b))
            (folder / "summary.csv").write_text("metric,value\nloss_average_forgetting,0.5\nloss_forgetting_over_T,0.25\n")
    found, pool = table(tmp_path)
    assert found.sort_values(["seed", "tag"])["frontier"].tolist() == [True, True, False, True, True]
    [at] = frontier.matched(found, pool, None).to_dict("records")
    assert at["kind"] == "loss" and at["task_b"] == 2.6  # the larger of the least losses 2.6 and 2.4
    # 0.9 at the end of the first frontier; 0.4 + (0.8 - 0.4) * (3.2 - 2.6) / (3.2 - 2.4); the third run of seed 0 is left out
    assert at["mean"] == pytest.approx((0.9 + 0.7) / 2) and at["n"] == 2
    [lacking] = frontier.matched(found, pool, 3.1).to_dict("records")
    assert lacking["n"] == 2 and lacking["note"] == "1 of 2 seeds begin at 3.000"  # less than the 3.1 asked for: with its first point
    [missed] = frontier.matched(found, pool, 2.5).to_dict("records")
    assert missed["n"] == 1 and missed["note"] == "no figure for 1 of 2 seeds: they come to 2.600"
    assert main([str(tmp_path), "--analyses", "--out", str(tmp_path / "report")]) == 0
    assert (tmp_path / "report" / "frontier.png").exists() and "no frontier" not in capsys.readouterr().out
    assert "loss forgetting over T" in (tmp_path / "report" / "forgetting_conventions.md").read_text()


def test_what_cannot_be_matched_says_so(tmp_path: Path) -> None:
    sweep(tmp_path, "vit_s", "er", RATES)
    sweep(tmp_path, "vit_b", "er", {"1": two_tasks(0.9, 0.9, 0.7)})
    found, pool = table(tmp_path)
    for target, lacking, best in ((0.75, "vit_b", 0.7), (0.95, "vit_s", 0.8)):
        at = frontier.matched(found, pool, target).set_index(["kind", "model"]).loc["class_il"]
        assert math.isnan(at.loc[lacking, "mean"]) and at.loc[lacking, "n"] == 0
        assert at.loc[lacking, "note"] == f"no figure for 1 of 1 seeds: they come to {best:.3f}"
    at = frontier.matched(found, pool, 0.5).set_index(["kind", "model"]).loc["class_il"]
    at = at.loc[["vit_s", "vit_b"]]
    assert at["mean"].tolist() == pytest.approx([0.05, 0]) and at["note"].tolist() == [f"1 of 1 seeds begin at {b}00" for b in (0.6, 0.7)]


def looked_within(folder: Path, steps: dict[int, tuple[float, float]]) -> None:
    """Looks within both experiences, those of the first to be left out."""
    rows = [{"after": after, "step": k, "on": on, "metric": "task_il", "value": value}
            for after in (0, 1) for k, ab in steps.items() for on, value in zip(("task0", "task1"), ab)]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_moments_within_the_last_task_are_matched_too(tmp_path: Path) -> None:
    sweep(tmp_path, "vit_s", "er", {"1": two_tasks(0.9, 0.7, 0.8)})
    sweep(tmp_path, "vit_b", "er", {"1": two_tasks(0.9, 0.85, 0.95)})
    for folder in tmp_path.glob("*/vit_b/*/*/seed0"):
        looked_within(folder, {1: (0.88, 0.6), 2: (0.86, 0.9), 3: (0.8, 0.85)})
    found, pool = table(tmp_path)
    part = found[(found["model"] == "vit_b") & (found["kind"] == "task_il")]
    assert part[["after", "step", "last", "final", "a", "b"]].to_numpy().tolist() == [
        [1, 1, True, False, 0.88, 0.6],
        [1, 2, True, False, 0.86, 0.9],
        [1, 3, True, False, 0.8, 0.85],
        [1, math.inf, True, True, 0.85, 0.95],
    ]
    at = frontier.matched(found, pool, None).query("kind == 'task_il'").set_index("model")
    assert at["task_b"].tolist() == [0.8, 0.8] and at.loc["vit_s", "mean"] == pytest.approx(0.2)
    assert at.loc["vit_b", "mean"] == pytest.approx(0.02 + (0.04 - 0.02) * (0.8 - 0.6) / (0.9 - 0.6))  # the third moment is dominated


def test_each_stream_is_matched_at_its_own_accuracy(tmp_path: Path) -> None:
    for data, b in (("mnist", 0.8), ("fashion", 0.6)):
        for strategy in ("er", "si"):
            make_run(tmp_path, strategy, 0, 0.5, two_tasks(0.9, 0.7, b), data=data)
    found, pool = table(tmp_path)
    at = frontier.matched(found, pool, None).query("kind == 'task_il'")
    assert at.groupby("data")["task_b"].unique().map(list).to_dict() == {"mnist": [0.8], "fashion": [0.6]} and (at["n"] == 1).all()


def test_scratch_and_pretrained_and_sizes_are_never_pooled(tmp_path: Path) -> None:
    sweep(tmp_path / "a", "vit_s", "er", RATES)
    sweep(tmp_path / "b", "vit_s", "er", RATES, init="somewhere/backbone.safetensors".replace("/", "_"))
    assert table(tmp_path)[1] == ["init"]
    sweep(tmp_path / "b", "vit_b", "er", RATES)
    assert table(tmp_path)[1] == ["model", "init"]
    runs = collect.read_runs([tmp_path])
    assert analyses.pools(runs, ["strategy"])[1] == ["strategy", "init", "size"]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=3, max_size=10))
def test_spearman_is_scipys(points: list[tuple[int, int]]) -> None:
    x, y = zip(*points)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(spearman(x, y))
    else:
        assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)


def test_bootstrap_resamples_seeds() -> None:
    sizes, values, seeds = [1, 2, 3, 1, 2, 3], [3.0, 2.0, 1.0, 4.0, 6.0, 5.0], [0, 0, 0, 1, 1, 1]
    exact = []
    for drawn in itertools.product((0, 1), repeat=2):  # each of the four has a quarter of the resamples
        index = [i for s in drawn for i in range(6) if seeds[i] == s]
        exact.append(spearmanr([sizes[i] for i in index], [values[i] for i in index]).statistic)
    assert bootstrap(sizes, values, seeds) == pytest.approx((min(exact), max(exact)))
    assert all(math.isnan(end) for end in bootstrap(sizes[:3], values[:3], seeds[:3]))
    assert all(math.isnan(end) for end in bootstrap(sizes, [1.0] * 6, seeds))


def test_chance_is_what_a_bootstrap_of_noise_says() -> None:
    rng = np.random.default_rng(7)
    axis, seed = np.repeat([1, 2, 3, 4], 3), np.tile([0, 1, 2], 4)
    told = [not low <= 0 <= high for low, high in (bootstrap(axis, rng.standard_normal(12), seed) for _ in range(300))]
    assert 0.1 < by_chance(4, 3) < 0.35 and by_chance(4, 3) == pytest.approx(np.mean(told), abs=0.1)


def test_trend_of_every_group(tmp_path: Path) -> None:
    for model, size in SIZES.items():
        for seed in (0, 1):
            sweep(tmp_path, model, "er", {"1": RATES["1"]}, seed, figure=-size - seed)
        sweep(tmp_path, model, "si", {"1": RATES["1"]}, figure=size)
        if size < 40:
            sweep(tmp_path, model, "ewc", {"1": RATES["1"]}, figure=size)
    found = trends(collect.read_runs([tmp_path]), ["strategy"], ["figure"]).set_index("strategy")
    assert found.loc["er", "rho"] == pytest.approx(spearmanr([1, 1, 2, 2, 3, 3], [-1, -2, -3, -4, -5, -6]).statistic)
    assert found.loc["er", "low"] == pytest.approx(-1) and found.loc["er", "note"] == ""
    assert found.loc["si", "rho"] == 1 and math.isnan(found.loc["si", "low"]) and "one seed" in found.loc["si", "note"]
    assert math.isnan(found.loc["ewc", "rho"]) and "3 sizes" in found.loc["ewc", "note"]


def test_sizes_of_a_series_are_joined_in_order(tmp_path: Path) -> None:
    for model, size in SIZES.items():
        for tag in ("lr0.003", "lr0.01"):
            sweep(tmp_path, model, "er", {tag: RATES["1"]}, figure=size)
    runs = collect.read_runs([tmp_path])
    joined, series = plots.over_sizes(runs, ["model", "tag"], ["figure"])
    assert series == ["tag"]
    parts = [(label, group["size"].tolist()) for label, group, _ in plots.groups(joined, series)]
    assert parts == [(f"scratch_{tag}", [10, 20, 40]) for tag in ("lr0.003", "lr0.01")]
    assert tables.ordered(runs, ["tag"])["tag"].iloc[0] == "scratch_lr0.003"
    many = pd.DataFrame({"tag": ["b", "a", "c"] * 20, "size": range(60)})
    assert all(part["size"].is_monotonic_increasing for _, part in tables.ordered(many, ["tag"]).groupby("tag"))


def test_command_writes_the_analyses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"overlap_{kind}{end}" for kind in ("within", "across") for end in ("", "_null", "_shuffled", "_projected")]
    conventions = dict.fromkeys((f"{k}_{n}" for k in collect.KINDS for n in ("forgetting_last_minus_learned", "forgetting_over_T")), 0.3)
    for model, size in SIZES.items():
        for init in ("scratch", "pretrained"):
            sweep(tmp_path, model, "er", RATES, 0, init, **dict.fromkeys(names, 1 / size), **conventions)
    assert main([str(tmp_path), "--analyses", "--by", "model", "--out", str(tmp_path / "report")]) == 0
    written = {path.name for path in (tmp_path / "report").iterdir()}
    figures = {f"{stem}.{suffix}" for stem in ("frontier", "overlap_vs_parameters") for suffix in ("png", "svg")}
    assert figures | {"frontier.csv", "matched_forgetting.csv", "trend.csv", "forgetting_conventions.md"} <= written
    trend = pd.read_csv(tmp_path / "report" / "trend.csv").set_index(["init", "metric"])
    assert all(trend.loc[("scratch", f"overlap_within{end}"), "rho"] < -0.9 for end in ("", "_null", "_projected"))
    assert "class-IL forgetting over T" in (tmp_path / "report" / "forgetting_conventions.md").read_text()
    printed = capsys.readouterr().out
    assert "matched accuracy" in printed and "Spearman" in printed and "pools 3 tags" in printed


def test_runs_of_one_task_have_no_frontier(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, "er", 0, 0.5, "after,task0\n0,0.9\n")
    assert main([str(tmp_path), "--analyses"]) == 0
    assert "no frontier" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--match", "0.5"], ["--analyses", "--match", "2"], ["--analyses", "--match", "x"]])
def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main([str(tmp_path), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error:") and error.count("\n") == 1 and "--match" in error
