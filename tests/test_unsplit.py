"""Data sets of the patching presets in their publishers' layouts, variants, and how a defaults list is read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from cl_bench.build import build
from cl_bench.core.types import Examples
from cl_bench.data.resident import Dataset, in_memory
from cl_bench.data.variants import FirstClasses, Inked, Variant
from cl_bench.overrides import CONF
from cl_bench.resolve import resolve

COLOURS = ((200, 10, 10), (10, 200, 10))
NAMES = ("a_first", "b_second")


def textures(root: Path, picture) -> None:
    for part, count in (("train", 2), ("val", 1), ("test", 2)):
        files = [f"{name}/{part}{i}.jpg" for name in NAMES for i in range(count)]
        for file in files:
            picture(root / "dtd/dtd/images" / file, COLOURS[NAMES.index(file.split("/")[0])])
        (root / "dtd/dtd/labels").mkdir(parents=True, exist_ok=True)
        (root / f"dtd/dtd/labels/{part}1.txt").write_text("\n".join(files) + "\n")


def signs(root: Path, picture) -> None:
    lines = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    for k in range(2):
        for i in range(3):
            picture(root / f"gtsrb/GTSRB/Training/{k:05}/{i}.ppm", COLOURS[k])
        for i in range(2):
            picture(root / f"gtsrb/GTSRB/Final_Test/Images/{k}{i}.ppm", COLOURS[k])
            lines.append(f"{k}{i}.ppm;12;8;0;0;1;1;{k}")
    (root / "gtsrb/GT-final_test.csv").write_text("\n".join(lines) + "\n")


def satellite(root: Path, picture) -> None:
    for k, name in enumerate(NAMES):
        for i in range(10):
            picture(root / f"eurosat/2750/{name}/{i}.jpg", COLOURS[k])


def aerial(root: Path, picture) -> None:
    for k, name in enumerate(NAMES):
        for part, count in (("train", 3), ("test", 2)):
            for i in range(count):
                picture(root / f"resisc45/{part}/{name}/{i}.jpg", COLOURS[k])


MADE = {"dtd": (textures, (6, 4)), "gtsrb": (signs, (6, 4)), "eurosat": (satellite, (18, 2)), "resisc45": (aerial, (6, 4))}


@pytest.mark.parametrize("name", MADE)
def test_as_published(tmp_path: Path, source, picture, name: str) -> None:
    make, sizes = MADE[name]
    make(tmp_path, picture)
    data = source(name, tmp_path, size=6, num_classes=2)()
    assert (len(data.train), len(data.test)) == sizes
    assert data.class_names == (() if name == "gtsrb" else NAMES)
    for part in (data.train, data.test):
        assert (part.raw[:, :2, 3, 3].long().argmax(1) == part.y).all() and set(part.y.tolist()) == {0, 1}


def test_what_is_not_sorted_is_said(tmp_path: Path, source, error) -> None:
    for name in ("resisc45", "imagenet"):
        assert f"{tmp_path}/{name}/train" in (message := error(source(name, tmp_path))) and "sort its pictures" in message


def small() -> Dataset:
    raw = torch.arange(4 * 6, dtype=torch.uint8).view(6, 1, 2, 2)
    return in_memory("small", Examples(raw, torch.tensor([0, 0, 0, 1, 1, 1])), Examples(raw[:2], torch.tensor([0, 1])), 2)


def variant(**changes) -> Variant:
    settings = {"quarter_turns": 0, "invert": False, "train_per_class": None, "test_per_class": None}
    return Variant(**{"name": "v", "num_classes": 2, "source": small, "seed": 0, **settings, **changes})


def test_variants(error) -> None:
    turned, inverted, few = variant(quarter_turns=1)(), variant(invert=True)(), variant(train_per_class=2)()
    assert turned.train.raw[0, 0].tolist() == [[1, 3], [0, 2]] and inverted.train.raw[0, 0].tolist() == [[255, 254], [253, 252]]
    assert few.train.y.tolist() == [0, 0, 1, 1] and len(few.test) == 2 and turned.num_classes == 2
    assert len({d.checksum for d in (small(), turned, inverted, few)}) == 4
    assert "a class of 3; give less" in error(variant(train_per_class=4))


def test_the_first_classes(error) -> None:
    one = FirstClasses(name="one", num_classes=1, source=small)()
    assert (len(one.train), len(one.test), one.num_classes) == (3, 1, 1) and torch.equal(one.train.raw, small().train.raw[:3])
    assert "data.num_classes=3: small has 2 classes" in error(FirstClasses(name="v", num_classes=3, source=small))


def test_characters_as_light_ink() -> None:
    dark = torch.full((1, 1, 5, 5), 200, dtype=torch.uint8)
    dark[..., 2, 2], dark[..., 2, 3], dark[..., 0, 0] = 100, 150, 216  # the edge's mean is 201.6: corners count twice
    for raw in (dark, 255 - dark):
        found = Inked(name="i", num_classes=1, source=lambda raw=raw: in_memory("d", *[Examples(raw, torch.zeros(1).long())] * 2, 1))()
        assert found.train.raw[0, 0, 2].tolist() == [4, 4, 255, 130, 4] and found.train.raw[0, 0, 0, 0] == 0


def test_a_row_of_data_sets_reads_defaults_lists_as_hydra_does() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        names = ["mnist5k_turned", "glyphs_arabic"]
        row = resolve(compose("config", overrides=["scenario=sequence", f"scenario.datasets=[{','.join(names)}]"]), [CONF], named=False)
        for name in names:
            alone = resolve(compose("config", overrides=[f"data={name}"]), [CONF], named=False)["data"]
            assert row["datasets"][name] == alone and build(alone, ["cl_bench."]) is not None
