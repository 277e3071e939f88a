"""What a pretraining run learns from: all of a data set, nested fractions, classes left out."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch

from cl_bench.core.types import Examples
from cl_bench.data.resident import Dataset, in_memory
from cl_bench.scenarios.pretrain import Pretrain


def data(counts: tuple[int, ...] = (12, 8, 16, 9, 20)) -> Dataset:
    y = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    raw = torch.arange(len(y), dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2).contiguous()
    return in_memory("mine", Examples(raw, y), Examples(raw + 100, y), len(counts))


def pretrain(**changes: Any) -> Pretrain:
    return Pretrain(**{"fraction": 1.0, "by": "image", "exclude": [], "order_seed": 0, "valid_fraction": 0.0, **changes})


def images(**changes: Any) -> set[int]:
    return set(pretrain(**changes)(data()).experiences[0].train.raw[:, 0, 0, 0].tolist())


def test_the_whole_is_the_data() -> None:
    stream, given = pretrain()(data()), data()
    (experience,) = stream.experiences
    assert torch.equal(experience.train.raw, given.train.raw) and torch.equal(experience.train.y, given.train.y)
    assert torch.equal(stream.tests["pretrain"].data.raw, given.test.raw) and stream.num_classes == 5 and not stream.subclasses


@pytest.mark.parametrize("by", ["image", "class"])
@pytest.mark.parametrize("valid", [0.0, 0.2])
def test_fractions_are_nested(by: str, valid: float) -> None:
    found = [images(fraction=f, by=by, valid_fraction=valid) for f in (1.0, 0.8, 0.6, 0.4)]
    assert all(small < large for large, small in pairwise(found))
    assert found[2] != images(fraction=0.6, by=by, valid_fraction=valid, order_seed=1)


def test_the_held_out_examples_are_no_part_of_any_fraction() -> None:
    (whole,), (half,) = (pretrain(fraction=f, valid_fraction=0.2)(data()).experiences for f in (1.0, 0.5))
    assert whole.valid is not None and half.valid is not None and torch.equal(whole.valid.raw, half.valid.raw)
    assert len(whole.valid) == 13 and not set(whole.valid.raw[:, 0, 0, 0].tolist()) & set(whole.train.raw[:, 0, 0, 0].tolist())


def test_a_fraction_of_each_class() -> None:
    (experience,) = pretrain(fraction=0.25)(data()).experiences
    assert experience.train.y.bincount().tolist() == [3, 2, 4, 2, 5]


def test_classes_left_out_are_nowhere() -> None:
    """And the labels of the others close up."""
    stream, given = pretrain(exclude=[1, 3])(data()), data()
    assert stream.num_classes == 3 and stream.subclasses == {"pretrain": [[0], [2], [4]]}
    for part, source in ((stream.experiences[0].train, given.train), (stream.tests["pretrain"].data, given.test)):
        assert part.y.unique().tolist() == [0, 1, 2]
        behind = dict(zip(source.raw[:, 0, 0, 0].tolist(), source.y.tolist(), strict=True))
        assert {(behind[r], y) for r, y in zip(part.raw[:, 0, 0, 0].tolist(), part.y.tolist(), strict=True)} == {(0, 0), (2, 1), (4, 2)}
    halved = pretrain(exclude=[1], fraction=0.5, by="class")(data())
    assert halved.num_classes == 2 and [1] not in halved.subclasses["pretrain"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fraction": 0.1}, "class 1 without an image: 8 are there"),
        ({"fraction": 0.2, "by": "class"}, "leaves 1; at least 2"),
        ({"exclude": [5]}, "no class 5; give classes 0 to 4"),
        ({"exclude": [0, 1, 2, 3]}, "leaves 1; at least 2"),
        ({"fraction": 0.5, "valid_fraction": 0.95}, "without an image"),
    ],
)
def test_what_leaves_a_class_empty_is_refused(changes: dict[str, Any], words: str, error) -> None:
    assert words in error(lambda: pretrain(**changes)(data()))
