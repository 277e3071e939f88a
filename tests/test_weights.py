"""Weights as one flat vector, and the sum of quadratics over it."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cl_bench.strategies.weights import Quadratic, flatten, split


@settings(deadline=None)  # the first call loads half of torch
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
    (3 * slow + parameters[0].sum()).backward()  # the second has no gradient of the loss's own
    wanted = [p.grad for p in parameters]
    parameters[0].grad, parameters[1].grad = torch.ones(2, 3, dtype=torch.float64), None
    torch.testing.assert_close(quadratic.value(), slow.detach(), rtol=1e-9, atol=1e-9)
    for _ in range(3):
        quadratic.pull()
    for p, gradient in zip(parameters, wanted, strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=1e-9, atol=1e-9)


def test_split_views_the_flat_vector() -> None:
    like = [torch.zeros(2, 3), torch.zeros(4)]
    vector = torch.arange(10.0)
    parts = split(vector, like)
    assert torch.equal(flatten(parts), vector) and [p.shape for p in parts] == [p.shape for p in like]
    parts[1].zero_()
    assert vector[6:].sum() == 0
