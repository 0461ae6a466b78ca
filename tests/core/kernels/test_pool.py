from __future__ import annotations

import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from spiral_core import kernels
from spiral_core.errors import ArgumentError

pytestmark = pytest.mark.usefixtures("threads")


@kernels.kernel("void(int64, int64, int64, int64[::1], int64[::1], int64)")
def mark_chunks(start: int, stop: int, slot: int, times: np.ndarray, slots: np.ndarray, turns: int) -> None:
    """Note who does a chunk, after some turns of a loop that the compiler cannot leave out."""
    for k in range(start, stop):
        total = 0
        for turn in range(turns):
            total = total * 1_103_515_245 + turn
        times[k] += 1 + (total == 1)
        slots[k] = slot


@kernels.kernel("void(int64, int64, int64, {f}[:,::1], {f}, UniTuple(int64, 2), uint8[::1], {f}[::1])")
def add_columns(
    start: int, stop: int, slot: int, x: np.ndarray, w: float, at: tuple[int, int], skip: np.ndarray, out: np.ndarray
) -> None:
    """Use every kind of argument that kernels take, with views of a row."""
    for k in range(start, stop):
        row = x[k]
        out[k] = 0.0 if skip[k] else w * row[at[0]] + row[at[1]]


@kernels.kernel("void(int64, int64, int64, int64)")
def fail_at(start: int, stop: int, slot: int, bad: int) -> None:
    for k in range(start, stop):
        if k == bad:
            raise ValueError


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_every_chunk_is_done_exactly_once(count: int) -> None:
    kernels.set_num_threads(count)
    for turns in (0, 1000):
        for chunks in (0, 1, 2, 3, 7, 20, 64, 1000):
            times, slots = np.zeros(chunks, int), np.full(chunks, -1)
            for _ in range(20):
                kernels.run(mark_chunks, chunks, times, slots, turns)
            assert times.tolist() == [20] * chunks
            assert chunks == 0 or (slots.min() >= 0 and slots.max() < count)


def test_long_work_reaches_every_thread_and_nobody_waits_for_a_sleeper() -> None:
    kernels.set_num_threads(3)
    seen = set()
    deadline = time.monotonic() + 60
    while seen != {0, 1, 2} and time.monotonic() < deadline:
        times, slots = np.zeros(24, int), np.zeros(24, int)
        kernels.run(mark_chunks, 24, times, slots, 3_000_000)
        assert times.tolist() == [1] * 24
        seen |= set(slots.tolist())
        time.sleep(0.02)  # long enough that they go to sleep, so that being woken is tried too
    assert seen == {0, 1, 2}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arguments_of_every_kind_arrive_as_they_are(dtype: type) -> None:
    draws = np.random.default_rng(0)
    x, skip = draws.standard_normal((50, 7)).astype(dtype), draws.integers(0, 2, 50).astype(np.uint8)
    expected = np.where(skip, 0, dtype(2) * x[:, 2] + x[:, 6]).astype(dtype)
    for count in (1, 2, 4):
        kernels.set_num_threads(count)
        for _ in range(200):
            out = np.full(50, np.nan, dtype)
            kernels.run(add_columns, 50, x, kernels.scalar(2, dtype), (2, 6), skip, out)
            np.testing.assert_array_equal(out, expected)


def test_what_is_passed_is_released_again() -> None:
    kernels.set_num_threads(2)
    x, out = np.ones((50, 7)), np.zeros(50)
    before = sys.getrefcount(x)
    for _ in range(10):
        kernels.run(add_columns, 50, x, 1.0, (0, 1), np.zeros(50, np.uint8), out)
    assert sys.getrefcount(x) == before


def test_an_argument_of_the_wrong_type_is_refused_and_the_pool_goes_on() -> None:
    kernels.set_num_threads(2)
    x, skip, out = np.ones((4, 2)), np.zeros(4, np.uint8), np.zeros(4)
    for bad in (x.astype(np.int64).view("f8").T, out, None, "x"):
        with pytest.raises((TypeError, AttributeError)):
            kernels.run(add_columns, 4, bad, 1.0, (0, 1), skip, out)
    assert not out.any()
    kernels.run(add_columns, 4, x, 1.0, (0, 1), skip, out)
    assert out.tolist() == [2] * 4


