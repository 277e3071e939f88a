"""Published sets with no network: the layouts on disk, and an error that says what to do."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.fixture
def offline(monkeypatch):
    def refused(*args, **kwargs):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr("socket.create_connection", refused)
    monkeypatch.setattr("socket.getaddrinfo", refused)
    for key in [key for key in os.environ if key.lower().endswith("_proxy")]:
        monkeypatch.delenv(key)


@pytest.fixture
def tiny_imagenet(picture):
    def make(place):
        for k, wnid in enumerate(("n01", "n02")):
            for i in range(3):
                picture(place / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", (100 * k, i, 0), (64, 64))
            picture(place / "val" / "images" / f"val_{k}.JPEG", (100 * k, 0, 0), (64, 64))
        (place / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn01\t0\t0\t9\t9\nval_1.JPEG\tn02\t0\t0\t9\t9\n")

    return make


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("mnist", "train-images-idx3-ubyte"),
        ("kmnist", "KMNIST/raw"),
        ("fashion_mnist", "dataset-fashion-mnist"),
        ("svhn", "train_32x32.mat"),
        ("cifar10", "cifar-10-batches-py"),
        ("cifar100", "cifar-100-python"),
        ("tiny_imagenet", "tiny-imagenet-200.zip"),
    ],
)
def test_offline_error_says_three_ways(tmp_path, offline, capfd, source, error, name, missing):
    changes = {"package": str(tmp_path / "nothing" / "fashion-mnist")} if name == "fashion_mnist" else {}
    message = error(source(name, tmp_path / "data", **changes))
    assert f"data={name}" in message and missing in message and str(tmp_path / "data") in message
    assert all(way in message for way in ("data.root=", "with network", "data=digits", "mnist5k"))
    assert "Network is unreachable" in message and len(message) < 1000
    assert "Traceback" not in "".join(capfd.readouterr())


def test_download_into_a_root_that_is_a_file(tmp_path, offline, source, error):
    (tmp_path / "file").write_text("in the way")
    message = error(source("cifar10", tmp_path / "file", cache=str(tmp_path / "cache")))
    assert str(tmp_path / "file") in message and "cannot write" in message and "data.root=" in message


def test_cifar10_layout(tmp_path, monkeypatch, offline, source, error):
    from torchvision.datasets import CIFAR10

    def batch(name, content):
        file = tmp_path / CIFAR10.base_folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(pickle.dumps(content))
        return [name, hashlib.md5(file.read_bytes()).hexdigest()]

    images = np.arange(10 * 3072).astype(np.uint8).reshape(10, 3072)
    content = {"data": images, "labels": list(range(10))}
    meta = batch("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(CIFAR10, "train_list", [batch("data_batch_1", content)])
    monkeypatch.setattr(CIFAR10, "test_list", [batch("test_batch", content)])
    monkeypatch.setattr(CIFAR10, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]})
    data = source("cifar10", tmp_path)()
    assert data.train.raw.shape == (10, 3, 32, 32)
    assert torch.equal(data.train.raw.reshape(10, -1), torch.from_numpy(images))
    (tmp_path / CIFAR10.base_folder / "test_batch").write_bytes(b"cos\nsystem\n(S'true'\ntR.")  # a pickle with code
    assert "cifar-10" in error(source("cifar10", tmp_path, cache=str(tmp_path / "other")))


def test_svhn_layout(tmp_path, monkeypatch, offline, source):
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 10), dtype=np.uint8)
    files = {}
    for split in ("train", "test"):
        savemat(tmp_path / f"{split}.mat", {"X": images, "y": np.arange(1, 11).reshape(-1, 1)})
        digest = hashlib.md5((tmp_path / f"{split}.mat").read_bytes()).hexdigest()
        files[split] = ["http://nowhere.invalid", f"{split}.mat", digest]
    monkeypatch.setattr(SVHN, "split_list", files)
    data = source("svhn", tmp_path)()
    assert data.train.y.tolist() == [*range(1, 10), 0]
    assert torch.equal(data.train.raw[4], torch.from_numpy(images[..., 4]).permute(2, 0, 1))


def test_tiny_imagenet_layout(tmp_path, offline, tiny_imagenet, source, error):
    tiny_imagenet(tmp_path / "tiny-imagenet-200")
    data = source("tiny_imagenet", tmp_path, num_classes=2)()
    assert data.train.raw.shape == (6, 3, 64, 64) and data.test.y.tolist() == [0, 1]
    assert "has 2 class folders, not 200" in error(source("tiny_imagenet", tmp_path, cache=str(tmp_path / "other")))


def test_tiny_imagenet_from_a_zip_in_root(tmp_path, offline, tiny_imagenet, source):
    import shutil

    tiny_imagenet(tmp_path / "made" / "tiny-imagenet-200")
    root = tmp_path / "data"
    file = shutil.make_archive(str(root / "tiny-imagenet-200"), "zip", tmp_path / "made", "tiny-imagenet-200")
    md5 = hashlib.md5(Path(file).read_bytes()).hexdigest()
    assert len(source("tiny_imagenet", root, num_classes=2, md5=md5)().train) == 6
    assert sorted(p.name for p in root.iterdir()) == ["cache", "tiny-imagenet-200", "tiny-imagenet-200.zip"]
