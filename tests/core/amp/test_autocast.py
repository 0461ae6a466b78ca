"""The guard: what is in force where, and for whom."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from spiral_core import amp, nn
from spiral_core.errors import ArgumentError, DtypeError, ShapeError, StateError
from spiral_core.nn import precision

FINE = np.full((1, 1), 1 + 2**-9, np.float32)
"""A number that float16 holds, and bfloat16 does not; with ``FINEST`` not even float16 does."""
FINEST = np.full((1, 1), 1 + 2**-9 + 2**-12, np.float32)
SEEN = {
    None: (float(FINE[0, 0]), float(FINEST[0, 0])),
    "float16": (1 + 2**-9, 1 + 2**-9),
    "bfloat16": (1.0, 1.0),
}


def unit() -> nn.Linear:
    layer = nn.Linear("fc", 1, 1)
    layer.weight.value[...] = 1
    return layer


def seen() -> str | None:
    """Return which type a layer really rounds to here, by what comes out of it."""
    layer = unit()
    out = tuple(float(layer.forward(x)[0, 0]) for x in (FINE, FINEST))
    return next(name for name, values in SEEN.items() if values == out)


def test_a_guard_rounds_inside_and_leaves_no_trace() -> None:
    assert seen() is None
    with amp.autocast() as guard:
        assert isinstance(guard, amp.AutocastGuard)
        assert (guard.enabled, guard.dtype, seen()) == (True, "float16", "float16")
    assert seen() is None
    with amp.AutocastGuard(True, "bfloat16"):
        assert seen() == "bfloat16"
    assert seen() is None


def test_an_error_inside_a_guard_passes_through_and_ends_it() -> None:
    layer = unit()
    with pytest.raises(ShapeError), amp.autocast():
        layer.forward(FINE[0])
    assert seen() is None


def test_guards_nest_and_the_innermost_decides() -> None:
    with amp.autocast():
        with amp.autocast(enabled=False):
            assert seen() is None
            with amp.autocast(dtype="bfloat16"):
                assert seen() == "bfloat16"
            assert seen() is None
        assert seen() == "float16"


def test_one_guard_may_be_entered_again_and_inside_itself() -> None:
    guard = amp.autocast(dtype="bfloat16")
    for _ in range(2):
        with guard, guard:
            with amp.autocast(enabled=False), guard:
                assert seen() == "bfloat16"
            assert seen() == "bfloat16"
        assert seen() is None


def test_guards_are_left_in_the_reverse_order_or_not_at_all() -> None:
    outer, inner = amp.autocast(), amp.autocast(dtype="bfloat16")
    with pytest.raises(StateError, match="reverse order"):
        outer.__exit__(None, None, None)
    with outer, inner:
        with pytest.raises(StateError, match="innermost"):
            outer.__exit__(None, None, None)
        assert seen() == "bfloat16"
    assert seen() is None


def test_another_thread_is_not_told_and_may_use_the_same_guard() -> None:
    guard, found = amp.autocast(), []

    def look() -> None:
        found.append(seen())
        with guard:
            found.append(seen())
        found.append(seen())

    with guard:
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        assert seen() == "float16"
    assert found == [None, "float16", None]


def test_tasks_of_one_thread_do_not_disturb_each_other() -> None:
    async def work(guard: amp.AutocastGuard, here: asyncio.Event, there: asyncio.Event) -> str | None:
        with guard:
            here.set()
            await there.wait()
            return seen()

    async def both() -> list[str | None]:
        one, two = asyncio.Event(), asyncio.Event()
        jobs = (work(amp.autocast(), one, two), work(amp.autocast(dtype="bfloat16"), two, one))
        found = list(await asyncio.gather(*jobs))
        return [*found, seen()]

    assert asyncio.run(both()) == ["float16", "bfloat16", None]


@pytest.mark.parametrize("dtype", ["float16", np.float16, np.dtype(np.float16), "half", "<f2"])
def test_a_type_may_be_a_name_a_numpy_dtype_or_a_scalar_type(dtype: Any) -> None:
    assert amp.autocast(dtype=dtype).dtype == "float16"


@pytest.mark.parametrize("dtype", ["float32", np.float64, "int16", "tf32", None, 16, object()])
def test_another_type_is_refused_with_the_remedy(dtype: Any) -> None:
    with pytest.raises(DtypeError, match="enabled=False"):
        amp.autocast(dtype=dtype)


@pytest.mark.parametrize("enabled", ["bfloat16", np.float16, 1, None])
def test_a_type_in_the_place_of_enabled_is_refused(enabled: Any) -> None:
    with pytest.raises(ArgumentError, match="dtype="):
        amp.autocast(enabled)


def test_only_an_enabled_guard_asks_for_the_rounding_kernel() -> None:
    assert amp.autocast().kernels == ("narrow",)
    assert amp.autocast(enabled=False).kernels == ()
    layers = [nn.Linear("a", 1, 1), nn.Conv2d("b", 1, 1), nn.Lstm("c", 1, 1)]
    assert not any("narrow" in layer.kernels() for layer in layers)
    assert precision.in_force() is None
