"""Rows before training choose among the same classes as rows one step before a task, so that transfer compares alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from cl_bench.folder import differences
from cl_bench.probes.accuracy import Accuracy
from cl_bench.probes.readout import Readout, observe


def test_tasks_ahead_are_scored_alike_before_training_and_one_step_before(make_learner, tmp_path: Path) -> None:
    import torch

    from cl_bench.core.learner import Network
    from cl_bench.core.types import Examples, Experience, Stream, Test

    raw, y = torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 0, 1])
    parts = [Experience(i, f"task{i}", Examples(raw, y + 2 * i), (2 * i, 2 * i + 1)) for i in range(3)]
    stream = Stream(parts, {e.name: Test(e.train, e.classes, e.index) for e in parts}, 6)
    looked: list[Readout] = []

    class Note(Accuracy):
        def __call__(self, readout: Readout):
            looked.append(readout)
            return super().__call__(readout)

    learner = make_learner(Network(torch.nn.Flatten(), torch.nn.Linear(4, 6)))
    for after in (-1, 1):
        list(
            observe(
                learner,
                stream,
                {n: t.data for n, t in stream.tests.items()},
                after,
                {"a": Note()},
                future=True,
                batch_size=8,
                folder=tmp_path,
            )
        )
    seen = {(r.after, r.on): r.seen for r in looked}
    assert seen[-1, "task0"] == (0, 1) and seen[-1, "task1"] == (0, 1, 2, 3)
    assert seen[-1, "task2"] == seen[1, "task2"] == (0, 1, 2, 3, 4, 5)
    assert seen[1, "task0"] == (0, 1, 2, 3)


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
