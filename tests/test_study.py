"""The scale study's last stage on made-up runs: what a run started from, figures along axes, questions answered by their numbers."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from made_up_runs import make_run
from matplotlib.figure import Figure
from test_scale import study as load_study

from cl_bench.match import METRIC
from cl_bench.reports import along, analyses, collect, scale
from cl_bench.reports.__main__ import main
from cl_bench.reports.settings import described
from cl_bench.reports.trend import by_chance

SIZES = {"vit_femto": 10, "vit_pico": 20, "vit_nano": 40}


@pytest.fixture
def study() -> ModuleType:
    return load_study()


def made(root: Path, model: str, tag: str, seed: int, lost: float, init: str = "scratch", steps: int = 200, **more: float) -> Path:
    """A run of the presets: 0.9 on task A when learned, less `lost` at the end, 0.8 on task B."""
    matrix = f"after,task0,task1\n0,0.9,\n1,{0.9 - lost},0.8\n"
    folder = make_run(root, "sequential", seed, 0.5, matrix, data="mnist5k", model=model, tag=f"scale2_{tag}_lr0.03")
    config = yaml.safe_load((folder / "config.yaml").read_text()) | {"row": tag.split("_")[0], "lr": 0.03, "slow": 1.0}
    config |= {"model": {"init": init}, "train": {"steps": steps}, "runtime": {"outputs": "outputs"}}
    config["match"] = {"run": "there" if tag == "stopped" else None}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "provenance.json").write_text(json.dumps({"parameters": SIZES[model]}))
    figures = {"task_il_average_forgetting": lost, "task_il_average_accuracy": 0.85 - lost / 2, **more}
    (folder / "summary.csv").write_text("metric,value\n" + "".join(f"{name},{value}\n" for name, value in figures.items()))
    (folder / "metrics.jsonl").write_text(json.dumps({"after": 0, "on": "task0", "metric": METRIC, "value": 0.9}) + "\n")
    return folder


def backbone(root: Path, model: str, share: float, step: str = "") -> str:
    folder = Path("pretrain_glyphs", model, "supervised_sequential", f"scale_fraction{share}", "seed0")
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / "config.yaml").write_text(yaml.safe_dump({"train": {"steps": 3000}, "scenario": {"fraction": share}}))
    return f"outputs/{folder}/backbone{step}.safetensors"  # as the run was told it, wherever its outputs are now


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Pretrained models lose less the larger they are, the longer and the more data they were pretrained on; scratch ones all lose 0.5."""
    root = tmp_path / "moved"
    for number, model in enumerate(SIZES):
        for seed in (0, 1):
            shade = 0.001 * seed
            overlaps = {"overlap_within": 0.7 - 0.1 * number + shade, "overlap_within_null": 0.8 - 0.2 * number}
            overlaps |= {"overlap_within_projected": 0.3 + 0.1 * number}
            made(root, model, "scratch", seed, 0.5 + shade, **overlaps)
            made(root, model, "pretrained", seed, 0.2 - 0.05 * number + shade, backbone(root, model, 1.0), **overlaps)
            made(root, model, "stopped", seed, 0.4 - shade, backbone(root, model, 1.0))
    for seed in (0, 1):
        for step, lost in ((30, 0.4), (100, 0.3)):
            made(root, "vit_femto", f"pretrained_step{step}", seed, lost, backbone(root, "vit_femto", 1.0, f"_step{step}"))
        for share, lost in ((0.0625, 0.23), (0.5, 0.21)):
            made(root, "vit_femto", f"pretrained_fraction{share}", seed, lost + 0.01 * seed, backbone(root, "vit_femto", share))
        for steps, lost in ((50, 0.3), (400, 0.6)):
            made(root, "vit_femto", f"scratch_steps{steps}", seed, lost, steps=steps)
    return root


def test_what_a_run_started_from(outputs: Path) -> None:
    elsewhere = made(outputs, "vit_pico", "pretrained", 7, 0.1, "pretrained")
    found = described(collect.read_runs([outputs])).set_index(["model", "tag", "seed"])
    columns = ["family", "start", "rate", "pretraining_steps", "pretraining_data", "finetuning_steps"]
    told = {
        "scratch_steps50": ["vit", "scratch", 0.03, 0, 0, 50],
        "pretrained": ["vit", "pretrained", 0.03, 3000, 1, 200],
        "stopped": ["vit", "stopped", 0.03, 3000, 1, 200],
        "pretrained_step30": ["vit", "pretrained", 0.03, 30, 1, 200],
        "pretrained_fraction0.0625": ["vit", "pretrained", 0.03, 3000, 0.0625, 200],
    }
    for tag, values in told.items():
        assert found.loc[("vit_femto", f"scale2_{tag}_lr0.03", 0), columns].tolist() == values
    assert math.isnan(found.loc[("vit_pico", elsewhere.parent.name, 7), "pretraining_steps"])  # of timm: no run here made them


