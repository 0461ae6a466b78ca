"""The doorbell: what is waited for is answered at once, frames after a moment, and no ring is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from io import FileIO

import pytest

from spiral_core.link import doorbell
from spiral_core.link.doorbell import BellPush, Doorbell, hurry_line

GATHER_SECONDS = 0.4
"""Here: so long that a busy machine does not blur it."""
QUIET_SECONDS = 0.5 * GATHER_SECONDS
AMPLE = 20.0


@pytest.fixture(autouse=True)
def longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorbell, "GATHER_SECONDS", GATHER_SECONDS)
    monkeypatch.setattr(doorbell, "QUIET_SECONDS", QUIET_SECONDS)


@pytest.fixture(autouse=True, params=["pipe", "eventfd"])
def road(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What is waited for goes by the one or by the other."""
    if request.param == "pipe":
        monkeypatch.setattr(sys.modules[__name__], "hurry_line", lambda: -1)
    return str(request.param)


@contextlib.contextmanager
def ends() -> Iterator[tuple[FileIO, BellPush, int]]:
    """Give the courier's end of the pipe, the engine's end of both, and the courier's of the eventfd."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    hurry = hurry_line()
    heard = hurry if hurry < 0 else os.dup(hurry)
    engine = BellPush(writing, hurry)
    with FileIO(reading) as courier:
        try:
            yield courier, engine, heard
        finally:
            engine.close()
            if heard >= 0:
                os.close(heard)


def with_bell(story: Callable[[Doorbell, BellPush], Awaitable[None]]) -> None:
    """Tell a story of a doorbell that is listened to, and of the engine's end of it."""
    with ends() as (courier, engine, heard):

        async def tell() -> None:
            bell = Doorbell(courier.fileno(), heard)
            bell.listen()
            await asyncio.wait_for(story(bell, engine), AMPLE)
            for one in {courier.fileno(), heard} - {-1}:
                asyncio.get_running_loop().remove_reader(one)

        asyncio.run(tell())


async def seconds_of(bell: Doorbell) -> float:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await bell.wait()
    return loop.time() - begun


@pytest.mark.parametrize("at_once", [False, True])
def test_the_first_ring_after_a_rest_is_answered_at_once(at_once: bool) -> None:
    async def story(bell: Doorbell, engine: BellPush) -> None:
        engine.ring(at_once)
        assert await seconds_of(bell) < GATHER_SECONDS

    with_bell(story)


def test_frames_are_gathered_for_a_moment_and_then_carried_without_another_ring() -> None:
    async def story(bell: Doorbell, engine: BellPush) -> None:
        engine.ring(False)
        await bell.wait()
        engine.ring(False)
        assert await seconds_of(bell) > 0.8 * GATHER_SECONDS
        for _ in range(5):
            engine.ring(False)
        assert await seconds_of(bell) > 0.8 * GATHER_SECONDS
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(bell.wait(), 2 * GATHER_SECONDS)

    with_bell(story)


def test_what_is_waited_for_ends_the_gathering() -> None:
    async def story(bell: Doorbell, engine: BellPush) -> None:
        engine.ring(False)
        await bell.wait()
        engine.ring(False)
        asyncio.get_running_loop().call_soon(engine.ring, True)
        assert await seconds_of(bell) < 0.8 * GATHER_SECONDS

    with_bell(story)


def test_the_end_of_the_engine_is_heard_at_once_and_for_good() -> None:
    async def story(bell: Doorbell, engine: BellPush) -> None:
        engine.ring(False)
        await bell.wait()
        assert not bell.over.is_set()
        engine.ring(False)
        engine.close()
        assert await seconds_of(bell) < 0.8 * GATHER_SECONDS
        assert bell.over.is_set()

    with_bell(story)


def test_a_nudge_from_within_ends_a_wait() -> None:
    async def story(bell: Doorbell, engine: BellPush) -> None:
        engine.ring(False)
        await bell.wait()
        bell.nudge(at_once=True)
        assert await seconds_of(bell) < 0.8 * GATHER_SECONDS

    with_bell(story)


def test_an_engine_whose_courier_does_not_listen_or_is_gone_is_not_held_up() -> None:
    with ends() as (courier, engine, _):
        for _ in range(100_000):
            engine.ring(True)
        courier.close()
        engine.ring(True)


def test_an_engine_is_quiet_for_a_moment_after_a_ring_unless_somebody_waits(road: str) -> None:
    with ends() as (courier, engine, heard):
        for _ in range(100):
            engine.ring(False)
        engine.ring(True)
        engine.ring(False)
        time.sleep(1.2 * QUIET_SECONDS)
        engine.ring(False)
        if road == "eventfd":
            assert (courier.read(1000), int.from_bytes(os.read(heard, 8), sys.byteorder)) == (b"..", 1)
        else:
            assert courier.read(1000) == b".!."


def test_what_is_added_while_the_engine_is_quiet_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    # As short as in use: what counts is that no moment is missed between ring, look and quiet.
    monkeypatch.setattr(doorbell, "GATHER_SECONDS", 0.02)
    monkeypatch.setattr(doorbell, "QUIET_SECONDS", 0.01)
    chance = random.Random(0)
    log: list[int] = []

    async def story(bell: Doorbell, engine: BellPush) -> None:
        found: list[int] = []

        async def carry() -> None:
            while True:
                found[:] = log
                await bell.wait()

        def add_some() -> None:
            for _ in range(chance.randrange(1, 8)):
                log.append(len(log))
                engine.ring(False)
                time.sleep(chance.uniform(0.0, 0.012))

        carrying = asyncio.create_task(carry())
        for _ in range(40):
            await asyncio.to_thread(add_some)
            before = list(log)
            deadline = time.monotonic() + AMPLE / 4
            while found != before:
                assert time.monotonic() < deadline, f"{len(before) - len(found)} records are left"
                await asyncio.sleep(0.005)
        carrying.cancel()

    with_bell(story)


def test_a_bell_that_is_closed_twice_closes_nobody_elses_file() -> None:
    with ends() as (_, engine, _):
        engine.close()
        others = (*os.pipe(), *os.pipe())
        engine.close()
        for one in others:
            os.close(one)
