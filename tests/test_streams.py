"""Shifting, corrupted and recorded streams, and what a stream says of itself."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_conf import composed
from test_gaussian import gaussian
from test_stream import dataset, rows, split
from toy_runs import Runs, configure

from cl_bench.checks import problems
from cl_bench.core.errors import ConfigError
from cl_bench.data.resident import Dataset
from cl_bench.scenarios.corrupted import KINDS, Corrupted
from cl_bench.scenarios.sequence import Sequence
from cl_bench.scenarios.sessions import Sessions
from cl_bench.scenarios.shift import Shift
from cl_bench.scenarios.transformed import Permuted

STRENGTHS = composed("scenario=corrupted")["scenario"]["strengths"]


def shift(**changes) -> Shift:
    settings = {"groups": [[0, 3], [5, 1], [2, 4]], "tasks": 2, "order": "natural", "order_seed": 0, "valid_fraction": 0.0}
    return Shift(**(settings | changes))


def corrupted(**changes) -> Corrupted:
    settings = {"kinds": sorted(KINDS), "severity": 3, "strengths": STRENGTHS, "order_seed": 0, "valid_fraction": 0.0}
    return Corrupted(**(settings | changes))


def test_shift() -> None:
    data, stream = dataset(), shift()(dataset())
    assert stream.num_classes == 3 and [e.classes for e in stream.experiences] == [(0, 1, 2)] * 2
    assert stream.subclasses == {"task0": [[0], [5], [2]], "task1": [[3], [1], [4]]}
    for e, test in zip(stream.experiences, stream.tests.values(), strict=True):
        for part in (e.train, test.data):
            behind = stream.subclasses[e.name]
            assert all(old in behind[new] for old, new in zip(part.raw[:, 0, 0, 0].tolist(), part.y.tolist(), strict=True))
    assert set().union(*(rows(e.train) for e in stream.experiences)) == rows(data.train)
    one = shift(groups=[[4, 0], [1, 5]], tasks=[2])(data)  # two classes of the data belong to no label
    assert one.subclasses == {"task0": [[4, 0], [1, 5]]} and len(one.experiences[0].train) == 32
    seeded = [shift(order="seeded", order_seed=seed)(data).subclasses for seed in range(6)]
    assert {json.dumps(s) for s in seeded} > {json.dumps(seeded[0])} and all({*s["task0"][1], *s["task1"][1]} == {5, 1} for s in seeded)


def test_shift_of_cifar100_is_the_published_map() -> None:
    """Superclass of each class, from the coarse labels of the data set's own files."""
    coarse = (
        "4 1 14 8 0 6 7 7 18 3 3 14 9 18 7 11 3 9 7 11 6 11 5 10 7 6 13 15 3 15 0 11 1 10 12 14 16 9 11 5 5 19 8 8 15 13 14 17 18 10 "
        "16 4 17 4 2 0 17 4 18 17 10 3 2 12 12 16 12 1 9 19 2 10 0 1 16 12 9 13 15 13 16 19 2 4 6 19 5 5 8 19 18 1 2 15 6 0 17 8 14 13"
    )
    groups = composed("scenario=shift")["scenario"]["groups"]
    assert [next(k for k, group in enumerate(groups) if c in group) for c in range(100)] == list(map(int, coarse.split()))


@pytest.mark.parametrize(
    ("groups", "word"),
    [([[0, 1], [1, 2]], "class 1 is in two"), ([[0, 6], [1, 2]], "no class 6"), ([[0], [1, 2]], "sizes [1, 2]"), ([], "sizes")],
)
def test_shift_mistakes(groups: list, word: str, error) -> None:
    assert word in error(lambda: shift(groups=groups)(dataset()))
    config = composed("scenario=shift", "data=toy", "scenario.tasks=1", f"scenario.groups={groups}")
    assert any(word in told for told in problems(config))


def test_shift_is_printed_saved_and_hashed(runs: Runs, tmp_path: Path) -> None:
    config = configure("sequential", "plain", "scenario=shift", "data=digits", "scenario.tasks=2", "scenario.groups=[[0,1],[2,3],[8,9]]")
    path = runs(config, tmp_path / "run")
    told = json.loads((path / "provenance.json").read_text())["stream"]
    assert told["input_shape"] == [1, 8, 8]
    assert told["shows"] == "domain-incremental" and told["subclasses"] == {"task0": [[0], [2], [8]], "task1": [[1], [3], [9]]}
    assert told["subclasses_sha256"] == hashlib.sha256(json.dumps(told["subclasses"]).encode()).hexdigest()
    assert "subclasses of task1: 0 <- 1, 1 <- 3, 2 <- 9" in (path / "run.log").read_text()


