"""Where on the line between two sets of weights a curve is lowest. NumPy and SciPy alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import minimize_scalar

GOLDEN = (3 - math.sqrt(5)) / 2  # of an interval, from either end
ORDER = 5  # of the polynomial: seed 003 fits this one in the bracket
AT_ONCE = 3  # evaluations after which a bracket has to be half as wide, or it is cut
BRACKETED = 7  # evaluations before a polynomial is believed
SURE = 8  # evaluations before two of them are
MOST = 40  # evaluations of a bracketing search, whatever the curve


class Curve:
    """A function of the coefficient: every value is kept, and none is computed twice."""

    def __init__(self, function: Callable[[float], float]):
        self.function = function
        self.points: dict[float, float] = {}

    def __call__(self, a: float) -> float:
        a = float(a)
        if a not in self.points:
            self.points[a] = float(self.function(a))
        return self.points[a]

    @property
    def best(self) -> float:
        """Where the lowest value is; of equal ones the least coefficient, which moves the weights least."""
        return min(self.points, key=lambda a: (self.points[a], a))

    def bracket(self) -> tuple[float, float]:
        """The neighbours of the best: if the curve is quasi-convex its minimum lies between them."""
        grid = sorted(self.points)
        at = grid.index(self.best)
        return grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)]


@dataclass(frozen=True)
class Settings:
    """tolerance: of the coefficient; slack: rises below this share of the curve's range are ripple."""

    low: float
    high: float
    points: int
    tolerance: float
    slack: float
    coefficient: float


@dataclass(frozen=True)
class Found:
    """The best evaluated point, and everything that was evaluated to find it."""

    coefficient: float
    value: float
    points: Mapping[float, float] = field(repr=False)
    quasiconvex: bool
    note: str = ""

    @property
    def evaluations(self) -> int:
        return len(self.points)


def quasiconvex(points: Mapping[float, float], slack: float) -> bool:
    """Whether the values fall and then rise, but for rises and falls below slack times their range."""
    values = np.array([points[a] for a in sorted(points)])
    least = slack * (values.max() - values.min())
    at = int(values.argmin())
    left, right = values[: at + 1], values[at:]
    climbs = np.concatenate([left - np.minimum.accumulate(left), np.maximum.accumulate(right) - right])
    return bool(climbs.max() <= least)


def fixed(curve: Curve, settings: Settings) -> None:
    """The coefficient that is told."""
    curve(settings.coefficient)


def grid(curve: Curve, settings: Settings) -> None:
    """points equally spaced coefficients, the ends among them."""
    for k in range(settings.points):
        curve(settings.low + (settings.high - settings.low) * (k / (settings.points - 1)))


def golden(curve: Curve, settings: Settings) -> None:
    """Both ends, then golden section: needs nothing but quasi-convexity."""
    curve(settings.low), curve(settings.high)
    left, right = settings.low, settings.high
    while right - left > settings.tolerance:
        a, b = left + GOLDEN * (right - left), right - GOLDEN * (right - left)
        a, b = (_known(curve, x, settings.tolerance / 10) for x in (a, b))  # one of them has been evaluated
        left, right = (left, b) if curve(a) <= curve(b) else (a, right)


def _known(curve: Curve, a: float, near: float) -> float:
    """The evaluated point that is meant by a: rounding moves it a little."""
    nearest = min(curve.points, key=lambda x: abs(x - a))
    return nearest if abs(nearest - a) < near else a


def brent(curve: Curve, settings: Settings) -> None:
    """Both ends, then SciPy's bounded search (Brent): parabolas, golden section where they fail."""
    curve(settings.low), curve(settings.high)
    minimize_scalar(curve, bounds=(settings.low, settings.high), method="bounded", options={"xatol": settings.tolerance})


def polynomial(curve: Curve, settings: Settings) -> None:
    """Seed 003: the smallest bracket by quasi-convexity, a polynomial of order five in it, the root of its derivative.

    Golden section makes the bracket; each root is evaluated and joins the next fit, until two fits agree. A bracket that does
    not halve in some rounds is cut, so that a kink ends as golden section would. Left once the points are not quasi-convex.
    """
    span, tolerance = settings.high - settings.low, settings.tolerance
    for a in (settings.low, settings.high, settings.low + GOLDEN * span, settings.high - GOLDEN * span):
        curve(a)
    widths: list[float] = []
    before = math.inf
    while len(curve.points) < MOST and quasiconvex(curve.points, settings.slack):
        left, right = curve.bracket()
        widths.append(right - left)
        a = root(curve.points, left, right)
        agreed, before = abs(a - before) <= tolerance / 4, a
        if right - left <= tolerance or (len(curve.points) > SURE and agreed):
            return
        stuck = len(widths) > AT_ONCE and widths[-1] > widths[-1 - AT_ONCE] / 2
        if stuck or a in curve.points or len(curve.points) < BRACKETED:
            best = curve.best
            a = best + GOLDEN * (right - best) if right - best > best - left else best - GOLDEN * (best - left)
            widths = widths[-1:]
        curve(a)


def root(points: Mapping[float, float], left: float, right: float) -> float:
    """Where the polynomial through the points nearest to the best is lowest from left to right: a root of its derivative, or the best
    itself where that is an end of the line."""
    best = min(points, key=lambda a: (points[a], a))
    near = np.array(sorted(sorted(points, key=lambda a: abs(a - best))[: ORDER + 1]))
    middle, half = (left + right) / 2, (right - left) / 2
    powers = np.polynomial.polynomial.polyvander((near - middle) / half, len(near) - 1)
    fit = np.polynomial.Polynomial(np.linalg.lstsq(powers, np.array([points[a] for a in near]), rcond=None)[0])
    inside = [middle + half * float(z.real) for z in np.asarray(fit.deriv().roots(), complex) if abs(z.imag) < 1e-9 and -1 < z.real < 1]
    ends = [best] if best in (left, right) else []
    return min([*ends, *inside], key=lambda a: fit((a - middle) / half), default=best)


SEARCHES: dict[str, Callable[[Curve, Settings], None]] = {
    "fixed": fixed,
    "grid": grid,
    "quasiconvex": polynomial,
    "golden": golden,
    "brent": brent,
    "accuracy": grid,  # of minus the accuracy
}


def search(name: str, function: Callable[[float], float], settings: Settings) -> Found:
    """The best point that the search of this name evaluates; a bracketing one falls back to the grid where no bracket is sure."""
    curve = Curve(function)
    SEARCHES[name](curve, settings)
    sure, note = quasiconvex(curve.points, settings.slack), ""
    if not sure and name in ("quasiconvex", "golden", "brent"):
        note = f"not quasi-convex on {len(curve.points)} points: went on to a grid of {settings.points}"
        grid(curve, settings)
    return Found(curve.best, curve.points[curve.best], curve.points, sure, note)


def best_of_grid(points: Mapping[float, float], count: int, low: float, high: float) -> tuple[float, float]:
    """(coefficient, value) of a grid of count among points that hold it."""
    wanted = [low + (high - low) * (k / (count - 1)) for k in range(count)]
    found: Sequence[float] = [min(points, key=lambda a: abs(a - w)) for w in wanted]
    best = min(found, key=lambda a: (points[a], a))
    return best, points[best]
