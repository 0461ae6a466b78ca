from __future__ import annotations

import math

import numpy as np
import pytest

from oracles import layers_twin
from spiral_core import kernels
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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_compiled_loss_is_the_python_loop_and_the_gradient_is_softmax_minus_the_label(
    dtype: type[np.floating],
) -> None:
    draws = np.random.default_rng(1)
    logits, labels = (draws.standard_normal((9, 5)) * 4).astype(dtype), draws.integers(0, 5, 9)
    logits[3, 2] = np.nan
    p = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(9), labels] -= 1
    correct = int((logits.argmax(axis=1) == labels).sum())
    for cross_entropy in (kernels.cross_entropy, kernels.python_function(kernels.cross_entropy)):
        grad = np.empty_like(logits)
        loss, right = cross_entropy(logits, labels, grad)
        assert math.isnan(loss)
        assert right == correct
        np.testing.assert_allclose(grad, p / 9, rtol=1e-6 if dtype is np.float32 else 1e-13)


def test_arrays_that_are_no_plain_memory_give_the_same_loss() -> None:
    draws = np.random.default_rng(1)
    logits, labels = draws.standard_normal((6, 4)).astype(np.float32), draws.integers(0, 4, 6)
    grad, turned, wide = np.empty((6, 4), np.float32), np.empty((4, 6), np.float32).T, np.repeat(labels, 2)
    assert softmax_cross_entropy(logits, labels, grad) == softmax_cross_entropy(
        np.asfortranarray(logits), wide[::2], turned
    )
    np.testing.assert_array_equal(turned, grad)


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
