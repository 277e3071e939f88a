"""Weights as one flat vector, and the sum of quadratics over it."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from cl_bench.strategies.weights import Quadratic, flatten, split


@given(st.integers(0, 2**31), st.integers(1, 5), st.floats(0, 1))
def test_quadratic_is_the_sum_of_its_parts(seed: int, tasks: int, holes: float) -> None:
    """Value and gradient, also where weights are zero."""
    rng = torch.Generator().manual_seed(seed)
    parameters = [torch.randn(2, 3, generator=rng, dtype=torch.float64), torch.randn(4, generator=rng, dtype=torch.float64)]
    parameters = [p.requires_grad_() for p in parameters]
    quadratic, parts = Quadratic(parameters), []
    for _ in range(tasks):
        weight = torch.rand(10, generator=rng, dtype=torch.float64) * 10 ** float(4 * torch.rand(1, generator=rng))
        weight = weight * (torch.rand(10, generator=rng) >= holes)
        centre = torch.randn(10, generator=rng, dtype=torch.float64)
        quadratic.add(weight, centre)
        parts.append((weight, centre))
    theta = torch.cat([p.reshape(-1) for p in parameters])
    slow = sum((0.5 * (w * (theta - c) ** 2).sum() for w, c in parts), torch.zeros((), dtype=torch.float64))
    torch.testing.assert_close(quadratic(), slow, rtol=1e-9, atol=1e-9)
    for a, b in zip(torch.autograd.grad(3 * quadratic(), parameters), torch.autograd.grad(3 * slow, parameters), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_split_views_the_flat_vector() -> None:
    like = [torch.zeros(2, 3), torch.zeros(4)]
    vector = torch.arange(10.0)
    parts = split(vector, like)
    assert torch.equal(flatten(parts), vector) and [p.shape for p in parts] == [p.shape for p in like]
    parts[1].zero_()
    assert vector[6:].sum() == 0
