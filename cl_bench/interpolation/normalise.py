"""Losses of several tasks on one scale, so that their sum means something. No torch."""

from __future__ import annotations

import math

from cl_bench.core.errors import RunError


def scale(name: str, start: float, end: float, classes: int) -> float:
    """What a task's loss is divided by: its value before (`initial`), how far fine-tuning moves it (`range`), chance, or nothing."""
    found = {"initial": start, "range": abs(start - end), "log_classes": math.log(classes), "none": 1.0}[name]
    if found <= 0:
        raise RunError(
            f"strategy.normaliser={name} would divide a loss by {found:g} (before {start:g}, after {end:g}, {classes} classes); "
            "use initial, log_classes or none"
        )
    return found