def test_corrupted_is_the_same_in_every_run() -> None:
    data = dataset(channels=3, size=8)
    stream, again, other = corrupted()(data), corrupted()(data), corrupted(order_seed=1)(data)
    assert [e.name for e in stream.experiences] == list(stream.tests) == sorted(KINDS)
    for a, b, c in zip(stream.experiences, again.experiences, other.experiences, strict=True):
        assert torch.equal(a.train.raw, b.train.raw) and torch.equal(a.train.y, data.train.y) and a.train.raw.dtype == torch.uint8
        assert torch.equal(a.train.raw, c.train.raw) == ("noise" not in a.name)
        assert torch.equal(a.train.raw, data.train.raw) == (a.name == "clean")
        assert not torch.equal(stream.tests[a.name].data.raw, a.train.raw[: len(data.test)])
    fewer = corrupted(kinds=["speckle_noise"])(data)  # a kind's noise does not depend on the others
    assert torch.equal(fewer.experiences[0].train.raw, stream.experiences[sorted(KINDS).index("speckle_noise")].train.raw)


def test_corruptions_by_hand() -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(400, 3, 8, 8, generator=rng)
    x[:, :, 0, 0] = 0

    def made(kind: str, c: float) -> torch.Tensor:
        return KINDS[kind](x.clone(), c, torch.Generator().manual_seed(1))

    assert torch.equal(made("clean", 0), x) and torch.allclose(made("invert", 1), 1 - x)
    torch.testing.assert_close(made("rotate", 90), torch.rot90(x, 1, (2, 3)), atol=1e-4, rtol=0)
    assert (made("gaussian_noise", 0.1) - x).std() == pytest.approx(0.1, rel=0.02)
    assert ((made("speckle_noise", 0.2) - x) / x.clamp(min=1e-9))[x > 0].std() == pytest.approx(0.2, rel=0.02)
    shot = made("shot_noise", 50.0)
    assert (shot - x)[x > 0.9].var() == pytest.approx(0.95 / 50, rel=0.05) and torch.allclose((shot * 50).round(), shot * 50)
    hit = made("impulse_noise", 0.2) != x
    assert hit[x > 0].float().mean() == pytest.approx(0.2, rel=0.05) and set(made("impulse_noise", 0.2)[hit].tolist()) == {0.0, 1.0}
    assert made("impulse_noise", 0.2)[hit & (x > 0)].mean() == pytest.approx(0.5, rel=0.05)  # as many white as black
    for image, out in zip(x[:5], made("contrast", 0.3), strict=False):
        for plane, seen in zip(image, out, strict=True):
            torch.testing.assert_close(seen, 0.3 * plane + 0.7 * plane.mean())
    from colorsys import hsv_to_rgb, rgb_to_hsv

    from scipy.ndimage import gaussian_filter

    bright = made("brightness", 0.3)
    for row, column in ((0, 0), (3, 4), (7, 7)):
        h, s, v = rgb_to_hsv(*x[1, :, row, column].tolist())
        assert bright[1, :, row, column].tolist() == pytest.approx(hsv_to_rgb(h, s, min(1, v + 0.3)), abs=1e-5)
    for c in (0.4, 1.0):
        wanted = gaussian_filter(x[2, 1].numpy(), c, mode="nearest", truncate=4)
        np.testing.assert_allclose(made("gaussian_blur", c)[2, 1].numpy(), wanted, atol=1e-5)
    blocks = made("pixelate", 0.5)
    assert torch.allclose(blocks[:, :, 2:4, 4:6], x[:, :, 2:4, 4:6].mean((2, 3), keepdim=True).expand(-1, -1, 2, 2))


def test_corrupted_mistakes() -> None:
    for kinds, word in (("[blur]", "gaussian_blur"), ("[clean,clean]", "kind of its own"), ("[]", "one or more")):
        (told,) = problems(composed("scenario=corrupted", f"scenario.kinds={kinds}"))
        assert word in told and "scenario.kinds" in told
    (told,) = problems(composed("scenario=corrupted", "scenario.severity=6"))
    assert "scenario.severity=6" in told
    with pytest.raises(ConfigError, match="mine"):
        corrupted(kinds=["mine"], strengths={**STRENGTHS, "mine": [1] * 5})
    assert set(STRENGTHS) == set(KINDS) and {len(values) for values in STRENGTHS.values()} == {5}


def recorded() -> Dataset:
    """dataset() in sessions of 12, 18 and 18 examples."""
    data = dataset()
    return Dataset(data.name, data.train, data.test, 6, data.checksum, parts=(12, 18, 18))


