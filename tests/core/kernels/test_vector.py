"""The spelled-out vectors, inside compiled code."""

from __future__ import annotations

import numpy as np
import pytest

from spiral_core.arrays import F64, Float
from spiral_core.kernels import kernel
from spiral_core.kernels.vector import (
    PAIR,
    absolute,
    load_pair,
    spread_pair,
    store,
    tanh_of,
    tanh_of_size,
    total,
    with_sign,
)

DTYPES = [np.float32, np.float64]


@kernel("void({f}[::1], {f}[:,::1], float64[::1])")
def pairs_of_each(x: Float, found: Float, sums: F64) -> None:
    """Run what works on pairs of vectors."""
    flat = found.reshape(-1)
    for at in range(0, x.size, PAIR):
        pair = load_pair(x, at)
        size = absolute(pair)
        store(flat, at, size)
        store(flat, x.size + at, tanh_of(pair))
        store(flat, 2 * x.size + at, with_sign(tanh_of_size(size), pair))
        store(flat, 3 * x.size + at, spread_pair(x[at]))
        sums[at // PAIR] = total(pair)


def on_pairs(x: Float) -> tuple[Float, F64]:
    found, sums = np.empty((4, x.size), x.dtype), np.empty(x.size // PAIR)
    pairs_of_each(x, found, sums)
    return found, sums


@pytest.mark.parametrize("dtype", DTYPES)
def test_tanh_of_sizes_with_signs_is_tanh_to_the_last_bit(dtype: type[np.floating]) -> None:
    edges = [0.0, -0.0, np.nan, np.inf, -np.inf, 9.0, 9.1, 9.4, -9.4, 9.5, 1e-30, -1e-40]
    x = np.concatenate([np.linspace(-10, 10, 20 * PAIR - len(edges)), edges]).astype(dtype)
    (size, bent, signed, first), _ = on_pairs(x)
    np.testing.assert_array_equal(size, np.abs(x))
    assert np.isnan(bent).sum() == 1
    assert np.signbit(signed[x == 0]).tolist() == np.signbit(x[x == 0]).tolist()
    number = ~np.isnan(x)
    # Zeros of both signs are equal.
    np.testing.assert_array_equal(signed[number], bent[number])
    np.testing.assert_array_equal(np.isnan(signed), np.isnan(x))
    np.testing.assert_allclose(bent, np.tanh(x.astype(np.float64)), rtol=5e-7 if dtype is np.float32 else 1e-15)
    np.testing.assert_array_equal(first, np.repeat(x[::PAIR], PAIR))


@pytest.mark.parametrize("dtype", DTYPES)
def test_totals_are_taken_in_float64(dtype: type[np.floating]) -> None:
    x = np.random.default_rng(0).standard_normal(4 * PAIR).astype(dtype)
    # In float32 the ones beside it would be lost.
    x[0], x[7], x[PAIR + 1] = 3e7, -3e7, np.nan
    _, sums = on_pairs(x)
    expected = x.astype(np.float64).reshape(4, PAIR).sum(axis=1)
    np.testing.assert_allclose(sums, expected, rtol=1e-8)
    assert np.isnan(sums).tolist() == [False, True, False, False]
