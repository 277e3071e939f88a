"""Reports on small made-up run folders: numbers by hand, files, and one-line errors."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
import yaml
from made_up_runs import MATRIX, make_run

from cl_bench.reports import collect, heatmaps, plots, tables
from cl_bench.reports.__main__ import main


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Three seeds of er, one of joint (a single row), one unfinished run."""
    root = tmp_path / "outputs"
    for seed, accuracy in enumerate((0.2, 0.4, 0.9)):
        make_run(root, "er", seed, accuracy)
    make_run(root, "joint", 0, 0.95, "after,task0,task1\n1,0.9,1.0\n")
    (make_run(root, "si", 0, 0.3) / "summary.csv").unlink()
    return root


def test_mean_and_sample_std_by_hand(outputs: Path) -> None:
    runs = collect.read_runs([outputs])
    assert len(runs) == 4 and runs["parameters"].tolist() == [89610] * 4
    numbers = tables.aggregate(runs, ["strategy"]).set_index("strategy")
    assert numbers.loc["er", "class_il_average_accuracy_mean"] == pytest.approx(0.5)
    # deviations -0.3, -0.1, 0.4: squares sum to 0.26, over n - 1 = 2
    assert numbers.loc["er", "class_il_average_accuracy_std"] == pytest.approx(math.sqrt(0.13))
    assert numbers.loc["er", "n"] == 3 and numbers.loc["joint", "n"] == 1
    table = tables.comparison(runs, ["strategy"]).set_index("strategy")
    assert table.loc["er", "class_il_average_accuracy"] == "0.5000 ± 0.3606"
    assert table.loc["joint", "class_il_average_accuracy"] == "0.9500"
    assert table.loc["er", "task_il_average_forgetting"] == ""


def test_runs_tell_the_image_size_and_are_not_grouped_by_it(tmp_path: Path) -> None:
    """The model's where it is set, else the data's, as far as provenance.json tells."""
    told = [({"image_size": 16}, [1, 28, 28]), ({"image_size": None}, [1, 28, 28]), ({"image_size": None}, [3, 24, 32])]
    told += [({"image_size": None}, [65]), ({}, None)]  # text; a run of an earlier version
    for seed, (model, shape) in enumerate(told):
        folder = make_run(tmp_path, "er", seed, 0.5)
        config = yaml.safe_load((folder / "config.yaml").read_text()) | {"model": model}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        stream = {"stream": {"shows": "one task", "input_shape": shape}} if shape else {}
        (folder / "provenance.json").write_text(json.dumps({"parameters": 89610} | stream))
    runs = collect.read_runs([tmp_path])
    assert tables.differing(runs) == tables.differing(runs.drop(columns="image_size"))
    assert "image_size" not in tables.comparison(runs, ["strategy"]) and "image_size" not in collect.metric_names(runs)
    assert main([str(tmp_path)]) == 0
    written = pd.read_csv(tmp_path / "report" / "runs.csv", dtype=str, keep_default_na=False)
    assert written["image_size"].tolist() == ["16", "28", "24x32", "", ""]


def test_runs_without_logits_show_what_their_probe_says(tmp_path: Path) -> None:
    (make_run(tmp_path, "lump", 0, 0.5) / "summary.csv").write_text(
        "metric,value\nknn_all_average_accuracy,0.7\nknn_all_anytime_accuracy,0.8\n"
    )
    table = tables.comparison(collect.read_runs([tmp_path]), ["strategy"])
    assert [*table.columns] == ["strategy", "knn_all_average_accuracy", "n"] and table["knn_all_average_accuracy"].tolist() == ["0.7000"]


