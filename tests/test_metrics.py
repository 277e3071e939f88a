"""Accuracy matrix -> figures: matrices by hand, and what holds for every matrix."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cl_bench import metrics

NAN = math.nan
HAND = np.array([[0.9, 0.2, 0.1], [0.6, 0.8, 0.3], [0.7, 0.5, 0.95]])
BEFORE = np.array([0.15, 0.1, 0.2])
FIGURES = {
    "average_accuracy": (0.7 + 0.5 + 0.95) / 3,
    "average_forgetting": ((0.9 - 0.7) + (0.8 - 0.5)) / 2,
    "forgetting_last_minus_learned": ((0.9 - 0.7) + (0.8 - 0.5)) / 2,
    "forgetting_largest": 0.8 - 0.5,
    "forgetting_over_T": ((0.9 - 0.7) + (0.8 - 0.5)) / 3,
    "forgetting_best_ever": ((0.9 - 0.7) + (0.8 - 0.5)) / 2,
    "forgetting_best_ever_over_T": ((0.9 - 0.7) + (0.8 - 0.5)) / 3,
    "backward_transfer": ((0.7 - 0.9) + (0.5 - 0.8)) / 2,
    "forward_transfer": ((0.2 - 0.1) + (0.3 - 0.2)) / 2,
    "learning_accuracy": (0.9 + 0.8 + 0.95) / 3,
    "anytime_accuracy": (0.9 + (0.6 + 0.8) / 2 + (0.7 + 0.5 + 0.95) / 3) / 3,
}
SQUARE = st.integers(1, 6).flatmap(lambda n: arrays(np.float64, (n, n), elements=st.floats(0, 1)))


@pytest.mark.parametrize("name", FIGURES)
def test_hand_matrix(name: str) -> None:
    found = metrics.summary(HAND, BEFORE)
    assert set(found) == set(FIGURES)
    assert found[name] == pytest.approx(FIGURES[name], abs=1e-12)


def test_forgetting_takes_the_best_of_earlier_rows_not_the_diagonal() -> None:
    matrix = np.array([[0.5, 0.0, 0.0], [0.9, 0.6, 0.0], [0.4, 0.7, 0.8]])
    assert metrics.average_forgetting(matrix) == pytest.approx((0.5 - 0.1) / 2)  # a gain counts as negative
    assert metrics.forgetting_last_minus_learned(matrix) == pytest.approx((0.1 - 0.1) / 2)
    assert metrics.forgetting_best_ever(np.array([[0.5, 0.9, 0.1], [0.9, 0.6, 0.9], [0.4, 0.7, 0.8]])) == pytest.approx((0.5 + 0.2) / 2)
    per_cell = [[0.0, NAN, NAN], [0.0, 0.0, NAN], [0.5, 0.0, 0.0]]
    np.testing.assert_allclose(metrics.forgetting(matrix), per_cell, atol=1e-12)


def test_lower_triangle_is_enough_for_all_but_forward_transfer() -> None:
    lower = np.where(np.tril(np.ones((3, 3))) > 0, HAND, NAN)
    found = metrics.summary(lower, BEFORE)
    for ahead in ("forward_transfer", "forgetting_best_ever", "forgetting_best_ever_over_T"):
        assert math.isnan(found.pop(ahead))
    for name, value in found.items():
        assert value == pytest.approx(FIGURES[name]), name
    assert math.isnan(metrics.forward_transfer(HAND, None))


def test_one_task_has_no_past() -> None:
    found = metrics.summary(np.array([[0.8]]), np.array([0.1]))
    assert found["average_accuracy"] == found["learning_accuracy"] == found["anytime_accuracy"] == 0.8
    past = (
        "average_forgetting",
        "forgetting_last_minus_learned",
        "forgetting_largest",
        "forgetting_over_T",
        "backward_transfer",
        "forward_transfer",
    )
    assert all(math.isnan(found[name]) for name in past)
    assert metrics.forgetting(np.array([[0.8]])).tolist() == [[0.0]]


def test_joint_has_a_last_row_only() -> None:
    matrix = np.full((3, 3), NAN)
    matrix[2] = (0.5, 0.6, 0.7)
    found = metrics.summary(matrix)
    assert found.pop("average_accuracy") == pytest.approx(0.6)
    assert all(math.isnan(value) for value in found.values())
    lost = metrics.forgetting(matrix)
    assert lost[2, 2] == 0 and np.isnan(lost[2, :2]).all() and np.isnan(lost[:2]).all()


@given(SQUARE)
def test_forgetting_cells(matrix: np.ndarray) -> None:
    lost, size = metrics.forgetting(matrix), len(matrix)
    for j in range(size):
        assert np.isnan(lost[:j, j]).all()
        for i in range(j, size):
            assert lost[i, j] == max(matrix[k, j] for k in range(j, i + 1)) - matrix[i, j] >= 0
        assert lost[j, j] == 0


@given(SQUARE)
def test_conventions_agree_where_they_must(matrix: np.ndarray) -> None:
    size, found = len(matrix), metrics.summary(matrix, matrix[0])
    if size == 1:
        assert math.isnan(found["average_forgetting"])
        return
    assert found["forgetting_over_T"] == pytest.approx(found["average_forgetting"] * (size - 1) / size)
    assert found["forgetting_last_minus_learned"] == -found["backward_transfer"]
    assert found["forgetting_largest"] == pytest.approx(max(matrix[j, j] - matrix[-1, j] for j in range(size - 1)))
    assert found["average_forgetting"] >= found["forgetting_last_minus_learned"] - 1e-12  # the best is no less than the diagonal
    assert -1 <= found["forward_transfer"] <= 1
    assert matrix[-1].min() - 1e-12 <= found["average_accuracy"] <= matrix[-1].max() + 1e-12
    assert -1 <= found["average_forgetting"] <= 1
    by_hand = sum(max(matrix[k, j] for k in range(j, size - 1)) - matrix[-1, j] for j in range(size - 1)) / (size - 1)
    assert found["average_forgetting"] == pytest.approx(by_hand)


@given(SQUARE, st.data())
def test_a_missing_cell_never_becomes_a_number(matrix: np.ndarray, data: st.DataObject) -> None:
    """One NaN: a figure is NaN or what it was (it does not read that cell)."""
    size = len(matrix)
    i, j = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size - 1))
    holed, before = matrix.copy(), np.zeros(size)
    holed[i, j] = NAN
    whole, now = metrics.summary(matrix, before), metrics.summary(holed, before)
    assert all(math.isnan(now[name]) or now[name] == whole[name] for name in whole)
    if i == size - 1:
        assert math.isnan(now["average_accuracy"]) and math.isnan(now["anytime_accuracy"])
        if j < size - 1:
            assert math.isnan(now["average_forgetting"]) and math.isnan(now["backward_transfer"])
    if i == j:
        assert math.isnan(now["learning_accuracy"])
    if j == i + 1:
        assert math.isnan(now["forward_transfer"])
    if i >= j:
        assert np.isnan(metrics.forgetting(holed)[:, j]).all()
    else:
        np.testing.assert_array_equal(metrics.forgetting(holed), metrics.forgetting(matrix))


def test_task_free_counts_a_test_from_its_own_row() -> None:
    """Four looks at three groups of classes, which had come by the looks 0, 1 and 3."""
    matrix = np.array([[0.9, NAN, NAN], [0.7, 0.6, NAN], [0.8, 0.4, NAN], [0.5, 0.5, 0.9]])
    found = metrics.summary(matrix, BEFORE, [0, 1, 3])
    assert found.pop("average_accuracy") == pytest.approx((0.5 + 0.5 + 0.9) / 3)
    assert found.pop("average_forgetting") == pytest.approx(((0.9 - 0.5) + (0.6 - 0.5)) / 2)
    assert found.pop("anytime_accuracy") == pytest.approx((0.9 + 0.65 + 0.6 + 1.9 / 3) / 4)
    assert set(found) | {"average_accuracy", "average_forgetting", "anytime_accuracy"} == set(FIGURES)
    assert all(math.isnan(value) for value in found.values())
    lost = metrics.forgetting(matrix, [0, 1, 3])
    np.testing.assert_allclose(lost, [[0, NAN, NAN], [0.2, 0, NAN], [0.1, 0.2, NAN], [0.4, 0.1, 0]], atol=1e-12)
    late = metrics.summary(np.vstack([[NAN] * 3, matrix]), None, [1, 2, 4])  # a look before anything counts
    assert late["anytime_accuracy"] == pytest.approx((0.9 + 0.65 + 0.6 + 1.9 / 3) / 4)


def test_one_test_for_all() -> None:
    found = metrics.summary(np.array([[0.4], [0.7], [0.6]]), None, [0])
    assert found["average_accuracy"] == 0.6 and found["anytime_accuracy"] == pytest.approx(1.7 / 3)
    assert found["average_forgetting"] == pytest.approx(0.1) and math.isnan(found["learning_accuracy"])


@given(SQUARE)
def test_a_row_for_each_task_is_the_diagonal_again(matrix: np.ndarray) -> None:
    rows = list(range(len(matrix)))
    np.testing.assert_array_equal(metrics.forgetting(matrix, rows), metrics.forgetting(matrix))
    np.testing.assert_equal(metrics.summary(matrix, matrix[0], rows), metrics.summary(matrix, matrix[0]))
