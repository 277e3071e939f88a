"""Scenarios as streams, portions, views and schedules."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cl_bench.core.errors import ConfigError
from cl_bench.core.schedule import Constant, FirstThen, WarmupCosine
from cl_bench.core.types import Examples, Experience
from cl_bench.data.resident import Dataset, in_memory
from cl_bench.data.views import CropFlip, Plain, Resized
from cl_bench.loop import Plan
from cl_bench.scenarios.common import hold_out
from cl_bench.scenarios.sequence import Sequence
from cl_bench.scenarios.split import Split
from cl_bench.scenarios.transformed import Permuted, Rotated


def dataset(classes: int = 6, size: int = 5, channels: int = 1, per_class: int = 8, seed: int = 0) -> Dataset:
    """Each picture is its own: the first pixel of class c is c."""
    rng = torch.Generator().manual_seed(seed)

    def part(n: int) -> Examples:
        y = torch.arange(classes).repeat(n)
        raw = torch.randint(0, 256, (len(y), channels, size, size), generator=rng).to(torch.uint8)
        raw[:, 0, 0, 0] = y.to(torch.uint8)
        return Examples(raw, y)

    return in_memory("made", part(per_class), part(3), classes)


def split(**changes):
    settings = {"tasks": 3, "order": "natural", "order_seed": 0, "valid_fraction": 0.0, "announced": True}
    return Split(**(settings | changes))


def rows(examples: Examples) -> set[bytes]:
    return {bytes(r.flatten().tolist()) for r in examples.raw}


def test_split_natural() -> None:
    stream = split()(dataset())
    assert stream.num_classes == 6 and [e.classes for e in stream.experiences] == [(0, 1), (2, 3), (4, 5)]
    for e, (name, test) in zip(stream.experiences, stream.tests.items(), strict=True):
        assert name == e.name and test.task == e.index and test.classes == e.classes and len(e.train) == 16 and len(test.data) == 6
        assert e.valid is None and e.announced
        for part in (e.train, test.data):
            assert torch.equal(part.raw[:, 0, 0, 0].long(), part.y) and set(part.y.tolist()) == set(e.classes)
    assert stream.seen(0) == (0, 1) and stream.seen(1) == (0, 1, 2, 3) and stream.input_shape == (1, 5, 5)


def test_split_list_sizes_and_wrong_sizes() -> None:
    stream = split(tasks=[1, 3, 2])(dataset())
    assert [e.classes for e in stream.experiences] == [(0,), (1, 2, 3), (4, 5)]
    for wrong in (4, 0, [3, 2], [6, 0], [7, -1], []):
        with pytest.raises(ConfigError, match="classes"):
            split(tasks=wrong)(dataset())
    assert not any(e.announced for e in split(announced=False)(dataset()).experiences)


def test_split_seeded_renames_labels_in_the_order_of_the_stream() -> None:
    data, stream = dataset(), split(order="seeded", order_seed=3)(dataset())
    meaning = {}  # label in the stream -> label in the data
    for e, test in zip(stream.experiences, stream.tests.values(), strict=True):
        for part in (e.train, test.data):
            for old, new in zip(part.raw[:, 0, 0, 0].tolist(), part.y.tolist(), strict=True):
                assert meaning.setdefault(new, old) == old
        assert set(e.train.y.tolist()) == set(e.classes)
    assert sorted(meaning) == sorted(meaning.values()) == list(range(6)) and list(meaning.values()) != list(range(6))
    assert [e.classes for e in stream.experiences] == [(0, 1), (2, 3), (4, 5)]
    assert set().union(*(rows(e.train) for e in stream.experiences)) == rows(data.train)
    again, other = split(order="seeded", order_seed=3)(data), split(order="seeded", order_seed=4)(data)
    first = [s.experiences[0].train.raw for s in (stream, again, other)]
    assert torch.equal(first[0], first[1]) and not torch.equal(first[0], first[2])


@pytest.mark.parametrize("make", [split, lambda **k: Permuted(tasks=2, order_seed=0, **k)])
def test_held_out_examples_are_disjoint_from_training(make) -> None:
    plain, stream = make(valid_fraction=0.0)(dataset()), make(valid_fraction=0.25)(dataset())
    for whole, e in zip(plain.experiences, stream.experiences, strict=True):
        assert e.valid is not None and len(e.valid) == round(0.25 * len(whole.train))
        assert not rows(e.train) & rows(e.valid) and rows(e.train) | rows(e.valid) == rows(whole.train)
        assert torch.equal(torch.cat([e.train.y, e.valid.y]).sort().values, whole.train.y.sort().values)


def test_hold_out_is_the_same_each_time_and_changes_with_the_seed() -> None:
    train = dataset().train
    a, b, c = (hold_out(train, 0.5, seed, 0)[1] for seed in (0, 0, 1))
    assert torch.equal(a.raw, b.raw) and not torch.equal(a.raw, c.raw)
    assert hold_out(train, 0.0, 0, 0) == (train, None)


def test_permuted() -> None:
    data = dataset(size=5)
    index = torch.arange(25, dtype=torch.uint8).view(1, 1, 5, 5).repeat(2, 3, 1, 1)
    scenario = Permuted(tasks=3, order_seed=0, valid_fraction=0.0)
    maps = [scenario.transform(index, task) for task in range(3)]
    for task, moved in enumerate(maps):
        assert all(torch.equal(moved[0, 0], plane) for image in moved for plane in image)  # all images and channels alike
        flat = moved[0, 0].flatten().long()
        assert sorted(flat.tolist()) == list(range(25))
        for part, source in ((scenario(data).experiences[task].train, data.train), (scenario(data).tests[f"task{task}"].data, data.test)):
            assert torch.equal(part.raw.flatten(2), source.raw.flatten(2)[:, :, flat]) and torch.equal(part.y, source.y)
    assert torch.equal(maps[0], index) and not torch.equal(maps[1], index) and not torch.equal(maps[1], maps[2])
    assert not torch.equal(maps[1], Permuted(tasks=3, order_seed=1, valid_fraction=0.0).transform(index, 1))
    assert [e.classes for e in scenario(data).experiences] == [tuple(range(6))] * 3


def test_rotated_by_quarter_turns() -> None:
    data = dataset(size=5)
    stream = Rotated(tasks=4, degrees=360, order_seed=0, valid_fraction=0.0)(data)
    turned = [e.train.raw for e in stream.experiences]
    assert torch.equal(turned[0], data.train.raw)
    direction = 1 if torch.equal(turned[1], torch.rot90(data.train.raw, 1, (2, 3))) else -1
    for task in range(4):
        assert torch.equal(turned[task], torch.rot90(data.train.raw, direction * task, (2, 3)))
        assert torch.equal(stream.tests[f"task{task}"].data.raw, torch.rot90(data.test.raw, direction * task, (2, 3)))
    half = Rotated(tasks=2, degrees=180, order_seed=0, valid_fraction=0.0)(data)
    assert torch.equal(half.experiences[1].train.raw, turned[1])


def test_sequence_shared_and_per_dataset() -> None:
    several = {"grey": dataset(classes=4, size=4), "colour": dataset(classes=3, size=6, channels=3, seed=1)}
    for head, classes, total in (
        ("shared", [(0, 1, 2, 3), (0, 1, 2)], 4),
        ("per_dataset", [(0, 1, 2, 3), (4, 5, 6)], 7),
    ):
        stream = Sequence(datasets=list(several), head=head, order_seed=0, valid_fraction=0.0)(several)
        assert [e.classes for e in stream.experiences] == classes and stream.num_classes == total
        assert [e.name for e in stream.experiences] == list(several) == list(stream.tests)
        for e, test, source in zip(stream.experiences, stream.tests.values(), several.values(), strict=True):
            for part, before in ((e.train, source.train), (test.data, source.test)):
                assert part.raw.shape[1:] == (3, 6, 6) and part.raw.dtype == torch.uint8
                assert torch.equal(part.y - e.classes[0], before.y)
        grey = stream.experiences[0].train.raw
        assert torch.equal(grey[:, 0], grey[:, 2]) and torch.equal(stream.experiences[1].train.raw, several["colour"].train.raw)


def test_joint_is_the_whole_stream_at_the_last_place() -> None:
    stream = split(valid_fraction=0.25)(dataset())
    joint = stream.merged()
    (only,) = joint.experiences
    assert only.index == 2 and only.classes == tuple(range(6)) and joint.tests is stream.tests and joint.seen(2) == tuple(range(6))
    assert len(only.train) == sum(len(e.train) for e in stream.experiences) and len(only.valid) == sum(
        len(e.valid) for e in stream.experiences
    )
    assert rows(only.train) == set().union(*(rows(e.train) for e in stream.experiences))
    assert torch.equal(only.train.raw[:, 0, 0, 0].long(), only.train.y)


@given(st.integers(1, 40), st.integers(1, 300))
def test_portions(batch_size: int, count: int) -> None:
    sizes = Plan(batch_size, 1, None, True).portions(count)
    assert sum(sizes) == count and min(sizes) >= 1 and max(sizes) <= batch_size + 1
    assert all(size == batch_size for size in sizes[:-1])
    if count > 1 and batch_size > 1:
        assert 1 not in sizes  # batch norm cannot take it
    whole = Experience(0, "whole", Examples(torch.zeros(count, 1, 1, 1, dtype=torch.uint8), torch.zeros(count)), (0,), merges=4)
    assert Plan(batch_size, 3, None, True).total(whole) == 3 * len(sizes)  # epochs of merged data are that much longer already
    assert Plan(batch_size, None, 7, True).total(whole) == 4 * 7


def test_plain_view() -> None:
    raw = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    torch.testing.assert_close(Plain(mean=0.5, std=0.25)(raw, None).flatten(), torch.tensor([-2.0, -1.2, 2.0]))
    assert raw.tolist() == [[[[0, 51, 255]]]]


@pytest.mark.parametrize("padding", [0, 2])
def test_crop_flip_shows_a_shifted_or_mirrored_window_of_the_padded_image(padding: int) -> None:
    raw = torch.randint(1, 256, (40, 2, 5, 7), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    view = CropFlip(mean=0.5, std=0.5, padding=padding, flip=True)
    plain = Plain(mean=0.5, std=0.5)(raw, None)
    assert torch.equal(view(raw, None), plain)
    seen = view(raw, torch.Generator().manual_seed(1))
    assert seen.shape == plain.shape and seen.dtype == plain.dtype
    assert torch.equal(seen, view(raw, torch.Generator().manual_seed(1)))
    padded = torch.nn.functional.pad(plain, [padding] * 4)
    kinds = set()
    for image, shown in zip(padded, seen, strict=True):
        windows = {
            (dy, dx, flip): window.flip(2) if flip else window
            for dy in range(2 * padding + 1)
            for dx in range(2 * padding + 1)
            for flip in (False, True)
            for window in (image[:, dy : dy + 5, dx : dx + 7],)
        }
        found = [key for key, window in windows.items() if torch.equal(window, shown)]
        assert len(found) == 1
        kinds.add(found[0])
    assert {flip for _, _, flip in kinds} == {False, True} and len(kinds) > (10 if padding else 1)
    still = CropFlip(mean=0.5, std=0.5, padding=0, flip=False)
    assert torch.equal(still(raw, torch.Generator()), plain)


def test_resized_view() -> None:
    raw = dataset().train.raw
    assert Resized(Plain(mean=0.0, std=1.0), 3, 8)(raw, None).shape == (len(raw), 3, 8, 8)
    assert Resized(Plain(mean=0.0, std=1.0), None, None)(raw, None).shape == raw.shape


def test_schedules() -> None:
    assert [Constant()(step, 10, 0) for step in range(10)] == [1.0] * 10
    made = WarmupCosine(warmup=4, final=0.2)

    def rate(step: int, steps: int) -> float:
        return made(step, steps, 0)

    assert [rate(step, 12) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert rate(4, 12) == 1.0 and rate(8, 12) == pytest.approx(0.2 + 0.8 * 0.5) and rate(12, 12) == pytest.approx(0.2)
    assert rate(10, 12) == pytest.approx(0.2 + 0.8 * 0.5 * (1 + math.cos(0.75 * math.pi)))
    falling = [rate(step, 12) for step in range(4, 12)]
    assert falling == sorted(falling, reverse=True)
    assert [WarmupCosine(warmup=20, final=0.0)(step, 5, 0) for step in range(5)] == [(step + 1) / 20 for step in range(5)]


def test_a_first_task_has_a_schedule_of_its_own() -> None:
    """2 steps of warm-up, then half a cosine over 4: by hand."""
    rate = FirstThen(first=WarmupCosine(warmup=2, final=0.0), factor=1.0, later=Constant())
    by_hand = [0.5, 1.0, 1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]
    assert [rate(step, 6, 0) for step in range(6)] == pytest.approx(by_hand, abs=1e-12)
    assert [rate(step, 6, number) for number in (1, 2) for step in range(6)] == [1.0] * 12


def test_the_default_run_learns_every_task(tmp_path) -> None:
    """A sequential row that fails to learn its tasks makes any method look good beside it."""
    from programs import run, seeds

    status, _, _ = run(tmp_path, "runtime.threads=1")
    (folder,) = seeds(tmp_path)
    figures = dict(line.split(",") for line in (folder / "summary.csv").read_text().splitlines()[1:])
    assert status == 0 and float(figures["task_il_learning_accuracy"]) > 0.95
