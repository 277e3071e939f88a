"""The user's own pictures, a folder for each class."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture
def class_folders(picture):
    def make(root, count=5):
        for k, name in enumerate(("cat", "dog")):
            for i in range(count):
                picture(root / name / f"{i}.png", (100 * k + 50, 10 * i, 7))
        (root / "cat" / "notes.txt").write_text("no picture")

    return make


def test_folder_with_our_split(tmp_path, class_folders, source):
    class_folders(tmp_path / "mine")
    data = source("folder", tmp_path, root=str(tmp_path / "mine"), size=8)()
    assert data.num_classes == 2 and data.train.raw.shape == (8, 3, 8, 8) and data.test.y.tolist() == [0, 1]
    assert data.train.raw[-1, :, 0, 0].tolist()[0] == 150
    assert not (tmp_path / "mine" / "cache").exists()


def test_folder_with_the_users_split(tmp_path, class_folders, picture, source, error):
    class_folders(tmp_path / "train")
    class_folders(tmp_path / "test", count=2)
    data = source("folder", tmp_path, root=str(tmp_path), size=4)()
    assert (len(data.train), len(data.test)) == (10, 4)
    picture(tmp_path / "test" / "emu" / "0.png", (1, 2, 3))
    assert "emu" in error(source("folder", tmp_path, root=str(tmp_path), size=4))


def test_folder_sees_a_changed_picture(tmp_path, class_folders, picture, source):
    class_folders(tmp_path)  # the cache lies inside and is no class
    first = source("folder", tmp_path, root=str(tmp_path), size=4)()
    assert source("folder", tmp_path, root=str(tmp_path), size=4)().checksum == first.checksum
    picture(tmp_path / "dog" / "9.png", (255, 255, 255))
    assert len(source("folder", tmp_path, root=str(tmp_path), size=4)().train) == len(first.train) + 1


def test_folder_crops_the_centre(tmp_path, source):
    for name in ("a", "b"):
        for i in range(2):
            (tmp_path / name).mkdir(exist_ok=True)
            wide = np.zeros((10, 30, 3), np.uint8)
            wide[:, 10:20] = (200, 100, 50)
            Image.fromarray(wide).save(tmp_path / name / f"{i}.png")
    data = source("folder", tmp_path, root=str(tmp_path), size=5)()
    assert data.train.raw[0, :, 2, 2].tolist() == [200, 100, 50] and (data.train.raw[0, 0] > 150).all()


def test_folder_mistakes(tmp_path, class_folders, source, error):
    def mine(root, **changes):
        return error(source("folder", tmp_path, root=str(root), cache=str(tmp_path / "cache"), **changes))

    assert "no folder" in mine(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "no class folders" in mine(tmp_path / "empty")
    class_folders(tmp_path / "mine")
    assert "num_classes=3" in mine(tmp_path / "mine", num_classes=3)
    broken = tmp_path / "mine" / "dog" / "broken.png"
    broken.write_bytes((tmp_path / "mine" / "dog" / "0.png").read_bytes()[:50])
    assert str(broken) in mine(tmp_path / "mine")
    broken.unlink()
    (tmp_path / "mine" / "bird").mkdir()
    assert "bird" in mine(tmp_path / "mine")


def test_notmnist(tmp_path, picture, source, error):
    assert "notMNIST_small.tar.gz" in error(source("notmnist", tmp_path))
    for k, letter in enumerate("ABCDEFGHIJ"):
        for i in range(5):
            picture(tmp_path / "notMNIST_small" / letter / f"{i}.png", (20 * k, 20 * k, 20 * k), (28, 28))
    (tmp_path / "notMNIST_small" / "A" / "RGVt.png").touch()  # two of the published files are empty
    data = source("notmnist", tmp_path)()
    assert data.train.raw.shape == (40, 1, 28, 28) and data.test.y.tolist() == list(range(10)) and data.parts == ()
    assert torch.equal(data.train.raw[:, 0, 0, 0].long(), 20 * data.train.y)


def test_core50(tmp_path, picture, source, error):
    settings = {"train_sessions": [1, 4], "test_sessions": [3], "size": 4}
    assert f"{tmp_path}/core50_128x128/s1/o1" in error(source("core50", tmp_path, **settings))
    for session, count in ((1, 2), (4, 1), (3, 1)):
        for k in range(1, 51):
            for i in range(count):
                picture(
                    tmp_path / "core50_128x128" / f"s{session}" / f"o{k}" / f"C_{session:02}_{k:02}_{i:03}.png", (k, session, i), (8, 8)
                )
    for _ in range(2):  # made, then read
        data = source("core50", tmp_path, **settings)()
        assert data.parts == (100, 50) and data.train.raw.shape == (150, 3, 4, 4) and data.test.y.tolist() == list(range(50))
        assert torch.equal(data.train.raw[:, 0, 0, 0].long(), data.train.y + 1)
        assert data.train.raw[:, 1, 0, 0].tolist() == [1] * 100 + [4] * 50 and set(data.test.raw[:, 1, 0, 0].tolist()) == {3}
    kinds = source("core50", tmp_path, num_classes=10, **settings)()
    assert torch.equal(kinds.test.y, torch.arange(50) // 5) and kinds.parts == (100, 50)
    assert "data.num_classes=7" in error(lambda: source("core50", tmp_path, num_classes=7))
