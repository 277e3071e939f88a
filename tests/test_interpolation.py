"""The search for a coefficient, on curves whose minimum is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from cl_bench.core.errors import RunError
from cl_bench.interpolation.normalise import scale
from cl_bench.interpolation.search import Curve, Settings, best_of_grid, quasiconvex, search

SETTINGS = Settings(low=0.0, high=1.0, points=11, tolerance=1e-3, slack=1e-3, coefficient=0.3)
DRAWS = 300
Function = Callable[[float], float]


def exponential(rng: np.random.Generator) -> Function:
    """The new task's loss decays, the supported one first falls, then grows."""
    k, m, t, c, w = rng.uniform([2, 0.5, 0, 0.05, 0.05], [12, 5, 1, 0.5, 1])
    return lambda a: c + (1 - c) * math.exp(-k * a) + 1 + w * (math.expm1(m * a) - t * m * a)


def sigmoid(rng: np.random.Generator) -> Function:
    k, m, p, w, c = rng.uniform([5, 0.05, 1.5, 0.2, 0.05], [20, 0.5, 4, 3, 0.4])
    return lambda a: c + (1 - c) / (1 + math.exp(k * (a - m))) + 1 + w * a**p


def warped(rng: np.random.Generator) -> Function:
    """A saturated quadratic of a warped coefficient: quasi-convex, not convex."""
    q, s, h, g = rng.uniform([0.4, 0.1, 0.5, 0.3], [2.5, 0.9, 3, 3])
    return lambda a: 1 + h * math.tanh(q * (math.expm1(g * a) / math.expm1(g) - s) ** 2)


def monotone(rng: np.random.Generator) -> Function:
    k = rng.uniform(0.3, 5) * rng.choice([-1, 1])
    return lambda a: 1 + math.expm1(k * a) / 5


def kinked(rng: np.random.Generator) -> Function:
    s, p, left, right = rng.uniform([0.05, 1, 0.3, 0.3], [0.95, 1.5, 3, 3])
    return lambda a: 1 + (left if a < s else right) * abs(a - s) ** p


def drawn(family: Callable[[np.random.Generator], Function]) -> list[tuple[Function, float]]:
    """(curve, where it is lowest), all of them quasi-convex."""
    rng, found = np.random.default_rng(3), []
    while len(found) < DRAWS:
        f = family(rng)
        dense = np.linspace(0, 1, 401)
        values = [f(a) for a in dense]
        if not quasiconvex(dict(zip(dense, values)), 1e-9):
            continue
        at = int(np.argmin(values))
        low, high = dense[max(at - 1, 0)], dense[min(at + 1, 400)]
        inner = minimize_scalar(f, bounds=(low, high), method="bounded", options={"xatol": 1e-9}).x
        found.append((f, min([low, high, inner], key=f)))
    return found


@pytest.mark.parametrize("family", [exponential, sigmoid, warped, monotone])
def test_smooth_curves_within_ten_evaluations(family: Callable[[np.random.Generator], Function]) -> None:
    """The grids of 11 and 21 points take more and come less near."""
    grids = {11: 0, 21: 0}
    for f, lowest in drawn(family):
        found = search("quasiconvex", f, SETTINGS)
        assert abs(found.coefficient - lowest) <= 1e-3 and found.evaluations <= 10 and found.quasiconvex and not found.note
        for count in grids:
            a, value = best_of_grid({a: f(a) for a in np.linspace(0, 1, count)}, count, 0.0, 1.0)
            grids[count] += abs(a - lowest) <= 1e-3
            assert found.value <= value + 1e-12
    assert family is monotone or max(grids.values()) < DRAWS / 4


@pytest.mark.parametrize("name", ["quasiconvex", "golden", "brent", "grid"])
@pytest.mark.parametrize("family", [exponential, sigmoid, warped, monotone, kinked])
def test_never_worse_than_the_best_evaluated(family: Callable[[np.random.Generator], Function], name: str) -> None:
    near = 0
    for f, lowest in drawn(family):
        asked: list[float] = []

        def counted(a: float, f: Function = f, asked: list[float] = asked) -> float:
            asked.append(a)
            return f(a)

        found = search(name, counted, SETTINGS)
        assert len(set(asked)) == len(asked) == found.evaluations and set(asked) == set(found.points)
        assert found.value == f(found.coefficient) == min(map(f, asked)) and {0.0, 1.0} <= set(asked)
        near += abs(found.coefficient - lowest) <= 1e-3
    if name in ("golden", "brent"):
        assert near >= 0.99 * DRAWS
    if name == "quasiconvex":
        assert near >= (0.95 if family is kinked else 1) * DRAWS


@pytest.mark.parametrize("name", ["quasiconvex", "golden", "brent"])
def test_a_curve_with_two_valleys_falls_back_and_says_so(name: str) -> None:
    f = lambda a: math.cos(10 * a)  # noqa: E731
    found = search(name, f, SETTINGS)
    assert not found.quasiconvex and "grid of 11" in found.note
    assert found.value == min(f(a) for a in found.points) <= best_of_grid(found.points, 11, 0.0, 1.0)[1]
    assert {round(k / 10, 10) for k in range(11)} <= {round(a, 10) for a in found.points}


def test_quasiconvexity_by_its_definition() -> None:
    """S(b) <= max(S(a), S(c)) for every a < b < c."""
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        points = dict(enumerate(rng.integers(0, 4, size=int(rng.integers(1, 6))).tolist()))
        keys = sorted(points)
        slow = all(points[b] <= max(points[a], points[c]) for a in keys for b in keys for c in keys if a < b < c)
        assert quasiconvex(points, 0.0) == slow
        seen.add(slow)
    assert seen == {True, False}
    assert quasiconvex({0.0: 1.0, 0.1: 0.5, 0.2: 0.5004, 0.3: 0.4, 1.0: 2.0}, 1e-3)  # a ripple


def test_the_told_coefficient_and_a_shifted_line() -> None:
    assert search("fixed", lambda a: a, SETTINGS).coefficient == 0.3
    wide = Settings(low=-0.5, high=1.5, points=5, tolerance=1e-3, slack=1e-3, coefficient=0.0)
    assert abs(search("quasiconvex", lambda a: (a - 1.2) ** 2, wide).coefficient - 1.2) < 1e-3
    assert sorted(search("grid", lambda a: a, wide).points) == [-0.5, 0.0, 0.5, 1.0, 1.5]


def test_equal_points_take_the_least_coefficient() -> None:
    """Accuracies are steps."""
    assert search("accuracy", lambda a: -min(a, 0.6), SETTINGS).coefficient == pytest.approx(0.6)


def test_no_value_is_computed_twice() -> None:
    calls: list[float] = []
    curve = Curve(lambda a: calls.append(a) or a * a)  # type: ignore[func-returns-value]
    assert curve(0.5) == curve(0.5) == 0.25 and curve(0.2) < 0.25 and len(calls) == 2 and curve.best == 0.2


def test_scales() -> None:
    found = {name: scale(name, 2.0, 0.5, 10) for name in ("initial", "range", "log_classes", "none")}
    assert found == {"initial": 2.0, "range": 1.5, "log_classes": math.log(10), "none": 1.0}
    with pytest.raises(RunError, match="range would divide a loss by 0"):
        scale("range", 0.7, 0.7, 10)
