"""A stratified split refuses what it cannot hold out."""

from __future__ import annotations

import torch

from cl_bench.core.types import Examples
from cl_bench.data.splits import fraction, stratified


def test_split_refuses_a_class_it_cannot_hold_out(error):
    data = Examples(torch.zeros(3, 1, 1, 1, dtype=torch.uint8), torch.tensor([0, 0, 1]))
    assert "class 1" in error(lambda: stratified(data, fraction(0.5), seed=0))
    assert "test_fraction=1.5" in error(lambda: fraction(1.5))
