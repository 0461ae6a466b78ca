"""Rounding to float16 and bfloat16, bit for bit, against NumPy, against integer arithmetic, and against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from spiral_core import kernels
from spiral_core.arrays import F32, U32
from spiral_core.kernels.elementwise import CHUNK

KINDS = [kernels.FLOAT16, kernels.BFLOAT16]


def narrowed(x: F32, kind: int) -> F32:
    out = np.full_like(x, 7)
    kernels.run(kernels.narrow, -(-x.size // CHUNK), kind, x.view(np.uint32), out.view(np.uint32))
    return out


def twin(x: F32, kind: int) -> F32:
    """NumPy's own float16; for bfloat16, count how many numbers of that type lie below, in integers of 64 bits."""
    if kind == kernels.FLOAT16:
        with np.errstate(all="ignore"):
            return x.astype(np.float16).astype(np.float32)
    bits = x.view(np.uint32).astype(np.uint64)
    sign, size = bits >> 31, bits & 0x7FFFFFFF
    whole, rest = size >> 16, size & 0xFFFF
    whole = whole + ((rest > 0x8000) | ((rest == 0x8000) & (whole % 2 == 1)))
    out = ((sign << 31) | (whole << 16)).astype(np.uint32).view(np.float32)
    return np.where(np.isnan(x), np.float32(np.nan), out).astype(np.float32)


def assert_same_bits(got: F32, expected: F32) -> None:
    """Bit for bit, the signs of zeros too; of a NaN only that it is one."""
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(got[numbers].view(np.uint32), expected[numbers].view(np.uint32))


def every(kind: int) -> F32:
    """Every number of the narrow type, as float32: NaN, infinities and both zeros too."""
    codes = np.arange(2**16, dtype=np.uint16)
    if kind == kernels.FLOAT16:
        return codes.view(np.float16).astype(np.float32)
    return (codes.astype(np.uint32) << np.uint32(16)).view(np.float32)


def around_ties(kind: int) -> F32:
    """Of each pair of neighbours the float32 half way between, the ones beside that, and those beside the pair."""
    numbers = every(kind)
    numbers = np.sort(numbers[np.isfinite(numbers) & ~np.signbit(numbers)])
    # The number after the largest, were the exponent not used up: what rounds up to it overflows.
    beyond = numbers[-1].astype(np.float64) * 2 - numbers[-2]
    wide = np.append(numbers.astype(np.float64), beyond)
    ties = ((wide[:-1] + wide[1:]) / 2).astype(np.float32)
    near = np.concatenate([numbers, ties, *(np.nextafter(ties, np.float32(end)) for end in (0, np.inf))])
    return np.concatenate([near, -near])


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_of_the_narrow_type_stays_what_it_is(kind: int) -> None:
    numbers = every(kind)
    assert_same_bits(narrowed(numbers, kind), numbers)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tie_between_any_two_neighbours_goes_to_the_even_one_and_all_else_to_the_nearer_one(kind: int) -> None:
    x = around_ties(kind)
    assert len(x) > 8 * 31_000
    assert np.isinf(twin(x, kind)).sum() == 4, "the ties beyond the largest number are missing"
    assert_same_bits(narrowed(x, kind), twin(x, kind))


BITS = npst.arrays(np.uint32, st.integers(1, 300), elements=st.integers(0, 2**32 - 1))


@given(bits=BITS, kind=st.sampled_from(KINDS))
def test_any_float32_is_rounded_as_the_twin_does_and_stays_put_from_then_on(bits: U32, kind: int) -> None:
    x = bits.view(np.float32)
    once = narrowed(x, kind)
    assert_same_bits(once, twin(x, kind))
    assert_same_bits(narrowed(once, kind), once)


@pytest.mark.parametrize("kind", KINDS)
def test_the_ends_are_kept_apart(kind: int) -> None:
    x = np.array([0.0, -0.0, np.inf, -np.inf, 65504, 65519.99, 65520, 2.0**-24, 2.0**-25, 1e-45, 3.4e38], np.float32)
    if kind == kernels.FLOAT16:
        expected = [0.0, -0.0, np.inf, -np.inf, 65504, 65504, np.inf, 2.0**-24, 0, 0, np.inf]
    else:
        expected = [0.0, -0.0, np.inf, -np.inf, 65536, 65536, 65536, 2.0**-24, 2.0**-25, 0, np.inf]
    assert_same_bits(narrowed(x, kind), np.array(expected, np.float32))


@pytest.mark.parametrize("kind", KINDS)
def test_any_nan_stays_one_that_the_narrow_type_holds_and_keeps_its_sign(kind: int) -> None:
    x = np.array([0x7F800001, 0x7FC00000, 0xFF800001, 0xFFFFFFFF, 0x7FC02000], np.uint32).view(np.float32)
    out = narrowed(x, kind)
    assert np.isnan(out).all()
    np.testing.assert_array_equal(np.signbit(out), np.signbit(x))
    assert not (out.view(np.uint32) & (0x1FFF if kind == kernels.FLOAT16 else 0xFFFF)).any()


@pytest.mark.parametrize("kind", KINDS)
def test_what_pytorch_casts_is_the_same(kind: int) -> None:
    dtype = torch.float16 if kind == kernels.FLOAT16 else torch.bfloat16
    drawn = np.random.default_rng(0).integers(0, 2**32, 2**20, dtype=np.uint32).view(np.float32)
    x = np.concatenate([drawn, every(kind), around_ties(kind)])
    assert_same_bits(narrowed(x, kind), torch.from_numpy(x).to(dtype).to(torch.float32).numpy())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
@pytest.mark.usefixtures("threads")
def test_chunks_meet_on_any_number_of_threads_and_in_place(size: int, kind: int) -> None:
    x = np.random.default_rng(1).standard_normal(size).astype(np.float32)
    expected = twin(x, kind)
    for count in (1, 2, 3):
        kernels.set_num_threads(count)
        assert_same_bits(narrowed(x, kind), expected)
    bits = x.view(np.uint32)
    kernels.run(kernels.narrow, -(-size // CHUNK), kind, bits, bits)
    assert_same_bits(x, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_compiled_rounding_is_the_python_loop(kind: int) -> None:
    x = np.concatenate([every(kind)[::97], around_ties(kind)[::997]])
    out = np.full_like(x, 7)
    kernels.python_function(kernels.narrow)(0, 1, 0, kind, x.view(np.uint32), out.view(np.uint32))
    np.testing.assert_array_equal(out.view(np.uint32), narrowed(x, kind).view(np.uint32))
