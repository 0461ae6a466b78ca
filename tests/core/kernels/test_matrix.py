from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spiral_core import kernels, nn
from spiral_core.kernels.matrix import PANEL, PANEL_ROWS, PART_ROWS, ROWS


def packed(b: np.ndarray) -> np.ndarray:
    target = np.full(b.size, np.nan, b.dtype)
    kernels.pack(b, 0, b.shape[1], target)
    return target


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 2 * ROWS + 1), st.integers(1, 40), st.integers(1, 3 * PANEL + 1), st.booleans())
@example(2 * ROWS, 16, 2 * PANEL, False)
@example(ROWS + 8, 7, PANEL, True)
def test_a_packed_product_is_the_product(rows: int, inner: int, columns: int, turned: bool) -> None:
    draws = np.random.default_rng(rows)
    a, bias = draws.standard_normal((rows, inner)), draws.standard_normal(columns)
    b = draws.standard_normal((columns, inner)).T if turned else draws.standard_normal((inner, columns))
    out = np.full((rows, columns), np.nan)
    kernels.run(kernels.multiply, -(-rows // ROWS), a, packed(b), bias, out)
    np.testing.assert_allclose(out, a @ b + bias, rtol=0, atol=1e-12)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.integers(1, 2 * PART_ROWS + 3), st.integers(1, 20), st.integers(1, 2 * PANEL + 1))
@example(PART_ROWS + PANEL_ROWS + 1, 8, PANEL)
def test_the_partial_sums_of_a_product_are_the_product(rows: int, inner: int, columns: int) -> None:
    draws = np.random.default_rng(rows)
    a, b = draws.standard_normal((rows, inner)), draws.standard_normal((rows, columns))
    chunks = -(-rows // PART_ROWS)
    parts, scratch = np.full((chunks, inner, columns), np.nan), np.empty((8, PANEL_ROWS * PANEL))
    kernels.run(kernels.multiply_parts, chunks, a, b, scratch, parts)
    np.testing.assert_allclose(parts.sum(axis=0), a.T @ b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("units", [9, 17])
def test_a_recurrent_layer_of_several_panels_is_that_of_the_formulas(units: int) -> None:
    layer = nn.Lstm("l", 5, units, dtype=np.float64)
    x = np.random.default_rng(0).standard_normal((6, 11, 5))
    h = c = np.zeros((11, units))
    expected = []
    for row in x:
        z = row @ layer.weight_ih.value + layer.bias_ih.value + h @ layer.weight_hh.value + layer.bias_hh.value
        i, f, g, o = np.split(z, 4, axis=1)
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
        expected.append(h)
    np.testing.assert_allclose(layer.forward(x), expected, rtol=0, atol=1e-12)
    grad = np.random.default_rng(1).standard_normal((6, 11, units))
    grad_x = layer.backward(x, grad)
    step = 1e-6
    for place in ((0, 0, 0), (3, 10, 4), (5, 5, 2)):
        moved = x.copy()
        moved[place] += step
        up = nn.Lstm("l", 5, units, dtype=np.float64)
        up.load_state_dict(layer.state_dict())
        rise = (up.forward(moved) * grad).sum()
        moved[place] -= 2 * step
        up.reset_state()
        fall = (up.forward(moved) * grad).sum()
        assert grad_x[place] == pytest.approx((rise - fall) / (2 * step), rel=1e-6, abs=1e-8)