def test_a_kernel_that_fails_in_any_thread_is_reported_and_the_pool_goes_on() -> None:
    kernels.set_num_threads(3)
    for bad in range(9):
        with pytest.raises(RuntimeError, match="fail_at"):
            kernels.run(fail_at, 9, bad)
        kernels.run(fail_at, 9, -1)


def test_only_declared_kernels_that_do_ranges_can_be_spread() -> None:
    kernels.set_num_threads(2)

    def plain(start: int, stop: int, slot: int) -> None: ...

    with pytest.raises(ArgumentError, match="plain"):
        kernels.run(plain, 2)
    with pytest.raises(ArgumentError, match="fold_lanes"):
        kernels.run(kernels.fold_lanes, 2, np.ones((2, 4)), np.ones((2, 2)))  # type: ignore[arg-type]


def test_two_threads_that_call_at_once_both_get_their_work_done() -> None:
    kernels.set_num_threads(2)

    def call(results: list[np.ndarray]) -> None:
        for _ in range(300):
            times, slots = np.zeros(32, int), np.zeros(32, int)
            kernels.run(mark_chunks, 32, times, slots, 200)
            results.append(times)

    everyone: list[list[np.ndarray]] = [[], [], []]
    callers = [threading.Thread(target=call, args=(results,)) for results in everyone]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert all(len(results) == 300 for results in everyone)
    assert all((times == 1).all() for results in everyone for times in results)


def test_threads_can_be_added_and_taken_away_between_runs() -> None:
    for count in [1, 4, 2, 5, 1, 3] * 5:
        kernels.set_num_threads(count)
        times, slots = np.zeros(40, int), np.zeros(40, int)
        kernels.run(mark_chunks, 40, times, slots, 100)
        assert times.tolist() == [1] * 40
    kernels.set_num_threads(1)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("spiral-kernel")]


@pytest.mark.parametrize("threads_asked", [0, -1, 1.5, True, "2", None])
def test_a_number_of_threads_that_cannot_be_is_refused_by_name(threads_asked: object) -> None:
    before = kernels.get_num_threads()
    with pytest.raises(ArgumentError, match="threads"):
        kernels.set_num_threads(threads_asked)  # type: ignore[arg-type]
    assert kernels.get_num_threads() == before


def run_alone(script: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script]
    return subprocess.run(words, check=True, timeout=60, capture_output=True, text=True)


def test_a_forked_child_gets_a_team_of_its_own() -> None:
    script = """
import os, signal
import numpy as np
from spiral_core import kernels
from spiral_core.kernels import elementwise
kernels.set_num_threads(2)
x = np.linspace(-1, 1, 400_000, dtype=np.float32)
def rectified():
    out = np.full_like(x, np.nan)
    kernels.run(kernels.rectify, -(-x.size // elementwise.CHUNK), x, out)
    return bool((out == np.maximum(x, 0)).all())
assert rectified()
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(0 if rectified() and kernels.get_num_threads() == 2 else 3)
_, status = os.waitpid(child, 0)
raise SystemExit(os.waitstatus_to_exitcode(status) or not rectified())
"""
    run_alone(script)


@pytest.mark.parametrize("pause", [0, 0.05])
def test_a_process_that_ends_while_workers_wait_or_sleep_ends_well(pause: float) -> None:
    script = f"""
import time
import numpy as np
from spiral_core import kernels
from spiral_core.kernels import elementwise
kernels.set_num_threads(3)
x = np.ones(400_000, np.float32)
kernels.run(kernels.rectify, -(-x.size // elementwise.CHUNK), x, np.empty_like(x))
time.sleep({pause})
"""
    assert run_alone(script).stderr == ""