def test_frontiers_part_what_pretraining_differs_in(outputs: Path) -> None:
    runs, pool = analyses.pools(collect.read_runs([outputs]), None)
    assert pool == ["model", "init"]
    of_one = set(runs.loc[runs["model"] == "vit_femto", "init"])
    rest = {"pretrained, 30 steps, 1 of the data", "pretrained, 100 steps, 1 of the data", "stopped, 3000 steps, 1 of the data"}
    assert {"scratch", "pretrained, 3000 steps, 1/16 of the data", "pretrained, 3000 steps, 1/2 of the data", *rest} < of_one


def test_trends_are_at_one_rate(outputs: Path) -> None:
    for folder in list(outputs.glob("*/*/*/scale2_scratch_lr0.03/seed*")):
        twin = Path(shutil.copytree(folder, folder.parents[1] / "scale2_scratch_lr0.1" / folder.name))
        config = yaml.safe_load((twin / "config.yaml").read_text()) | {"lr": 0.1}
        (twin / "config.yaml").write_text(yaml.safe_dump(config))
    runs = [str(folder) for folder in outputs.glob("*/*/*/scale2_scratch_lr*")]
    assert main([*runs, "--analyses", "--metrics", scale.LOST, "--out", str(outputs / "report")]) == 0
    trend = pd.read_csv(outputs / "report" / "trend.csv")
    assert trend["rate"].tolist() == [0.03, 0.1] and trend["runs"].tolist() == [6, 6] and trend["note"].isna().all()


AGREE = "{} of 6 pairs agree on task A within 0.02 of accuracy on the test"


def test_the_gap_that_pairs_leave_on_task_a_stands_beside(outputs: Path) -> None:
    [matrix] = outputs.glob("*/vit_femto/*/scale2_stopped_lr0.03/seed1/accuracy_task_il.csv")
    matrix.write_text(matrix.read_text().replace("0,0.9", "0,0.94"))  # a gap of 0.04, and 0.04 more to forget
    equal = scale.answers(collect.read_runs([outputs]))[0]
    row = equal.table.set_index("model").loc["vit_femto"]
    assert row["saved"] == pytest.approx((0.1 + 0.062) / 2) and row["gap"] == pytest.approx(0.02) and row["pairs"] == 2
    assert row["saved within 0.02"] == pytest.approx(0.1) and row["pairs within"] == 1
    assert equal.words[1] == AGREE.format(5)


def test_the_questions_are_answered_by_the_numbers(outputs: Path) -> None:
    equal, same_b, size, steps, data, overlap, tuned, language = scale.answers(collect.read_runs([outputs]))
    assert equal.table["saved"].tolist() == pytest.approx([0.101] * 3) and equal.table["pairs"].tolist() == [2] * 3
    assert equal.table[["low", "high"]].to_numpy().ravel().tolist() == pytest.approx([0.1, 0.102] * 3)
    assert equal.words == ["stopped: " + words(0, 3, 3, "more forgetting", "less"), AGREE.format(6)]
    # every run has 0.8 on task B; of scratch's steps the best frontier is what loses least of task A
    at = same_b.table.set_index("model")
    assert at["task b"].tolist() == [0.8] * 3 and at["scratch forgetting"].tolist() == pytest.approx([0.3, 0.5005, 0.5005])
    assert at["pretrained forgetting"].tolist() == pytest.approx([0.2005, 0.1005, 0.1505])
    assert same_b.words == ["pretrained models forget less in 3 and not less in 0, by means; no figure for 0 of 3 models"]
    rho = size.table[size.table["metric"] == scale.LOST].set_index("start")
    assert rho.loc["pretrained", "runs"] == 6 and rho.loc["pretrained", "rho"] == pytest.approx(-(16 / 17.5) * math.sqrt(17.5 / 16))
    assert rho.loc["scratch", "rho"] == 0 and rho["sizes"].tolist() == [3, 3]
    by_luck = f"; by chance {by_chance(3, 2):.0%} of groups of 3 and 2 seeds would fall or rise"
    assert size.words == ["pretrained: " + words(1, 0, 1) + by_luck, "scratch: " + words(0, 0, 1) + by_luck]
    [falls] = steps.table.loc[steps.table["metric"] == scale.LOST, "rho"]
    assert falls < -0.9 and steps.table["values"].iloc[0] == 3
    # 0.23 + 0.01 seed less 0.2 + 0.001 seed
    assert data.table["more forgetting"].tolist() == pytest.approx([0.0345])
    assert data.table[["low", "high"]].iloc[0].tolist() == pytest.approx([0.03, 0.039]) and "at 1/16" in data.table
    rho = overlap.table.groupby("metric")["rho"]
    assert (rho.max()[["overlap_within", "overlap_within_null"]] < -0.9).all() and rho.min()["overlap_within_projected"] > 0.9
    assert tuned.table.loc[tuned.table["metric"] == scale.LOST, "rho"].tolist() == pytest.approx([0.9], abs=0.1)
    assert language.words == ["no run is about this yet"]


