"""Photographs in the layouts of their publishers, and the script that sorts two of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "prepare_data.py"
COLOURS = ((200, 10, 10), (10, 200, 10))
KNOWN = {"size": 6, "num_classes": 2}


@pytest.fixture
def published(picture, monkeypatch):
    """published(kind, root): a few pictures where torchvision looks for them; class k has the colour COLOURS[k]."""
    from scipy.io import savemat

    def pets(root) -> None:
        for part, count in (("trainval", 3), ("test", 2)):
            lines = []
            for k in range(2):
                for i in range(count):
                    picture(root / f"images/breed{k}_{part}{i}.jpg", COLOURS[k])
                    lines.append(f"breed{k}_{part}{i} {k + 1} 1 1")
            (root / "annotations").mkdir(exist_ok=True)
            (root / f"annotations/{part}.txt").write_text("\n".join(lines) + "\n")

    def flowers(root) -> None:
        monkeypatch.setattr("torchvision.datasets.flowers102.check_integrity", lambda path, md5: Path(path).exists())
        labels = [1, 2] * 5
        for number, label in enumerate(labels, start=1):
            picture(root / f"jpg/image_{number:05}.jpg", COLOURS[label - 1])
        savemat(root / "imagelabels.mat", {"labels": np.array(labels)})
        savemat(root / "setid.mat", {"trnid": np.arange(1, 5), "valid": np.arange(5, 7), "tstid": np.arange(7, 11)})

    def cars(root) -> None:
        (root / "devkit").mkdir(parents=True)
        for part, file, count in (("train", "devkit/cars_train_annos.mat", 4), ("test", "cars_test_annos_withlabels.mat", 3)):
            names = [(f"{i:05}.jpg", i % 2 + 1) for i in range(count)]
            for name, label in names:
                picture(root / f"cars_{part}" / name, COLOURS[label - 1])
            savemat(root / file, {"annotations": np.array(names, dtype=[("fname", "O"), ("class", "O")])})
        savemat(root / "devkit/cars_meta.mat", {"class_names": np.array(["a", "b"], dtype=object)})

    places = {"pets": (pets, "oxford-iiit-pet"), "flowers102": (flowers, "flowers-102"), "cars": (cars, "stanford_cars")}

    def write(name: str, root: Path) -> None:
        make, folder = places[name]
        make(root / folder)

    return write


def right(data) -> None:
    """Every picture has the colour of its class."""
    for part in (data.train, data.test):
        assert part.raw.shape[1:] == (3, 6, 6)
        assert (part.raw[:, :2, 3, 3].long().argmax(1) == part.y).all() and set(part.y.tolist()) == {0, 1}


@pytest.mark.parametrize(("name", "sizes"), [("pets", (6, 4)), ("flowers102", (4, 4)), ("cars", (4, 3))])
def test_as_published(tmp_path, source, published, name, sizes):
    published(name, tmp_path)
    data = source(name, tmp_path, **KNOWN)()
    assert (len(data.train), len(data.test)) == sizes
    right(data)


def test_several_splits_make_one(tmp_path, source, published):
    published("flowers102", tmp_path)
    data = source("flowers102", tmp_path, **KNOWN, train=["train", "val"])()
    assert (len(data.train), len(data.test)) == (6, 4)
    right(data)


def test_what_is_missing_is_said(tmp_path, source, published, error, monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", lambda *a, **k: (_ for _ in ()).throw(OSError(101, "Network is unreachable")))
    for name, folder in (("pets", "oxford-iiit-pet"), ("flowers102", "flowers-102")):
        said = error(source(name, tmp_path))
        assert f"data={name} is not here" in said and f"{tmp_path}/{folder}" in said and "data.root=" in said
    said = error(source("cars", tmp_path))
    assert "cars_test_annos_withlabels.mat" in said and "issues/7545" in said and "data.root=" in said
    said = error(source("cub200", tmp_path))
    assert f"{tmp_path}/cub200/train" in said and "CUB_200_2011.tgz" in said and "scripts/prepare_data.py cub200" in said


def prepare(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True)


def test_cub200(tmp_path, source, picture):
    archive, lines, parts = tmp_path / "CUB_200_2011", [], []
    for k, name in enumerate(("001.Albatross", "002.Auklet")):
        for i in range(5):
            picture(archive / "images" / name / f"{name}_{i}.jpg", COLOURS[k])
            lines.append(f"{len(lines) + 1} {name}/{name}_{i}.jpg")
            parts.append(f"{len(lines)} {int(i < 3)}")
    (archive / "images.txt").write_text("\n".join(lines) + "\n")
    (archive / "train_test_split.txt").write_text("\n".join(parts) + "\n")
    done = prepare("cub200", archive, tmp_path / "cub200")
    assert done.returncode == 0 and "6 pictures to train on, 4 to test on" in done.stdout
    assert not list(tmp_path.glob("*.partial"))
    data = source("cub200", tmp_path, **KNOWN)()
    assert (len(data.train), len(data.test)) == (6, 4) and data.class_names == ("001.Albatross", "002.Auklet")
    right(data)
    again = prepare("cub200", archive, tmp_path / "cub200")
    assert again.returncode == 2 and "is there already" in again.stderr


def test_clipart(tmp_path, source, picture):
    for part, count in (("train", 2), ("test", 1)):
        names = [(k, f"clipart/{word}/{part}{i}.jpg") for k, word in enumerate(("ant", "bee")) for i in range(count)]
        for k, name in names:
            picture(tmp_path / "domainnet" / name, COLOURS[k])
        (tmp_path / f"domainnet/clipart_{part}.txt").write_text("".join(f"{name} {k}\n" for k, name in names))
    assert prepare("clipart", tmp_path / "domainnet", tmp_path / "clipart").returncode == 0
    data = source("clipart", tmp_path, **KNOWN)()
    assert (len(data.train), len(data.test)) == (4, 2)
    right(data)


def test_another_folder_is_refused(tmp_path):
    done = prepare("clipart", tmp_path, tmp_path / "clipart")
    assert done.returncode == 2 and "clipart_train.txt is missing" in done.stderr and "Traceback" not in done.stderr
