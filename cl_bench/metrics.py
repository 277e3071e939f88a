"""Accuracy matrix -> average, forgetting, transfer. Pure functions of NumPy arrays, no torch.

matrix [T, T]: row i is after experience i, column j is task j, NaN where not evaluated.
Undefined figures are NaN: the tables leave them empty.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def _mean(values: Matrix) -> float:
    return float(values.mean()) if values.size and not np.isnan(values).any() else math.nan


def average_accuracy(matrix: Matrix) -> float:
    """Mean of the last row over all tasks."""
    return _mean(matrix[-1])


def forgetting(matrix: Matrix) -> Matrix:
    """Best so far minus now, per cell; a task counts from its own row on (1801.10112, with now in the best)."""
    result = np.full_like(matrix, math.nan)
    for j in range(matrix.shape[1]):
        learned = matrix[j:, j]
        if not np.isnan(learned).any():
            result[j:, j] = np.maximum.accumulate(learned) - learned
    return result


def _best_before(matrix: Matrix) -> Matrix:
    """Per earlier task: its best accuracy after experiences j .. T-2."""
    rows = [matrix[j:-1, j] for j in range(len(matrix) - 1)]
    return np.array([row.max() if not np.isnan(row).any() else math.nan for row in rows])


def average_forgetting(matrix: Matrix) -> float:
    """Max over earlier rows minus final, mean over the first T-1 tasks (1801.10112); negative is gain."""
    return _mean(_best_before(matrix) - matrix[-1, :-1])


def forgetting_over_T(matrix: Matrix) -> float:  # noqa: N802 - the published name of this variant
    """The same sum divided by T, as some published code does."""
    return average_forgetting(matrix) * (len(matrix) - 1) / len(matrix)


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


def anytime_accuracy(matrix: Matrix) -> float:
    """Mean over time of the average accuracy over the tasks seen so far."""
    return _mean(np.array([_mean(matrix[i, : i + 1]) for i in range(len(matrix))]))


def summary(matrix: Matrix, before: Matrix | None = None) -> dict[str, float]:
    """All conventions side by side; before [T] is the accuracy of the initial weights, if measured."""
    return {
        "average_accuracy": average_accuracy(matrix),
        "average_forgetting": average_forgetting(matrix),
        "forgetting_last_minus_learned": forgetting_last_minus_learned(matrix),
        "forgetting_over_T": forgetting_over_T(matrix),
        "backward_transfer": backward_transfer(matrix),
        "forward_transfer": forward_transfer(matrix, before),
        "learning_accuracy": learning_accuracy(matrix),
        "anytime_accuracy": anytime_accuracy(matrix),
    }