def words(falls: int, rises: int, groups: int, below: str = "falls", above: str = "rises") -> str:
    undecided = f"undecided in {groups - falls - rises} (the interval holds 0), too few sizes or seeds in 0"
    return f"{below} in {falls}, {above} in {rises}, {undecided} of {groups} groups"


def test_answers_are_written_for_people_and_programs(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = scale.write(collect.read_runs([outputs]), outputs / "study")
    assert {path.name for path in written} == {"answers.md", *(f"question{k}.csv" for k in range(1, 8))}
    text = (outputs / "study" / "answers.md").read_text()
    assert text in capsys.readouterr().out and text.count("\n## ") == 8
    assert "| 0.1010 [0.1000, 0.1020] |" in text and "rho of task-IL average forgetting" in text
    assert {"low", "high", "metric"} <= set(pd.read_csv(outputs / "study" / "question3.csv"))


def points(figure: Figure) -> list[np.ndarray]:
    """Where each lies in its panel, 0 to 1."""
    return [
        place
        for axes in figure.axes
        for line in axes.lines
        for place in axes.transAxes.inverted().transform(axes.transData.transform(line.get_xydata()))
    ]


def test_along_draws_models_that_have_enough_values(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tags = [folder for tag in ("scratch", "pretrained", "pretrained_step*") for folder in outputs.glob(f"*/*/*/scale2_{tag}_lr0.03")]
    assert main([*map(str, tags), "--along", "pretraining_steps", "--out", str(outputs / "report")]) == 0
    names = {path.name for path in (outputs / "report").iterdir()}
    assert {"along_pretraining_steps.png", "along_pretraining_steps.svg", "trend_pretraining_steps.csv"} <= names
    trend = pd.read_csv(outputs / "report" / "trend_pretraining_steps.csv")
    assert trend["model"].unique().tolist() == ["vit_femto"] and trend["values"].tolist() == [3, 3]  # scratch is no step of pretraining
    figure = along.along(described(collect.read_runs(tags)), "pretraining_steps")
    assert len(points(figure)) >= 6 and all(0 <= x <= 1 and 0 <= y <= 1 for x, y in points(figure))  # none lies outside of its panel
    assert figure.axes[0].get_ylim()[0] == 0
    assert along.said(0.0625) == "1/16" and along.said(0) == "none" and along.said(3000.0) == "3000"
    capsys.readouterr()
    assert main([str(tags[0]), "--along", "pretraining_data"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "no model here has runs at 3 values" in error


def test_along_shows_gains(tmp_path: Path) -> None:
    for steps, lost in ((50, -0.3), (200, -0.1), (400, 0.1)):
        made(tmp_path, "vit_femto", f"scratch_steps{steps}", 0, lost, steps=steps)
    figure = along.along(described(collect.read_runs([tmp_path])), "finetuning_steps")
    assert len(points(figure)) >= 6 and all(0 <= x <= 1 and 0 <= y <= 1 for x, y in points(figure))
    assert figure.axes[0].get_ylim()[0] < -30 and figure.axes[0].get_ylim()[1] > 0


def test_report_alone_trains_nothing(outputs: Path, study: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: commands.append(command) or SimpleNamespace(returncode=0))
    monkeypatch.setattr(sys, "argv", ["study.py", "--report", "--outputs", str(outputs)])
    assert study.main() == 0
    assert all(command[2] == "cl_bench.reports" for command in commands)
    found = {Path(command[-1]).name: {Path(f).name for f in command if "scale2_" in f} for command in commands}
    vit = ("split_cifar10", "scratch_vs_pretrained", "pretraining_steps", "pretraining_data", "finetuning_steps", "overlap")
    assert set(found) == {f"{name}_vit" for name in vit}
    assert found["finetuning_steps_vit"] == {f"scale2_{t}_lr0.03" for t in ("scratch", "pretrained", "scratch_steps50", "scratch_steps400")}
    assert (outputs / "study" / "answers.md").exists()
