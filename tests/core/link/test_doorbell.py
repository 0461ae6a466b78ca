"""The doorbell: what is waited for is answered at once, frames after a moment, and no ring is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable

import pytest

from spiral_core.link import doorbell
from spiral_core.link.doorbell import Doorbell, ring

GATHER_SECONDS = 0.4
"""Here: so long that a busy machine does not blur it."""
HELD_SECONDS = 4 * GATHER_SECONDS
AMPLE = 20.0


@pytest.fixture(autouse=True)
def longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorbell, "GATHER_SECONDS", GATHER_SECONDS)
    monkeypatch.setattr(doorbell, "HELD_SECONDS", HELD_SECONDS)


def with_bell(story: Callable[[Doorbell, int], Awaitable[None]]) -> None:
    """Tell a story of a doorbell that is listened to, and of the engine's end of it."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    async def tell() -> None:
        bell = Doorbell(reading)
        bell.listen()
        await asyncio.wait_for(story(bell, writing), AMPLE)
        asyncio.get_running_loop().remove_reader(reading)

    try:
        asyncio.run(tell())
    finally:
        os.close(reading)
        with contextlib.suppress(OSError):
            os.close(writing)


async def seconds_of(bell: Doorbell) -> float:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await bell.wait()
    return loop.time() - begun


@pytest.mark.parametrize("at_once", [False, True])
def test_the_first_ring_after_a_rest_is_answered_at_once(at_once: bool) -> None:
    async def story(bell: Doorbell, engine: int) -> None:
        ring(engine, at_once)
        assert await seconds_of(bell) < GATHER_SECONDS

    with_bell(story)


def test_frames_are_gathered_for_a_moment_and_then_carried_without_another_ring() -> None:
    async def story(bell: Doorbell, engine: int) -> None:
        ring(engine, False)
        await bell.wait()
        ring(engine, False)
        assert await seconds_of(bell) > 0.8 * GATHER_SECONDS
        for _ in range(5):
            ring(engine, False)
        assert await seconds_of(bell) > 0.8 * GATHER_SECONDS
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(bell.wait(), 2 * GATHER_SECONDS)

    with_bell(story)


def test_what_is_waited_for_ends_the_gathering() -> None:
    async def story(bell: Doorbell, engine: int) -> None:
        ring(engine, False)
        await bell.wait()
        ring(engine, False)
        asyncio.get_running_loop().call_soon(ring, engine, True)
        assert await seconds_of(bell) < 0.8 * GATHER_SECONDS

    with_bell(story)


def test_while_a_command_is_under_way_frames_wait_for_its_answer() -> None:
    async def story(bell: Doorbell, engine: int) -> None:
        loop = asyncio.get_running_loop()
        ring(engine, False)
        await bell.wait()
        ring(engine, False)
        loop.call_later(0.7 * GATHER_SECONDS, bell.hold)
        assert await seconds_of(bell) > 1.4 * GATHER_SECONDS
        ring(engine, False)
        bell.hold()
        loop.call_later(0.2 * GATHER_SECONDS, ring, engine, True)
        assert await seconds_of(bell) < 0.8 * GATHER_SECONDS

    with_bell(story)


def test_commands_one_behind_the_other_hold_frames_up_for_a_bounded_time() -> None:
    async def story(bell: Doorbell, engine: int) -> None:
        ring(engine, False)
        await bell.wait()

        async def steer() -> None:
            while True:
                bell.hold()
                await asyncio.sleep(0.2 * GATHER_SECONDS)

        steering = asyncio.create_task(steer())
        ring(engine, False)
        seconds = await seconds_of(bell)
        steering.cancel()
        assert 0.8 * HELD_SECONDS < seconds < 2 * HELD_SECONDS

    with_bell(story)


def test_the_end_of_the_engine_is_heard_at_once_and_for_good() -> None:
    async def story(bell: Doorbell, engine: int) -> None:
        ring(engine, False)
        await bell.wait()
        assert not bell.over.is_set()
        ring(engine, False)
        os.close(engine)
        assert await seconds_of(bell) < 0.8 * GATHER_SECONDS
        assert bell.over.is_set()

    with_bell(story)


def test_a_nudge_from_within_ends_a_wait() -> None:
    async def story(bell: Doorbell, engine: int) -> None:
        ring(engine, False)
        await bell.wait()
        bell.nudge(at_once=True)
        assert await seconds_of(bell) < 0.8 * GATHER_SECONDS

    with_bell(story)


def test_an_engine_whose_courier_does_not_listen_or_is_gone_is_not_held_up() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    for _ in range(100_000):
        ring(writing, False)
    os.close(reading)
    ring(writing, True)
    os.close(writing)
