"""The report of patching: pairs by hand, and as the command writes them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from made_up_runs import make_run

from cl_bench.core.errors import ConfigError
from cl_bench.interpolation.search import Settings, search
from cl_bench.reports import collect, patching, patching_plots, patching_tasks
from cl_bench.reports.__main__ import main

SCALES = {"old": 0.5, "new": 2.0}


def losses(name: str, a: float, seed: int) -> float:
    return 0.5 + 0.3 * (a - 0.1) ** 2 - 0.003 + 0.1 * seed * a if name == "old" else 2 * math.exp(-3 * a)


def patched(root: Path, seed: int, survey: int = 21, pairs: bool = True) -> Path:
    """A run of one pair, searched for by quasi-convexity, with a survey."""
    folder = make_run(root, "paint", seed, 0.5, f"after,old,new\n0,0.8,\n1,{0.7 - seed / 10},0.6\n")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["strategy"] = {"supported": ["old"], "mode": "sequential", "search": "quasiconvex"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))

    def total(a: float) -> float:
        return sum(losses(name, a, seed) / SCALES[name] for name in SCALES)

    found = search("quasiconvex", total, Settings(0, 1, 11, 1e-3, 1e-3, 0.5))
    grid = [k / (survey - 1) for k in range(survey)] if survey else []
    points = sorted({*found.points, *grid})
    rows = [
        {"after": 1, "patched": "new", "on": name, "role": role, "part": part, "coefficient": a}
        | {"loss": losses(name, a, seed) + 0.01 * (part == "test"), "accuracy": 1 - losses(name, a, seed) / 4}
        for name, role in (("old", "kept"), ("new", "new"))
        for part in ("valid", "test")
        for a in (points if part == "valid" else sorted({*grid, found.coefficient}))
    ]
    pd.DataFrame(rows).to_csv(folder / "segments.csv", index=False)
    row = {"after": 1, "patched": "new", "kept": "old", "new": "new", "search": "quasiconvex", "normaliser": "initial"}
    row |= {"scales": "0.5 2.0", "coefficient": found.coefficient, "value": found.value, "evaluations": found.evaluations}
    row |= {"points": " ".join(map(repr, points)), "quasiconvex": True}
    row |= {"gradient_similarity": 0.03 - 0.1 * seed, "gradient_norm": 0.5, "distance": 4.0} if pairs else {}
    pd.DataFrame([{"gradient_similarity": "", "note": ""} | row]).to_csv(folder / "searches.csv", index=False)
    (folder / "seconds.json").write_text(json.dumps([{"seconds": 1.5 + seed}]))
    return folder


def test_a_pair_by_hand(tmp_path: Path) -> None:
    patched(tmp_path, 0)
    found = patching.pairs(*patching.read(collect.read_runs([tmp_path]))).iloc[0]
    dense = {a: losses("old", a, 0) / 0.5 + losses("new", a, 0) / 2 for a in np.linspace(0, 1, 100001)}
    assert found["value"] == pytest.approx(min(dense.values()), rel=1e-7)
    for count in (11, 21):
        values = {k / (count - 1): dense[min(dense, key=lambda a: abs(a - k / (count - 1)))] for k in range(count)}
        best = min(values, key=values.__getitem__)
        assert found[f"grid{count}"] == pytest.approx(best) and found[f"grid{count}_value"] == pytest.approx(values[best])
        assert (
            found[f"gain{count}_percent"] == pytest.approx(100 * (1 - found["value"] / values[best])) and found[f"gain{count}_percent"] > 0
        )
        assert found[f"test_new_loss_grid{count}"] == pytest.approx(losses("new", best, 0) + 0.01)
        assert found[f"test_value_grid{count}"] == pytest.approx(values[best] + 0.01 / 0.5 + 0.01 / 2)
    assert found["test_kept_accuracy_chosen"] == pytest.approx(1 - losses("old", found["coefficient"], 0) / 4)
    accuracy = {k / 10: losses("old", k / 10, 0) + losses("new", k / 10, 0) for k in range(11)}
    assert found["by_accuracy"] == pytest.approx(min(accuracy, key=accuracy.__getitem__))
    assert found["quasiconvex"] and found["quasiconvex_everywhere"] and found["seconds"] == 1.5
    falls = [(losses("old", 0, 0) - losses("old", a, 0)) / (4 * a) for a in map(float, found_points(tmp_path)) if a > 0]
    assert found["transfer"] == pytest.approx(max(*falls, 0.03 * 0.5)) and found["transfer_limit"] == pytest.approx(0.015)
    assert found["transfer_per_gradient"] == pytest.approx(found["transfer"] / 0.5)


def found_points(root: Path) -> list[str]:
    (file,) = root.rglob("searches.csv")
    return pd.read_csv(file)["points"][0].split()


def test_summary_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1, 2):
        patched(tmp_path / "runs", seed)
    assert main([str(tmp_path / "runs"), "--patching", "--out", str(tmp_path / "out")]) == 0
    pairs, short = (pd.read_csv(tmp_path / "out" / f"patching_{name}.csv") for name in ("pairs", "summary"))
    assert len(pairs) == 3 and short["pairs"][0] == 3 and short["seeds"][0] == 3
    for count in (11, 21):
        assert short[f"below_{count}"][0] == (pairs[f"gain{count}_percent"] > 0).sum()
        assert short[f"median_gain_{count}"][0] == pytest.approx(pairs[f"gain{count}_percent"].median())
    assert short["pearson_transfer"][0] == pytest.approx(pairs["gradient_similarity"].corr(pairs["transfer"]))
    assert short["spearman_transfer"][0] == pytest.approx(pairs["gradient_similarity"].corr(pairs["transfer"], method="spearman"))
    assert short["test_below_11"][0] == short["below_11"][0] == 3  # tests lose 0.01 more everywhere
    tests = pd.read_csv(tmp_path / "out" / "patching_tests.csv").set_index("coefficient by")
    assert list(tests.index) == ["search", "11-point grid", "21-point grid", "accuracy, 11-point grid"]
    assert tests.loc["11-point grid", "kept accuracy"] == pytest.approx(pairs["test_kept_accuracy_grid11"].mean(), abs=1e-4)
    names = {p.name for p in (tmp_path / "out").glob("patching_*.png")}
    assert names == {f"patching_{n}.png" for n in ("curves_loss", "curves_accuracy", "frontier", "transfer")}
    assert "below_11" in capsys.readouterr().out


def test_the_chosen_point_is_that_of_the_first_search() -> None:
    """The later ones are of pairs, and move nothing; tests stand for the tasks where they were measured."""
    searches = pd.DataFrame({"folder": "f", "after": 1, "coefficient": [0.2, 0.3]})
    rows = [(part, a, 10 * a + (part == "test")) for part in ("valid", "test") for a in (0.1, 0.2, 0.3)]
    segments = pd.DataFrame([{"folder": "f", "after": 1, "part": part, "coefficient": a, "accuracy": y} for part, a, y in rows])
    assert patching_plots.chosen(segments, searches)["accuracy"].tolist() == [3.0]


def test_what_is_kept_by_hand(tmp_path: Path) -> None:
    """Of the known task .8 before, .7, .6 and .5 after; of the new one .6."""
    for seed in (0, 1, 2):
        patched(tmp_path, seed)
    make_run(tmp_path, "er", 0, 0.5, "after,old,new\n0,0.8,\n1,0.5,0.6\n", tag="other")
    (file,) = tmp_path.rglob("er/*/*/config.yaml")
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), "strategy": {}}))
    found = patching_tasks.accuracies(collect.read_runs([tmp_path]))
    assert found["supported"].tolist() == pytest.approx([0.7, 0.6, 0.5]) and found["both"].tolist() == pytest.approx([0.65, 0.6, 0.55])
    (line,) = patching_tasks.table(found).to_dict("records")
    assert line["supported before"] == "0.8000 ± 0.0000" and line["supported"] == "0.6000 ± 0.1000" and line["n"] == 3
    assert line["patched"] == "0.6000 ± 0.0000" and line["both"] == "0.6000 ± 0.0500" and "data" not in line


def test_runs_without_pairs_or_a_survey(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "none", "er", 0, 0.5, "after,a\n0,0.5\n")
    with pytest.raises(ConfigError, match="has patched anything"):
        patching.read(collect.read_runs([tmp_path / "none"]))
    patched(tmp_path / "plain", 0, pairs=False)
    assert main([str(tmp_path / "plain"), "--patching", "--out", str(tmp_path / "out")]) == 0
    assert "strategy.pairs=true strategy.survey=21" in capsys.readouterr().out
    assert {p.name for p in (tmp_path / "out").glob("patching_*")} == {"patching_tasks.csv", "patching_tasks.md"}
    patched(tmp_path / "bare", 0, survey=0)
    found = patching.pairs(*patching.read(collect.read_runs([tmp_path / "bare"])))
    assert "gain11_percent" not in found and patching.summary(found)["below_11"][0] == 0
