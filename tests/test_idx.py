"""IDX files where the user or Debian put them; a broken one is named."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from cl_bench.data import downloads

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def idx_file(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def idx_set(folder, suffix=""):
    for part, count in (("train", 20), ("t10k", 10)):
        images = np.arange(count * 4, dtype=np.uint8).reshape(count, 2, 2)
        idx_file(folder / f"{part}-images-idx3-ubyte{suffix}", images)
        idx_file(folder / f"{part}-labels-idx1-ubyte{suffix}", (np.arange(count) % 10).astype(np.uint8))


@pytest.mark.parametrize(
    ("name", "folder", "suffix"),
    [("mnist", "MNIST/raw", ""), ("kmnist", "kmnist", ".gz"), ("fashion_mnist", "FashionMNIST/raw", ".gz")],
)
def test_idx_files_under_root(tmp_path, source, name, folder, suffix):
    idx_set(tmp_path / folder, suffix)
    data = source(name, tmp_path)()
    assert data.train.raw.shape == (20, 1, 2, 2) and data.test.y.tolist() == list(range(10))
    assert data.train.raw[1].flatten().tolist() == [4, 5, 6, 7]


def test_fashion_mnist_root_before_package(tmp_path, source):
    idx_set(tmp_path / "system", ".gz")
    package = str(tmp_path / "system")
    assert len(source("fashion_mnist", tmp_path / "a", package=package)().train) == 20
    idx_set(tmp_path / "b" / "fashion_mnist")
    idx_file(tmp_path / "system" / "train-images-idx3-ubyte.gz", np.zeros((1, 1), np.uint8))  # would be refused
    assert len(source("fashion_mnist", tmp_path / "b", package=package)().train) == 20


@pytest.mark.skipif(not DEBIAN.exists(), reason="needs Debian's package dataset-fashion-mnist")
def test_real_fashion_mnist(tmp_path, source):
    data = source("fashion_mnist", tmp_path)()
    assert data.train.raw.shape == (60000, 1, 28, 28) and data.test.y.bincount().tolist() == [1000] * 10


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_truncated_idx_is_named(tmp_path, source, error, suffix):
    idx_set(tmp_path / "mnist", suffix)
    file = tmp_path / "mnist" / f"train-images-idx3-ubyte{suffix}"
    file.write_bytes(file.read_bytes()[:30])
    assert str(file) in error(source("mnist", tmp_path))


def test_idx_with_too_few_labels(tmp_path, source, error):
    idx_set(tmp_path / "mnist")
    idx_file(tmp_path / "mnist" / "t10k-labels-idx1-ubyte", np.zeros(3, np.uint8))
    assert "10 images" in error(source("mnist", tmp_path))


def test_read_idx_keeps_its_shape(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    idx_file(tmp_path / "x", array)
    assert torch.equal(downloads.read_idx(tmp_path / "x", 3), torch.from_numpy(array))
