"""Learning-rate schedules: pure functions of the step, as a factor of the optimizer's own rate."""

from __future__ import annotations

import math
from collections.abc import Callable

from cl_bench.core.kinds import Count, Fraction, Positive

Schedule = Callable[[int, int, int], float]  # (step, steps of this task, number of the task) -> factor


class Constant:
    """The optimizer's own rate throughout."""

    def __call__(self, step: int, steps: int, number: int) -> float:
        return 1.0


class WarmupCosine:
    """Linear warm-up over `warmup` steps, then a cosine to `final` times the rate (1608.03983)."""

    def __init__(self, *, warmup: Count, final: Fraction):
        self.warmup, self.final = warmup, final

    def __call__(self, step: int, steps: int, number: int) -> float:
        if step < self.warmup:
            return (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, steps - self.warmup)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))


class Drop:
    """The optimizer's own rate; from the share `at` of a task's steps on `factor` times it."""

    def __init__(self, *, at: Fraction, factor: Positive):
        self.at, self.factor = at, factor

    def __call__(self, step: int, steps: int, number: int) -> float:
        return self.factor if step >= self.at * steps else 1.0


class FirstThen:
    """`factor` times one schedule in the first task, another in all that follow (Ramasesh, Lewkowycz, Dyer, ICLR 2022)."""

    def __init__(self, *, first: Schedule, factor: Positive, later: Schedule):
        self.first, self.factor, self.later = first, factor, later

    def __call__(self, step: int, steps: int, number: int) -> float:
        return self.later(step, steps, number) if number else self.factor * self.first(step, steps, number)
