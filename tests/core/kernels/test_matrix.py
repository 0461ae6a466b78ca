from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spiral_core import kernels, nn
from spiral_core.kernels.matrix import PANEL, add_block, add_column_sums, multiply_rows
from spiral_core.kernels.vector import LANES


def packed(b: np.ndarray, high: int, wide: int = PANEL, top: int = 0, first: int = 0) -> np.ndarray:
    """Return rows ``top`` to ``top + high`` and columns from ``first`` on, as panels."""
    target = np.full(high * (b.shape[1] - first), np.nan, b.dtype)
    kernels.pack(b, top, high, first, b.shape[1], wide, target)
    return target


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 20), st.integers(1, 40), st.integers(1, 3 * PANEL + 1), st.booleans())
@example(16, 16, 2 * PANEL, False)
@example(8, 7, PANEL, True)
@example(9, 33, 17, True)
def test_a_packed_product_is_the_product(rows: int, inner: int, columns: int, turned: bool) -> None:
    draws = np.random.default_rng(rows)
    a, begin = draws.standard_normal((rows, inner)), draws.standard_normal(columns)
    b = draws.standard_normal((inner, columns))
    panels = packed(b, inner)
    if turned:
        panels = np.full(b.size, np.nan)
        kernels.pack_transposed(np.ascontiguousarray(b.T), panels)
    out = np.full((rows, columns), np.nan)
    multiply_rows(a.reshape(-1), 0, rows, inner, panels, begin, 0, 0, out.reshape(-1), 0, columns)
    np.testing.assert_allclose(out, a @ b + begin, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_part_of_a_matrix_is_packed_panel_by_panel(dtype: type[np.floating]) -> None:
    b = np.arange(12 * 90, dtype=dtype).reshape(12, 90)
    expected = [b[3:10, d : d + PANEL].ravel() for d in range(PANEL, 90, PANEL)]
    np.testing.assert_array_equal(packed(b, 7, top=3, first=PANEL), np.concatenate(expected))


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.integers(1, 40), st.integers(1, 2 * PANEL + 1), st.integers(1, PANEL))
@example(LANES + 8, 8, PANEL)
@example(2 * LANES + 5, 3, 20)
def test_a_block_of_a_transposed_product_and_the_sums_of_its_columns_are_added(rows: int, high: int, wide: int) -> None:
    draws = np.random.default_rng(rows)
    a, b = draws.standard_normal((high, rows)), draws.standard_normal((high, wide))
    before, sums = draws.standard_normal((rows, wide + 3)), draws.standard_normal(wide + 3)
    out, totals = before.copy(), sums.copy()
    flat = np.concatenate([[np.nan] * 2, b.ravel()])
    add_block(packed(a, high, LANES), rows, high, flat, 2, wide, out, 1)
    add_column_sums(flat, 2, high, wide, totals, 1)
    before[:, 1 : 1 + wide] += a.T @ b
    sums[1 : 1 + wide] += b.sum(axis=0)
    np.testing.assert_allclose(out, before, rtol=0, atol=1e-12)
    np.testing.assert_allclose(totals, sums, rtol=0, atol=1e-12)


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
