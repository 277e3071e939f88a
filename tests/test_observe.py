"""Which tests are looked at when, and among which classes; and what makes a run another one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cl_bench.core.learner import Network
from cl_bench.core.types import Examples, Experience, Stream, Test
from cl_bench.folder import differences
from cl_bench.probes.readout import Readout, observe


@pytest.fixture
def looked(make_learner, tmp_path: Path):
    """looked(stream, after, future): whom a probe is asked about."""
    learner = make_learner(Network(torch.nn.Flatten(), torch.nn.Linear(4, 6)))

    def looked(stream: Stream, after: int, future: bool) -> dict[str, Readout]:
        found: dict[str, Readout] = {}

        def note(readout: Readout) -> dict[str, float]:
            found[readout.on] = readout
            return {}

        held_out = {n: t.data for n, t in stream.tests.items()}
        list(observe(learner, stream, held_out, after, {"a": note}, future=future, batch_size=8, folder=tmp_path))
        return found

    return looked


def three_tasks() -> Stream:
    raw, y = torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 0, 1])
    parts = [Experience(i, f"task{i}", Examples(raw, y + 2 * i), (2 * i, 2 * i + 1)) for i in range(3)]
    return Stream(parts, {e.name: Test(e.train, e.classes, e.index) for e in parts}, 6)


def test_tasks_ahead_are_scored_alike_before_training_and_one_step_before(looked) -> None:
    before, later = looked(three_tasks(), -1, True), looked(three_tasks(), 1, True)
    assert before["task0"].seen == (0, 1) and before["task1"].seen == (0, 1, 2, 3)
    assert before["task2"].seen == later["task2"].seen == (0, 1, 2, 3, 4, 5)
    assert later["task0"].seen == (0, 1, 2, 3)


def test_the_tests_of_merged_tasks_are_looked_at(looked) -> None:
    stream = three_tasks()
    rest = replace(stream, experiences=stream.experiences[1:]).merged()
    merged = replace(stream, experiences=(stream.experiences[0], *rest.experiences))  # as joint patching has it
    assert [*looked(merged, 0, False)] == ["task0"]
    assert [*looked(merged, 2, False)] == [*looked(stream.merged(), 2, False)] == ["task0", "task1", "task2"]


@pytest.mark.parametrize(
    ("key", "target", "told"),
    [
        ("data.root", "cl_bench.data.sorted_pictures.Folder", True),  # another folder of images is other data
        ("data.root", "cl_bench.data.sources.Digits", False),
        ("data.cache", "cl_bench.data.sorted_pictures.Folder", False),
        ("runtime.precision", "", True),
        ("runtime.threads", "", False),
        ("twins.lr", "", False),  # of a preset: what it chooses stands in train
    ],
)
def test_what_makes_another_run(key: str, target: str, told: bool) -> None:
    group, _, name = key.partition(".")
    old, new = ({group: {"_target_": target, name: str(Path(v))}} for v in ("a", "b"))
    assert bool(differences(old, new)) is told
