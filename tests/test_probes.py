"""Overlap and CKA as probes: rows by hand, what they refuse, and that they observe only, through every restart."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from toy_runs import Runs, configure, outcome, same

from cl_bench.core.types import Examples, Stream, Test
from cl_bench.probes.cka import CKA
from cl_bench.probes.moment import Held, Moment, tap
from cl_bench.probes.overlap import Overlap

BOTH = {
    "overlap": {"_target_": "cl_bench.probes.overlap.Overlap", "centring": "all_class_mean", "draws": 2, "width": 3},
    "cka": {"_target_": "cl_bench.probes.cka.CKA", "directions": 3, "layers": ["1"]},
}


def held(on: str, classes: tuple[int, ...], seed: int, per_class: int = 5, width: int = 4, learned: int = 0) -> Held:
    rng = torch.Generator().manual_seed(seed)
    y = torch.tensor(classes).repeat(per_class)
    return Held(on, classes, learned, y, {"": torch.randn(len(y), width, generator=rng, dtype=torch.float64) + y[:, None] / 3})


def rows(probe: Any, moment: Moment) -> dict[tuple[str, str], float]:
    return {(row["on"], row["metric"]): row["value"] for row in probe(moment)}


def slow(a: Tensor, b: Tensor) -> float:
    c, d = a.T @ a / len(a), b.T @ b / len(b)
    return float((c * d).sum() / (c.norm() * d.norm()))


@pytest.mark.parametrize("centring", ["all_class_mean", "none"])
def test_overlap_is_the_mean_over_pairs_within_and_across_tests(tmp_path: Path, centring: str) -> None:
    parts = [held("a", (0, 1, 2), 1), held("b", (3, 4), 2, per_class=9)]
    sets = {c: h.features[""][h.y == c] for h in parts for c in h.classes}
    if centring == "all_class_mean":  # every class counts alike, however many examples it has
        mean = sum(x.mean(0) for x in sets.values()) / 5
        sets = {c: x - mean for c, x in sets.items()}
    a = [slow(sets[i], sets[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    b = slow(sets[3], sets[4])
    across = [slow(sets[i], sets[j]) for i in (0, 1, 2) for j in (3, 4)]
    found = rows(Overlap(centring=centring, draws=2, width=4), Moment(1, 0, tmp_path, parts))
    expected = {("a", "within"): sum(a) / 3, ("b", "within"): b, ("all", "within"): (sum(a) + b) / 4, ("all", "across"): sum(across) / 6}
    for (on, kind), value in expected.items():
        assert found[on, f"overlap_{kind}"] == pytest.approx(value, abs=1e-12)
    assert len(found) == 4 * len(expected)
    for (on, kind), value in expected.items():  # four directions of four are all: turned, and nothing else
        assert found[on, f"overlap_{kind}_projected"] == pytest.approx(value, abs=1e-12)


def test_nulls_tell_width_and_labels_apart(tmp_path: Path) -> None:
    parts = [held("a", (0, 1), 1, 200, 8), held("b", (2, 3), 2, 200, 8)]
    for h in parts:  # each class in two directions of its own
        for c in h.classes:
            h.features[""][h.y == c] *= torch.tensor([5.0 if i // 2 == c else 0.1 for i in range(8)])
    moment = Moment(1, 0, tmp_path, parts)
    found = rows(Overlap(centring="all_class_mean", draws=3, width=4), moment)
    for kind in ("within", "across"):
        value, null, shuffled = (found["all", f"overlap_{kind}{end}"] for end in ("", "_null", "_shuffled"))
        assert value < 0.3 and null == pytest.approx(200 / 208, abs=0.01) and 0.9 < shuffled < 1
    assert rows(Overlap(centring="all_class_mean", draws=3, width=4), moment) == found
    assert rows(Overlap(centring="all_class_mean", draws=3, width=4), Moment(2, 0, tmp_path, parts)) != found


def test_projected_features_have_one_null_whatever_their_width(tmp_path: Path) -> None:
    probe = Overlap(centring="none", draws=20, width=6)
    for width in (6, 12, 48):
        rng = torch.Generator().manual_seed(width)
        y = torch.arange(2).repeat(300)
        alone = Held("a", (0, 1), 0, y, {"": torch.randn(600, width, generator=rng, dtype=torch.float64)})
        found = rows(probe, Moment(0, 0, tmp_path, [alone]))
        assert found["all", "overlap_within_projected"] == pytest.approx(300 / 306, abs=0.01)
        assert found["all", "overlap_within"] == pytest.approx(300 / (300 + width), abs=0.01)


def test_a_class_is_not_compared_with_itself_in_another_test(tmp_path: Path) -> None:
    parts = [held("a", (0, 1), 1), held("b", (0, 1), 2)]
    sets = [[h.features[""][h.y == c] for c in (0, 1)] for h in parts]
    found = rows(Overlap(centring="none", draws=1, width=4), Moment(1, 0, tmp_path, parts))
    assert found["all", "overlap_across"] == pytest.approx((slow(sets[0][0], sets[1][1]) + slow(sets[0][1], sets[1][0])) / 2)
    alone = rows(Overlap(centring="none", draws=1, width=4), Moment(0, 0, tmp_path, [held("a", (0,), 1)]))
    assert alone == {}  # one class so far: nothing to compare, and the run goes on


def test_overlap_refuses_before_training(error, make_learner, make_network) -> None:
    learner = make_learner(make_network())

    def ask(*labels: list[int]) -> str:
        parts = [Examples(torch.zeros(len(y), 1, 3, 3, dtype=torch.uint8), torch.tensor(y)) for y in labels]
        tests = {f"t{i}": Test(data, tuple(sorted({*y})) or (9,), i) for i, (data, y) in enumerate(zip(parts, labels))}
        return error(
            lambda: Overlap(centring="none", draws=1, width=4).prepare(
                learner, Stream((), tests, 10), {f"t{i}": d for i, d in enumerate(parts)}
            )
        )

    assert "this stream has one" in ask([0, 0], [0, 0])
    assert "class 1 of t0 has 1" in ask([0, 0, 1], [2, 2])


def test_cka_refuses_before_training(error, make_learner, make_network) -> None:
    learner, data = make_learner(make_network()), Examples(torch.zeros(6, 1, 3, 3, dtype=torch.uint8), torch.zeros(6, dtype=torch.int64))

    def ask(directions: int, layers: list[str]) -> str:
        return error(lambda: CKA(directions=directions, layers=layers).prepare(learner, Stream((), {}, 2), {"t": data}))

    assert "directions=6" in ask(6, []) and "at most" in ask(6, [])
    assert "block.3" in ask(2, ["block.3"]) and "1" in ask(2, ["block.3"])
    CKA(directions=5, layers=["1"]).prepare(learner, Stream((), {}, 2), {"t": data})


def test_cka_compares_with_the_moment_of_learning(tmp_path: Path) -> None:
    first, later = held("a/b", (0, 1), 1, learned=0), held("a/b", (0, 1), 2)
    ahead = held("c", (2, 3), 3, learned=1)
    assert rows(CKA(directions=2, layers=[]), Moment(0, 0, tmp_path, [first, ahead])) == {}
    found = rows(CKA(directions=2, layers=[]), Moment(1, 0, tmp_path, [later, ahead]))  # another object: the file is the memory
    x, y = (h.features[""] - h.features[""].mean(0) for h in (first, later))
    k, m = x @ x.T, y @ y.T
    v, u = (torch.linalg.svd(z).Vh[:2] for z in (x, y))
    assert found["a/b", "cka"] == found["all", "cka"] == pytest.approx(float((k * m).sum() / (k.norm() * m.norm())), abs=1e-12)
    assert found["a/b", "subspace_similarity"] == pytest.approx(float((v @ u.T).square().sum() / 2), abs=1e-9)
    assert ("c", "cka") not in found and {p.name for p in (tmp_path / "probes").iterdir()} == {"a%2Fb.safetensors", "c.safetensors"}


def alike(h: Held, value: float) -> Held:
    """All examples alike, but for the last bits."""
    noise = torch.randn(h.features[""].shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return replace(h, features={"": value * (1 + 1e-8 * noise)})


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_dead_features_have_no_similarity_and_it_is_said(tmp_path: Path, value: float) -> None:
    first, other, probe = held("a", (0, 1), 1), held("b", (2, 3), 2), CKA(directions=2, layers=[])
    rows(probe, Moment(0, 0, tmp_path, [first, other]))
    found = rows(probe, Moment(1, 0, tmp_path, [alike(first, value), other]))
    assert all(math.isnan(found[on, m]) for on in ("a", "all") for m in ("cka", "subspace_similarity"))
    assert found["b", "cka"] == pytest.approx(1) and len(probe.said) == 1
    assert "of a (penultimate, now) are undefined (nan)" in probe.said[0]
    rows(probe, Moment(2, 0, tmp_path, [first, other]))
    assert not probe.said


@pytest.mark.parametrize(("centring", "value"), [("all_class_mean", 0.0), ("all_class_mean", 0.3), ("none", 0.0)])
def test_dead_features_have_no_overlap_and_it_is_said(tmp_path: Path, centring: str, value: float) -> None:
    probe, parts = Overlap(centring=centring, draws=1, width=3), [held("a", (0, 1), 1), held("b", (2, 3), 2)]
    found = rows(probe, Moment(1, 0, tmp_path, [alike(h, value) for h in parts]))
    assert {math.isnan(v) for (_, m), v in found.items() if not m.endswith("_null")} == {True}
    assert all(0 < v < 1 for (_, m), v in found.items() if m.endswith("_null"))
    assert len(probe.said) == 1 and "overlap on a, b, all is undefined (nan)" in probe.said[0]
    rows(probe, Moment(2, 0, tmp_path, parts))
    assert not probe.said


def test_taps_give_means_over_places_and_leave_nothing_behind() -> None:
    backbone = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(2), nn.Linear(9, 4), nn.Flatten(), nn.Linear(8, 3))
    network, x = nn.ModuleDict({"backbone": backbone}), torch.randn(5, 1, 3, 3)
    with tap(network, ["0", "2", "4"]) as found:
        backbone(x), backbone(x[:2])
    assert [len(found["0"]), len(found["2"])] == [2, 2]
    torch.testing.assert_close(found["0"][0], backbone[0](x).mean((2, 3)))
    torch.testing.assert_close(found["2"][1], backbone[:3](x[:2]).mean(1))
    torch.testing.assert_close(found["4"][0], backbone(x))
    assert not any(module._forward_hooks for module in backbone)


@pytest.mark.parametrize("strategy", ["er", "icarl", "pnn", "joint"])
def test_they_observe_only_and_reach_the_summary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, strategy: str) -> None:
    runs, config = Runs(monkeypatch), configure(strategy, "rich")
    plain, weights = outcome(runs(config, tmp_path / "plain")), runs.weights()
    layers = ["bodies.0.1"] if strategy == "pnn" else ["1"]
    config["probe"] = {"overlap": BOTH["overlap"], **config["probe"], "cka": BOTH["cka"] | {"layers": layers}}
    path = runs(config, tmp_path / "looked")
    assert same(runs.weights(), weights)
    lines = (path / "metrics.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["metric"] in ("class_il", "task_il", "loss")]
    assert "".join(kept).encode() == plain["metrics.jsonl"] and len(kept) < len(lines)
    moved = {(row["on"], row["after"]) for row in map(json.loads, lines) if row["metric"] == "cka" and row["on"] != "all"}
    assert moved == (set() if strategy == "joint" else {("task0", 1), ("task0", 2), ("task1", 2)})  # never before it is learned
    summary = dict(csv.reader((path / "summary.csv").open()))
    wanted = {f"overlap_{kind}{end}" for kind in ("within", "across") for end in ("", "_null", "_shuffled", "_projected")}
    since = {f"{name}{end}" for name in ("cka", "subspace_similarity") for end in ("", f"_{layers[0]}")}
    assert wanted | (set() if strategy == "joint" else since) <= set(summary)
    assert all(0 < float(summary[name]) <= 1.0001 for name in wanted | since if name in summary)
    tensors = load_file(path / "probes" / "task0.safetensors")
    assert set(tensors) == {"y", "penultimate", layers[0]} and len(tensors["y"]) == len(tensors["penultimate"])


def test_restart_again_and_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runs, config = Runs(monkeypatch), configure("er", "rich")
    config["probe"] = {**config["probe"], **BOTH}
    whole, path = outcome(runs(config, tmp_path / "whole")), tmp_path / "stopped"
    assert runs.restarted(config, path) >= 3 and outcome(path) == whole and not list(tmp_path.rglob("*.partial"))
    for file in (tmp_path / "whole" / "probes").iterdir():
        assert file.read_bytes() == (path / "probes" / file.name).read_bytes()
