"""Products with a matrix of at most sixteen columns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spiral_core import kernels, nn
from spiral_core.kernels.thin import INPUTS, ROWS

CLOSE = {np.float32: 3e-5, np.float64: 1e-12}
"""Absolute, for sums of a few hundred products of standard normal numbers."""


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.integers(1, 2 * ROWS + 3), st.integers(1, 2 * INPUTS + 5), st.integers(1, 16),
    st.sampled_from([np.float32, np.float64]),
)  # fmt: skip
@example(ROWS, INPUTS, 16, np.float32)
@example(ROWS + 1, INPUTS + 1, 1, np.float32)
@example(2 * ROWS, 2 * INPUTS, 10, np.float64)
def test_a_thin_layer_is_the_three_products(rows: int, inputs: int, outputs: int, dtype: type[np.floating]) -> None:
    draws = np.random.default_rng(inputs)
    layer, workspace = nn.Linear("fc", inputs, outputs, dtype=dtype), nn.Workspace()
    layer.bias.value[:] = draws.standard_normal(outputs)
    x, grad = (draws.standard_normal((rows, columns)).astype(dtype) for columns in (inputs, outputs))
    layer.weight.grad[:] = before = draws.standard_normal((inputs, outputs)).astype(dtype)
    wide_x, wide_w, wide_g = (array.astype(np.float64) for array in (x, layer.weight.value, grad))
    out, grad_x = layer.forward(x, workspace), layer.backward(x, grad, workspace)
    np.testing.assert_allclose(out, wide_x @ wide_w + layer.bias.value, rtol=0, atol=CLOSE[dtype])
    np.testing.assert_allclose(grad_x, wide_g @ wide_w.T, rtol=0, atol=CLOSE[dtype])
    np.testing.assert_allclose(layer.weight.grad, before + wide_x.T @ wide_g, rtol=0, atol=CLOSE[dtype])
    np.testing.assert_allclose(layer.bias.grad, wide_g.sum(axis=0), rtol=0, atol=CLOSE[dtype])


def test_only_thin_layers_multiply_in_kernels() -> None:
    assert any("thin" in name for name in nn.Linear("fc", 5, 16).kernels())
    assert not any("thin" in name for name in nn.Linear("fc", 5, 17).kernels())


@pytest.mark.parametrize("outputs", [1, 10, 16])
def test_a_nan_stays_in_its_own_rows_and_columns(outputs: int) -> None:
    layer, workspace = nn.Linear("fc", 2 * INPUTS, outputs), nn.Workspace()
    x, grad = np.ones((2 * ROWS, 2 * INPUTS), np.float32), np.ones((2 * ROWS, outputs), np.float32)
    x[ROWS - 1, INPUTS - 1] = np.nan
    assert (np.isnan(layer.forward(x, workspace)).all(axis=1) == (np.arange(2 * ROWS) == ROWS - 1)).all()
    assert np.isfinite(layer.backward(x, grad, workspace)).all()
    seen = np.isnan(layer.weight.grad)
    assert seen.sum() == outputs
    assert seen[INPUTS - 1].all()


def test_any_number_of_threads_gives_the_same_bits(threads: None) -> None:
    draws, found = np.random.default_rng(0), []
    x, grad = draws.standard_normal((50, 700)).astype(np.float32), draws.standard_normal((50, 10)).astype(np.float32)
    for count in (1, 2, 3):
        kernels.set_num_threads(count)
        layer, workspace = nn.Linear("fc", 700, 10), nn.Workspace()
        out, grad_x = layer.forward(x, workspace), layer.backward(x, grad, workspace)
        found.append(out.tobytes() + grad_x.tobytes() + layer.weight.grad.tobytes() + layer.bias.grad.tobytes())
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("outputs", [1, 10])
def test_the_numbers_behind_a_matrix_are_never_used(outputs: int) -> None:
    draws = np.random.default_rng(0)
    x, weight, grad = draws.standard_normal((9, 5)), draws.standard_normal((5, outputs)), np.ones((9, outputs))
    with_room = [np.append(values, np.full(16, np.nan)) for values in (weight, grad)]
    bias = np.append(np.zeros(outputs), np.full(16 - outputs, np.nan))
    out, total = np.empty((9, outputs)), np.zeros((5, outputs))
    kernels.multiply_thin(0, 1, 0, x, with_room[0], bias, np.empty(144), out)
    np.testing.assert_allclose(out, x @ weight, atol=1e-14)
    valid = (np.arange(16) < outputs).astype(float)
    total_bias = np.ones(outputs)
    kernels.multiply_thin_backward_weight(0, 1, 0, x, with_room[1], valid, np.empty(80), total, total_bias)
    np.testing.assert_allclose(total, x.T @ grad, atol=1e-14)
    np.testing.assert_array_equal(total_bias, np.full(outputs, 10.0))
