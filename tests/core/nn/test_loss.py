from __future__ import annotations

import numpy as np
import pytest

from oracles import layers_twin
from spiral_core.errors import ArgumentError, DtypeError, ShapeError
from spiral_core.nn import mse_loss, softmax_cross_entropy


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_loss_is_its_slow_twin_and_counts_the_right_rows(dtype: type[np.floating]) -> None:
    draws = np.random.default_rng(0)
    logits = (draws.standard_normal((50, 7)) * 4).astype(dtype)
    labels = draws.integers(0, 7, 50)
    grad = np.empty_like(logits)
    loss, correct = softmax_cross_entropy(logits, labels, grad)
    assert loss == pytest.approx(layers_twin.cross_entropy(logits.astype(np.float64), labels), rel=1e-12)
    assert correct == sum(int(np.argmax(row)) == label for row, label in zip(logits, labels, strict=True))
    np.testing.assert_allclose(grad.sum(axis=1), 0, atol=1e-7)


def test_large_logits_do_not_overflow() -> None:
    grad = np.empty((2, 2), np.float32)
    loss, correct = softmax_cross_entropy(np.array([[1e30, 0], [0, -1e30]], np.float32), np.array([0, 0]), grad)
    assert (loss, correct) == (0.0, 2)
    np.testing.assert_array_equal(grad, np.zeros((2, 2)))


def test_a_nan_logit_shows_in_the_loss_and_in_its_own_row_of_the_gradient() -> None:
    grad = np.empty((2, 2), np.float32)
    loss, _ = softmax_cross_entropy(np.array([[np.nan, 0], [1, 2]], np.float32), np.array([0, 1]), grad)
    assert np.isnan(loss)
    assert np.isnan(grad[0]).all()
    assert np.isfinite(grad[1]).all()


@pytest.mark.parametrize(
    ("labels", "grad", "error", "named"),
    [
        (np.zeros(3, np.int64), np.zeros((2, 4), np.float32), ShapeError, "labels"),
        (np.zeros(2, np.int64), np.zeros((2, 3), np.float32), ShapeError, "grad"),
        (np.zeros(2, np.int32), np.zeros((2, 4), np.float32), DtypeError, "labels"),
        (np.zeros(2, np.int64), np.zeros((2, 4)), DtypeError, "grad"),
        (np.array([0, 4]), np.zeros((2, 4), np.float32), ArgumentError, "labels"),
        (np.array([-1, 0]), np.zeros((2, 4), np.float32), ArgumentError, "labels"),
    ],
)
def test_what_does_not_fit_is_refused_by_name_and_nothing_is_written(
    labels: np.ndarray, grad: np.ndarray, error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named):
        softmax_cross_entropy(np.ones((2, 4), np.float32), labels, grad)
    assert not grad.any()


def test_an_empty_batch_is_refused() -> None:
    empty = np.zeros((0, 4), np.float32)
    with pytest.raises(ArgumentError, match="at least one"):
        softmax_cross_entropy(empty, np.zeros(0, np.int64), empty.copy())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_squared_error_is_a_sum_over_elements_in_float64(dtype: type[np.floating]) -> None:
    pred, target = (np.random.default_rng(seed).standard_normal((3, 4, 2)).astype(dtype) for seed in (0, 1))
    grad = np.empty_like(pred)
    total = sum((float(p) - float(t)) ** 2 for p, t in zip(pred.flat, target.flat, strict=True))
    assert mse_loss(pred, target, grad) == pytest.approx(total / 24, rel=1e-12)
    np.testing.assert_allclose(grad, (pred - target) / 12, rtol=1e-6)


def test_a_nan_shows_in_the_squared_error_and_in_its_own_gradient() -> None:
    grad = np.empty(2, np.float32)
    assert np.isnan(mse_loss(np.array([np.nan, 1], np.float32), np.zeros(2, np.float32), grad))
    np.testing.assert_array_equal(grad, [np.nan, 1])


@pytest.mark.parametrize(
    ("target", "grad", "error"),
    [
        (np.zeros((2, 1), np.float32), np.zeros(2, np.float32), ShapeError),
        (np.zeros(2, np.float32), np.zeros(3, np.float32), ShapeError),
        (np.zeros(2), np.zeros(2, np.float32), DtypeError),
        (np.zeros(2, np.float32), np.zeros(2), DtypeError),
    ],
)
def test_what_does_not_fit_the_squared_error_is_refused_and_nothing_is_written(
    target: np.ndarray, grad: np.ndarray, error: type[Exception]
) -> None:
    with pytest.raises(error, match="pred, target and grad"):
        mse_loss(np.ones(2, np.float32), target, grad)
    assert not grad.any()
    with pytest.raises(ArgumentError, match="pred"):
        mse_loss(*(np.zeros((0, 2), np.float32) for _ in range(3)))
