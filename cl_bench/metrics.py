"""Accuracy matrix -> average, forgetting, transfer. Pure functions of NumPy arrays, no torch.

matrix [N, T]: row i is the i-th look, column j is test j, NaN where not evaluated. Where each experience is one
task, looked at once, N = T and row i is after task i. Elsewhere (task-free, or one test for all) learned [T] says from
which row on a test counts, and what asks when a task was learned is undefined.
Undefined figures are NaN: the tables leave them empty.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def _mean(values: Matrix) -> float:
    return float(values.mean()) if values.size and not np.isnan(values).any() else math.nan


def average_accuracy(matrix: Matrix) -> float:
    """Mean of the last row over all tasks."""
    return _mean(matrix[-1])


def own_rows(matrix: Matrix, learned: Sequence[int] | None) -> Sequence[int]:
    """From which row on each test counts; None: the diagonal."""
    return range(matrix.shape[1]) if learned is None else learned


def forgetting(matrix: Matrix, learned: Sequence[int] | None = None) -> Matrix:
    """Best so far minus now, per cell; a task counts from its own row on (1801.10112, with now in the best)."""
    result = np.full_like(matrix, math.nan)
    for j, first in enumerate(own_rows(matrix, learned)):
        since = matrix[first:, j]
        if not np.isnan(since).any():
            result[first:, j] = np.maximum.accumulate(since) - since
    return result


def average_forgetting(matrix: Matrix, learned: Sequence[int] | None = None) -> float:
    """Max over earlier rows minus final, mean over what was learned before the last row: the first T-1 tasks
    (1801.10112); negative is gain."""
    before = [(j, matrix[first:-1, j]) for j, first in enumerate(own_rows(matrix, learned)) if first < len(matrix) - 1]
    return _mean(np.array([row.max() - matrix[-1, j] if not np.isnan(row).any() else math.nan for j, row in before]))


def forgetting_over_T(matrix: Matrix) -> float:  # noqa: N802 - the published name of this variant
    """The same sum divided by T, as some published code does."""
    return average_forgetting(matrix) * (len(matrix) - 1) / len(matrix)


def forgetting_best_ever(matrix: Matrix) -> float:
    """Best over all rows, also those before the task was learned, less the final one, mean over the first T-1 tasks (2110.06976);
    undefined unless tasks ahead are looked at."""
    return _mean(matrix[:, :-1].max(0, initial=-math.inf) - matrix[-1, :-1])


def forgetting_best_ever_over_T(matrix: Matrix) -> float:  # noqa: N802 - as above
    """The same over all T tasks, the last included: 2110.06976's first code."""
    return _mean(matrix.max(0) - matrix[-1])


def forgetting_largest(matrix: Matrix) -> float:
    """Just learned minus final of the task that lost most, of the first T-1."""
    lost = np.diag(matrix)[:-1] - matrix[-1, :-1]
    return float(lost.max()) if lost.size else math.nan


def backward_transfer(matrix: Matrix) -> float:
    """Final minus just learned, mean over the first T-1 tasks (1706.08840)."""
    return _mean(matrix[-1, :-1] - np.diag(matrix)[:-1])


def forgetting_last_minus_learned(matrix: Matrix) -> float:
    """Just learned minus final: backward transfer with the sign of a loss."""
    return -backward_transfer(matrix)


def forward_transfer(matrix: Matrix, before: Matrix | None) -> float:
    """Accuracy one step before a task is learned minus that of the initial weights (1706.08840)."""
    if before is None:
        return math.nan
    return _mean(np.array([matrix[j - 1, j] - before[j] for j in range(1, len(matrix))]))


def learning_accuracy(matrix: Matrix) -> float:
    """Mean of the diagonal: each task when it was just learned."""
    return _mean(np.diag(matrix))


def anytime_accuracy(matrix: Matrix, learned: Sequence[int] | None = None) -> float:
    """Mean over time of the average accuracy over the tasks seen so far; looks before the first do not count."""
    first = np.array(own_rows(matrix, learned))
    return _mean(np.array([_mean(matrix[i, first <= i]) for i in range(min(first), len(matrix))]))


def summary(matrix: Matrix, before: Matrix | None = None, learned: Sequence[int] | None = None) -> dict[str, float]:
    """All conventions side by side; before [T] is the accuracy of the initial weights, if measured."""
    if learned is not None and list(learned) != list(range(len(matrix))):
        found = {
            "average_accuracy": average_accuracy(matrix),
            "average_forgetting": average_forgetting(matrix, learned),
            "anytime_accuracy": anytime_accuracy(matrix, learned),
        }
        return {name: found.get(name, math.nan) for name in summary(np.zeros((1, 1)))}
    return {
        "average_accuracy": average_accuracy(matrix),
        "average_forgetting": average_forgetting(matrix),
        "forgetting_last_minus_learned": forgetting_last_minus_learned(matrix),
        "forgetting_largest": forgetting_largest(matrix),
        "forgetting_over_T": forgetting_over_T(matrix),
        "forgetting_best_ever": forgetting_best_ever(matrix),
        "forgetting_best_ever_over_T": forgetting_best_ever_over_T(matrix),
        "backward_transfer": backward_transfer(matrix),
        "forward_transfer": forward_transfer(matrix, before),
        "learning_accuracy": learning_accuracy(matrix),
        "anytime_accuracy": anytime_accuracy(matrix),
    }


def loss_summary(matrix: Matrix, before: Matrix | None = None, learned: Sequence[int] | None = None) -> dict[str, float]:
    """The same of losses, where less is better: `average`, `learning` and `anytime` are losses, `average_forgetting` and its kin
    the rise of the loss since it was lowest (or just learned), the transfers nats saved, so that more of those is better."""
    found = summary(-matrix, None if before is None else -before, learned)
    losses = {"average_accuracy": "average", "learning_accuracy": "learning", "anytime_accuracy": "anytime"}
    return {losses.get(name, name): -value if name in losses else value for name, value in found.items()}
