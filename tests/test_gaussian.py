"""The task-free stream whose class frequencies follow Gaussians."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from test_stream import dataset, rows, split
from toy_runs import STRATEGIES, Runs, configure, outcome

from cl_bench.checks import problems
from cl_bench.core.errors import Interrupted
from cl_bench.core.types import Examples
from cl_bench.data.resident import in_memory
from cl_bench.folder import RunFolder
from cl_bench.scenarios.gaussian import Gaussian
from cl_bench.signatures import class_flag

SMALL = ("scenario=gaussian", "scenario.windows=6", "scenario.tests=3", "scenario.look_every=2", "scenario.width=0.1")


def gaussian(**changes) -> Gaussian:
    settings = {"windows": 7, "width": 0.1, "tests": 3, "look_every": 3, "order": "natural", "order_seed": 0, "valid_fraction": 0.0}
    return Gaussian(**(settings | changes))


def test_gaussian_uses_each_example_at_most_once_in_windows_of_one_size() -> None:
    data = dataset(per_class=9)  # 54 examples: 7 windows of 7, and 5 left out
    stream = gaussian()(data)
    parts = [rows(e.train) for e in stream.experiences]
    assert [len(e.train) for e in stream.experiences] == [7] * 7 and not any(e.announced for e in stream.experiences)
    assert sum(map(len, parts)) == len(set().union(*parts)) == 49 and set().union(*parts) <= rows(data.train)
    assert [e.looked for e in stream.experiences] == [False, False, True, False, False, True, True]
    for e in stream.experiences:
        assert set(e.classes) == set(e.train.y.tolist()) and torch.equal(e.train.raw[:, 0, 0, 0].long(), e.train.y)
    again, other = gaussian()(data), gaussian(order_seed=1)(data)
    first = [s.experiences[0].train.raw for s in (stream, again, other)]
    assert torch.equal(first[0], first[1]) and not torch.equal(first[0], first[2])


def test_gaussian_tests_are_groups_that_count_once_all_their_classes_came() -> None:
    data = dataset(per_class=20)
    stream = gaussian(tests=[1, 3, 2], valid_fraction=0.25)(data)
    assert [t.classes for t in stream.tests.values()] == [(0,), (1, 2, 3), (4, 5)] and list(stream.tests) == ["task0", "task1", "task2"]
    for test in stream.tests.values():
        assert set(test.classes) <= set(stream.seen(test.task)) and (
            not test.task or not set(test.classes) <= set(stream.seen(test.task - 1))
        )
        assert set(test.data.y.tolist()) == set(test.valid.y.tolist()) == set(test.classes)
    valid = set().union(*(rows(t.valid) for t in stream.tests.values()))
    assert len(valid) == 30 and not valid & set().union(*(rows(e.train) for e in stream.experiences))
    assert set().union(*(rows(t.data) for t in stream.tests.values())) == rows(data.test)
    joint = stream.merged()
    assert len(joint.experiences[0].train) == 84 and joint.experiences[0].index == 6 and joint.experiences[0].looked


def test_gaussian_order() -> None:
    seeded = gaussian(order="seeded", order_seed=3)(dataset())
    meaning = {}
    for e in seeded.experiences:
        for old, new in zip(e.train.raw[:, 0, 0, 0].tolist(), e.train.y.tolist(), strict=True):
            assert meaning.setdefault(new, old) == old
    other = split(order="seeded", order_seed=3)(dataset())
    same = dict(zip(other.experiences[0].train.y.tolist(), other.experiences[0].train.raw[:, 0, 0, 0].tolist(), strict=True))
    assert len(meaning) == 6 and same.items() <= meaning.items() and list(map(meaning.get, range(6))) != list(range(6))


def test_gaussian_frequencies() -> None:
    """Against the share that each class's own Gaussian has between two quantiles of their mixture."""
    classes, per_class, windows, width = 5, 8000, 10, 0.12
    y = torch.arange(classes).repeat(per_class)
    data = Examples(torch.zeros(len(y), 1, 1, 1, dtype=torch.uint8), y)
    stream = gaussian(windows=windows, width=width, tests=1)(in_memory("made", data, data, classes))

    def below(c: int, t: float) -> float:
        return 0.5 * (1 + math.erf((t - (c + 0.5) / classes) / width / math.sqrt(2)))

    times = np.linspace(-1, 2, 30001)
    whole = np.array([sum(below(c, t) for c in range(classes)) / classes for t in times])
    edges = [times[np.searchsorted(whole, i / windows)] for i in range(1, windows)]
    for e, start, end in zip(stream.experiences, [-9, *edges], [*edges, 9], strict=True):
        found = torch.bincount(e.train.y, minlength=classes) / len(e.train)
        wanted = torch.tensor([(below(c, end) - below(c, start)) * windows / classes for c in range(classes)])
        assert (found - wanted).abs().max() < 0.03  # four standard deviations of 4,000 draws


def test_gaussian_with_too_little_data(error) -> None:
    assert "scenario.windows=60" in error(lambda: gaussian(windows=60)(dataset()))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_gaussian_runs_or_is_refused(runs: Runs, tmp_path: Path, strategy: str) -> None:
    config = configure("sequential", "plain", *SMALL, "look.before=true", "look.future=true")
    own = configure(strategy)  # and the model it works on
    config |= {key: own[key] for key in ("strategy", "model")}
    parts = config["strategy"].get("parts", {"": config["strategy"]}).values()
    if any(class_flag(part["_target_"], "needs_boundaries") for part in parts):
        (told,) = problems(config)
        assert "boundaries" in told and "scenario=split" in told
        return
    folder = RunFolder(runs(config, tmp_path / "run"))
    afters = {row["after"] for row in folder.read_rows()}
    assert afters == ({-1, 5} if strategy == "joint" else {-1, 1, 3, 5}) and folder.finished
    figures = dict(line.split(",") for line in (folder.path / "summary.csv").read_text().splitlines())
    defined = {name for name, value in figures.items() if name.startswith("class_il") and value}
    assert "class_il_average_accuracy" in defined and "class_il_backward_transfer" not in defined
    assert ("class_il_anytime_accuracy" in defined) == (strategy != "joint")


@pytest.mark.parametrize("part", ["test", "valid"])
def test_gaussian_restarts_to_the_bit(runs: Runs, tmp_path: Path, part: str) -> None:
    config = configure("er", "plain", *SMALL, "scenario.valid_fraction=0.25", f"look.part={part}", "look.future=true")
    whole, looked = outcome(runs(config, tmp_path / "whole")), runs.looked
    for calls in range(0, looked, 5):
        with pytest.raises(Interrupted):
            runs(config, tmp_path / f"stopped{calls}", calls)
        assert outcome(runs(config, tmp_path / f"stopped{calls}")) == whole
