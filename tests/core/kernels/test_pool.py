from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from types import FrameType

import numpy as np
import pytest

from spiral_core import kernels
from spiral_core.errors import ArgumentError
from spiral_core.kernels.pool import _POOL

pytestmark = pytest.mark.usefixtures("threads")


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_every_chunk_is_done_exactly_once_and_slots_do_not_meet(count: int) -> None:
    kernels.set_num_threads(count)
    for chunks in (0, 1, 2, 3, 7, 20):
        times, slots = np.zeros(chunks, int), []

        def mark(start: int, stop: int, slot: int, times: np.ndarray, slots: list[int]) -> None:
            slots.append(slot)
            times[start:stop] += 1

        kernels.run(mark, chunks, times, slots)
        assert times.tolist() == [1] * chunks
        assert sorted(slots) == list(range(max(1, min(count, chunks))))


def test_keyword_arguments_reach_every_thread() -> None:
    kernels.set_num_threads(3)
    seen = []

    def note(_start: int, _stop: int, _slot: int, *, word: str) -> None:
        seen.append(word)

    kernels.run(note, 3, word="yes")
    assert seen == ["yes"] * 3


def test_an_error_in_any_thread_is_raised_and_the_pool_goes_on() -> None:
    kernels.set_num_threads(3)

    def fail(start: int, _stop: int, slot: int, bad: int) -> None:
        if slot == bad:
            raise KeyError(f"slot {slot}")

    for bad in range(3):
        with pytest.raises(KeyError, match=f"slot {bad}"):
            kernels.run(fail, 3, bad)
    kernels.run(fail, 3, -1)


def test_an_interrupt_while_waiting_leaves_no_answer_behind() -> None:
    kernels.set_num_threads(2)

    class Interrupt(Exception): ...

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise Interrupt

    def slow(_start: int, _stop: int, slot: int, done: list[int]) -> None:
        time.sleep(0.3 * slot)
        done.append(slot)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Interrupt):
            kernels.run(slow, 2, [])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    # A stale answer would let these return before their second half is done.
    for _ in range(2):
        done: list[int] = []
        kernels.run(slow, 2, done)
        assert sorted(done) == [0, 1]


def test_an_interrupt_while_work_is_handed_out_leaves_no_answer_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels.set_num_threads(3)
    kernels.run(lambda *_: None, 3)
    _, second = _POOL.hire(2)

    class Interrupted:
        def put(self, job: object) -> None:
            if job is not None:
                raise KeyboardInterrupt

    def slow(_start: int, _stop: int, slot: int, done: list[int]) -> None:
        time.sleep(0.1 * slot)
        done.append(slot)

    with monkeypatch.context() as patch:
        patch.setattr(second, "jobs", Interrupted())
        # The first worker has its share when the second is reached.
        with pytest.raises(KeyboardInterrupt):
            kernels.run(slow, 3, [])
    for _ in range(2):
        done: list[int] = []
        kernels.run(slow, 3, done)
        assert sorted(done) == [0, 1, 2]


def test_a_second_thread_works_alone_while_the_pool_is_busy() -> None:
    kernels.set_num_threads(2)
    inside, leave, slots = threading.Event(), threading.Event(), []

    def hold(_start: int, _stop: int, _slot: int) -> None:
        inside.set()
        leave.wait(10)

    holder = threading.Thread(target=kernels.run, args=(hold, 2))
    holder.start()
    assert inside.wait(10)
    kernels.run(lambda start, stop, slot: slots.append((start, stop, slot)), 4)
    leave.set()
    holder.join(10)
    assert slots == [(0, 4, 0)]


@pytest.mark.parametrize("threads_asked", [0, -1, 1.5, True, "2", None])
def test_a_number_of_threads_that_cannot_be_is_refused_by_name(threads_asked: object) -> None:
    before = kernels.get_num_threads()
    with pytest.raises(ArgumentError, match="threads"):
        kernels.set_num_threads(threads_asked)  # type: ignore[arg-type]
    assert kernels.get_num_threads() == before


def test_a_forked_child_gets_a_pool_of_its_own() -> None:
    script = """
import os, signal
import numpy as np
from spiral_core import kernels
kernels.set_num_threads(2)
def work(start, stop, slot, out):
    out[start:stop] = os.getpid()
out = np.zeros(4)
kernels.run(work, 4, out)
child = os.fork()
if child == 0:
    signal.alarm(20)
    kernels.run(work, 4, out)
    os._exit(0 if (out == os.getpid()).all() and kernels.get_num_threads() == 2 else 3)
_, status = os.waitpid(child, 0)
kernels.run(work, 4, out)
raise SystemExit(os.waitstatus_to_exitcode(status) or int((out != os.getpid()).any()))
"""
    subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", script], check=True, timeout=60)