def test_undefined_value_lowers_the_stated_count(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((0.2, 0.4, None)):
        make_run(tmp_path, "er", seed, accuracy)
    table = tables.comparison(collect.read_runs([tmp_path]), ["strategy"])
    assert table["class_il_average_accuracy"].tolist() == ["0.3000 ± 0.1414 (n=2)"]
    assert table["n"].tolist() == [3]


def test_columns_of_the_group_are_those_that_differ(outputs: Path) -> None:
    runs = collect.read_runs([outputs])
    assert tables.differing(runs) == ["strategy"]
    assert tables.differing(runs[runs["strategy"] == "er"]) == ["strategy"]
    make_run(outputs, "er", 0, 0.5, model="cnn")
    assert tables.differing(collect.read_runs([outputs])) == ["model", "strategy"]


def test_numbers_in_names_sort_by_value(tmp_path: Path) -> None:
    for tag in ("w128", "w32", "w1024"):
        make_run(tmp_path, "er", 0, 0.5, tag=tag)
    assert tables.comparison(collect.read_runs([tmp_path]), ["tag"])["tag"].tolist() == ["w32", "w128", "w1024"]


def test_overlapping_folders_count_a_run_once(outputs: Path) -> None:
    assert len(collect.read_runs([outputs, outputs / "split_mnist"])) == 4


def test_curves_and_matrices_by_hand(outputs: Path) -> None:
    runs = collect.read_runs([outputs])
    er = runs[runs["strategy"] == "er"]
    matrix = heatmaps.mean_matrix(er, "class_il")
    assert matrix is not None and matrix.index.tolist() == [0, 1]  # the row before training is left out
    assert matrix.iloc[1].tolist() == pytest.approx([50, 70]) and math.isnan(matrix.iat[0, 1])
    curve = collect.seen_average(Path(er["folder"].iloc[0]), "class_il")
    assert curve is not None and curve.to_dict() == pytest.approx({1: 90, 2: 60})
    joint = collect.seen_average(Path(runs[runs["strategy"] == "joint"]["folder"].iloc[0]), "class_il")
    assert joint is not None and joint.to_dict() == pytest.approx({2: 95})


def test_matrices_of_different_tasks_are_not_averaged(tmp_path: Path) -> None:
    make_run(tmp_path, "er", 0, 0.5)
    make_run(tmp_path, "er", 1, 0.5, MATRIX.replace("task1", "other"))
    assert heatmaps.mean_matrix(collect.read_runs([tmp_path]), "class_il") is None


def test_cited_figures_stand_beside_their_own_stream(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, "ewc", 0, 0.2)
    make_run(tmp_path, "ewc", 0, 0.3, "after,first,second\n0,0.8,\n1,0.6,0.7\n", {"article": [0.65, 0.75]}, data="cited")
    assert main([str(tmp_path), "--by", "strategy"]) == 0
    out = capsys.readouterr().out
    assert "several streams" in out and "nan" not in out
    published = out[out.rindex("┏") :]
    assert all(word in published for word in ("first", "0.6500", "0.7500", "0.6000", "article")) and "task0" not in published


def test_curves_with_unlike_looks_are_drawn_in_order(tmp_path: Path) -> None:
    for seed, matrix in enumerate(("after,a\n9,0.5\n19,0.6\n", "after,a\n4,0.4\n29,0.7\n")):
        make_run(tmp_path, "er", seed, 0.5, matrix)
    figure = plots.over_tasks(collect.read_runs([tmp_path]), ["strategy"])
    drawn = figure.axes[0].lines[0].get_xdata()
    assert list(drawn) == sorted(drawn) and len(drawn) == 4


def test_more_curves_than_an_eye_follows_are_not_drawn(
    outputs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "CURVES", 1)
    assert main([str(outputs)]) == 0
    assert "2 groups are too many curves for accuracy_over_tasks" in capsys.readouterr().out
    assert not list((outputs / "report").glob("accuracy_over_tasks*"))


def test_doubtful_groups_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "a", "er", 0, 0.5)
    make_run(tmp_path / "b", "er", 0, 0.5, MATRIX.replace("task1", "other"))
    assert main([str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    printed = capsys.readouterr().out
    assert "no heat map for er" in printed and "1 of the runs share name and seed" in printed


def test_command_writes_every_file(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(outputs)]) == 0
    stems = ["accuracy_matrix_er", "accuracy_matrix_joint", "accuracy_over_tasks"]  # of one size: no figure over sizes
    expected = {f"{stem}.{suffix}" for stem in stems for suffix in ("png", "svg")}
    expected |= {"runs.csv", "table.csv", "table.md", "table.tex"}
    out = outputs / "report"
    assert {path.name for path in out.iterdir()} == expected
    assert all(path.stat().st_size for path in out.iterdir())
    written = pd.read_csv(out / "table.csv").set_index("strategy")
    assert written.loc["er", "class_il_average_accuracy_mean"] == pytest.approx(0.5)
    assert math.isnan(written.loc["joint", "class_il_average_accuracy_std"])
    assert len(pd.read_csv(out / "runs.csv")) == 4
    assert "| er | 0.5000 ± 0.3606 |" in (out / "table.md").read_text(encoding="utf-8")
    printed = capsys.readouterr().out
    assert "0.5000 ± 0.3606" in printed and "1 unfinished run left out" in printed and "report" in printed


def test_pictures_are_of_what_the_runs_have(tmp_path: Path) -> None:
    for model, parameters in (("small", 100), ("large", 1000)):
        folder = make_run(tmp_path, "lump", 0, 0.5, model=model)
        (folder / "provenance.json").write_text(json.dumps({"parameters": parameters}))
        (folder / "summary.csv").write_text("metric,value\nknn_all_average_forgetting,0.2\nknn_task_average_forgetting,0.1\n")
        for kind in collect.KINDS:
            (folder / f"accuracy_{kind}.csv").rename(folder / f"accuracy_knn_{kind[:4]}.csv".replace("clas", "all"))
    runs = collect.read_runs([tmp_path])
    assert collect.kinds_of(runs) == (collect.KNN,)
    figure = plots.forgetting_vs_parameters(runs, ["model"], collect.KNN)
    assert figure is not None and [axes.get_title() for axes in figure.axes] == ["KNN among all", "KNN in task"]
    assert main([str(tmp_path)]) == 0
    drawn = {path.stem for path in (tmp_path / "report").glob("*.svg")}
    assert drawn == {"knn_accuracy_over_tasks", "knn_forgetting_vs_parameters", "knn_accuracy_matrix_small", "knn_accuracy_matrix_large"}
    assert plots.forgetting_vs_parameters(runs[runs["model"] == "small"], ["model"], collect.KNN) is None


def test_options(outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "elsewhere"
    metric = "class_il_average_forgetting"
    assert main([str(outputs), "--by", "data", "--metrics", metric, "--out", str(out)]) == 0
    columns = ["data", f"{metric}_mean", f"{metric}_std", f"{metric}_n", "n"]
    assert pd.read_csv(out / "table.csv").columns.tolist() == columns
    assert "mixes runs that differ in strategy" in capsys.readouterr().out


def test_tex_specials_are_escaped(tmp_path: Path) -> None:
    make_run(tmp_path, "er", 0, 0.5, tag="50%_a&b")
    make_run(tmp_path, "er", 1, 0.7, tag="50%_a&b")
    text = tables.tex(tables.comparison(collect.read_runs([tmp_path]), ["tag"]))
    assert r"50\%\_a\&b & $0.6000 \pm 0.1414$ & " in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing"], ["no such folder", "missing"]),
        (["empty"], ["no finished runs", "empty"]),
        (["outputs", "--by", "stratgy"], ["column stratgy is not known", "did you mean strategy", "scenario, data, model"]),
        (["outputs", "--metrics", "acuracy"], ["metric acuracy is not known", "class_il_average_accuracy"]),
    ],
)
def test_mistakes_are_one_line(outputs: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]) -> None:
    (outputs.parent / "empty").mkdir()
    assert main([str(outputs.parent / arguments[0]), *arguments[1:]]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error:") and error.count("\n") == 1
    assert all(word in error for word in words)
    assert not (outputs / "report").exists()


@pytest.mark.parametrize(
    ("arguments", "word"), [([], "no folder"), (["--foo"], "--foo"), (["outputs", "--out", "/proc/x"], "does not exist")]
)
def test_mistakes_of_the_line_are_one_line(
    outputs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], word: str
) -> None:
    monkeypatch.chdir(outputs.parent)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error:") and error.count("\n") == 1 and word in error


def test_folders_may_follow_an_option(outputs: Path, tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path / "out"), "--metrics", "class_il_average_accuracy", str(outputs)]) == 0
    assert main(["--by", "strategy", str(outputs), "--out", str(tmp_path / "out")]) == 0


def test_broken_run_is_named(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run(outputs, "ewc", 0, 0.5)
    (folder / "config.yaml").write_text("other: 1\n")
    assert main([str(outputs)]) == 2
    error = capsys.readouterr().err
    assert str(folder) in error and error.count("\n") == 1