def test_sessions(error) -> None:
    data = recorded()
    stream = Sessions(order="natural", order_seed=0, valid_fraction=0.0)(data)
    assert [len(e.train) for e in stream.experiences] == [12, 18, 18] and [e.classes for e in stream.experiences] == [tuple(range(6))] * 3
    assert torch.equal(torch.cat([e.train.raw for e in stream.experiences]), data.train.raw)
    assert stream.experiences[1].train.raw.untyped_storage().data_ptr() == data.train.raw.untyped_storage().data_ptr()  # no copy
    assert list(stream.tests) == ["test"] and stream.tests["test"].data is data.test and stream.tests["test"].valid is None
    held = Sessions(order="seeded", order_seed=2, valid_fraction=0.5)(data)
    assert [e.name for e in held.experiences] == ["session1", "session0", "session2"] and len(held.tests["test"].valid) == 24
    again = Sessions(order="natural", order_seed=2, valid_fraction=0.5)(data)
    assert torch.equal(again.experiences[1].valid.raw, held.experiences[0].valid.raw)  # whatever the order
    assert "data=made is not recorded" in error(lambda: Sessions(order="natural", order_seed=0, valid_fraction=0.0)(dataset()))


def test_kind() -> None:
    several = {"a": dataset(classes=4), "b": dataset(classes=3, seed=1)}

    def both(head: str) -> str:
        return Sequence(datasets=[*several], head=head, order_seed=0, valid_fraction=0.0)(several).kind

    assert split()(dataset()).kind == split()(dataset()).merged().kind == both("per_dataset") == "class- and task-incremental"
    assert Permuted(tasks=2, order_seed=0, valid_fraction=0.0)(dataset()).kind == "domain-incremental"
    assert Permuted(tasks=1, order_seed=0, valid_fraction=0.0)(dataset()).kind == "one task"
    assert Sessions(order="natural", order_seed=0, valid_fraction=0.0)(recorded()).kind == "domain-incremental"
    assert gaussian()(dataset()).kind == split(announced=False)(dataset()).kind == "task-free, class-incremental"
    assert both("shared") == "mixed: some classes come back"


def test_printed() -> None:
    lines = str(split(valid_fraction=0.25)(dataset())).splitlines()
    assert lines[:2] == [
        "stream of 3 experiences, 6 classes; class- and task-incremental",
        "  0 task0: classes 0-1; 12 train, 4 valid",
    ]
    assert lines[4:] == [f"  test task{k}: classes {2 * k}-{2 * k + 1}; 6 test" for k in range(3)]
    lines = str(gaussian(windows=30, valid_fraction=0.25)(dataset(per_class=20))).splitlines()
    assert "30 experiences, 6 classes; task-free" in lines[0] and lines[1].startswith("  0 window0 (not announced): class")
    assert lines[10].startswith("  9 window9") and lines[11] == "  ..." and lines[12].startswith("  20 ") and lines[21].startswith("  29 ")
    assert [line.startswith("  test task") and "valid" in line for line in lines[22:]] == [True] * 3


def test_five_datasets() -> None:
    """Both published orders, at the sizes of the sets, with other pictures."""
    for name, order in (("five_datasets", "cifar10 mnist svhn notmnist"), ("five_datasets_pytorch", "svhn mnist cifar10 notmnist")):
        config = composed(f"scenario={name}")
        assert problems(config) == [] and list(config["datasets"]) == [*order.split(), "fashion_mnist"]
        grey = {"mnist", "notmnist", "fashion_mnist"}
        sets = {n: dataset(10, 28 if n in grey else 32, 1 if n in grey else 3, 2, k) for k, n in enumerate(config["datasets"])}
        settings = {k: v for k, v in config["scenario"].items() if k != "_target_"}
        stream = Sequence(**settings)(sets)
        assert stream.num_classes == 50 and stream.input_shape == (3, 32, 32) and stream.kind == "class- and task-incremental"
        assert [e.classes[0] for e in stream.experiences] == [0, 10, 20, 30, 40] and list(stream.tests) == list(sets)


def test_reports_average_the_tests_that_count_so_far(tmp_path: Path) -> None:
    from cl_bench.reports.collect import seen_average

    (tmp_path / "accuracy_class_il.csv").write_text("after,task0,task1\n1,0.5,\n3,0.6,0.2\n5,0.4,0.8\n")
    assert seen_average(tmp_path, "class_il").to_dict() == pytest.approx({2: 50.0, 4: 40.0, 6: 60.0})
