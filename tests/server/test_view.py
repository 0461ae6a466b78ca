"""What viewers see, and how little they can do to each other; over real websockets."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from spiral_core.wire.limits import CLOSE_GOING_AWAY, CLOSE_TOO_SLOW, VIEW_TICK_SECONDS
from spiral_core.wire.messages import (
    Frame,
    HeatMaps,
    Merged,
    ProbeBatch,
    RunsListed,
    Snapshot,
    Steer,
    Steered,
    Tick,
    ViewHello,
    ViewWelcome,
    Watch,
)
from spiral_core.wire.parts import Array
from spiral_server.live.parties import Viewer

from .asking import play, shown, stored
from .house import House, courier, dial, eventually, serving, viewer
from .saying import ack, asking, declared, frame, heat_maps, opening


def test_a_viewer_waits_for_a_run_that_is_not_there_yet(house: House) -> None:
    async def story() -> None:
        async with viewer(house) as page:
            assert (await page.next_of(RunsListed)).runs == []
            await page.say(Watch(run="", width=800))
            async with courier(house, run="later") as engine:
                await engine.say(*opening(run="later"))
                listed = await page.next_of(RunsListed, lambda message: bool(message.runs))
                assert listed.runs[0].id == "later"
                assert (await page.next_of(Snapshot)).run.id == "later"

    play(story())


def test_a_viewer_changes_between_runs_and_sees_only_the_one_it_watches(house: House) -> None:
    async def story() -> None:
        async with courier(house, run="a") as first, courier(house, run="b") as second, viewer(house) as page:
            await first.say(*opening(run="a"))
            await second.say(*opening(run="b"))
            await stored(first, 3)
            await stored(second, 3)
            await shown(page, "a")
            watched = [Watch(run=run, width=100) for run in ("b", "a", "b")]
            # A command in the same packet is answered behind them; a heartbeat would not wait.
            await page.say(*watched, Steer(run="none", request=asking()))
            await page.next_of(Steered)
            await first.say(frame(4, 1, run="a"))
            await stored(first, 4)
            await second.say(frame(4, 2, run="b"))
            await page.next_of(Frame)
            assert [message.run for message in page.seen if isinstance(message, Frame)] == ["b"]
            assert [message.run.id for message in page.seen if isinstance(message, Snapshot)][-1] == "b"

    play(story())


def test_greeting_and_question_may_come_in_one_packet(house: House) -> None:
    async def story() -> None:
        async with courier(house) as engine, dial(house, "view") as page:
            await engine.say(*opening())
            await stored(engine, 3)
            await page.say(ViewHello(protocol=1), Watch(run="r1", width=800))
            await page.next_of(ViewWelcome)
            await page.next_of(Snapshot)

    play(story())


def test_what_is_too_large_for_a_snapshot_follows_it(house: House) -> None:
    async def story() -> None:
        async with courier(house) as engine, viewer(house) as page:
            images = Array.of(np.zeros((64, 96, 96, 3), np.float32), "<f4")
            head = {"run": "r1", "incarnation": 0, "step": 0, "time": 1.0}
            probe = ProbeBatch(**head, seq=4, images=images, labels=[0] * 64, masks=None)
            await engine.say(*opening(), probe, heat_maps(5, 0, side=700))
            await stored(engine, 5)
            snapshot = await shown(page)
            assert snapshot.probe is None
            assert snapshot.heat_maps is None
            assert len((await page.next_of(ProbeBatch)).labels) == 64
            await page.next_of(HeatMaps)

    play(story())


def test_a_snapshot_of_very_many_curves_is_still_a_message(house: House) -> None:
    async def story() -> None:
        async with courier(house) as engine, viewer(house) as page:
            await engine.say(*opening(), replace(declared(count=1000), seq=4))
            for seq in range(5, 805):
                await engine.say(frame(seq, seq, [float(seq)] * 1000))
                if seq % 20 == 0:
                    await stored(engine, seq)
            snapshot = await shown(page)
            assert len(snapshot.columns) == 1000
            assert snapshot.columns[7].reduced
            assert snapshot.columns[7].values.numpy()[-1] == 804

    play(story())


def test_a_viewer_that_stops_reading_harms_only_itself(house: House) -> None:
    async def story() -> None:
        async with courier(house) as engine, viewer(house) as page, viewer(house) as sleeper:
            await engine.say(*opening())
            await stored(engine, 3)
            await shown(page)
            await shown(sleeper)
            sleeper.socket.transport.pause_reading()
            seq = 4
            for _ in range(40):
                # Reliable and large, so that the sleeper's bound is reached soon after the buffers of the system.
                await engine.say(*(ack(seq + i, 10_000 + seq + i, "x" * 9000 + str(seq + i)) for i in range(20)))
                seq += 20
                await stored(engine, seq - 1)
                await engine.say(frame(seq, seq))
                began = time.monotonic()
                await page.next_of(Frame)
                assert time.monotonic() - began < 1
                seq += 1
            viewers = house.app.state.hub.audience.viewers

            async def alone() -> bool:
                return len(viewers) == 1

            await eventually(alone)
            sleeper.socket.transport.resume_reading()
            assert await sleeper.closed() == CLOSE_TOO_SLOW
            await engine.say(frame(seq, seq))
            await page.next_of(Frame, lambda message: message.seq == seq)

    play(story())


def test_a_slow_viewer_gets_merged_frames_and_is_told_how_many(house: House) -> None:
    async def story() -> None:
        async with courier(house) as engine, viewer(house) as page:
            await engine.say(*opening())
            await stored(engine, 3)
            await shown(page)
            (watching,) = house.app.state.hub.audience.viewers
            assert isinstance(watching, Viewer)
            await engine.say(*(frame(seq, seq, [float(seq == 700)]) for seq in range(4, 1004)))
            values: list[float] = []
            while not page.seen or not isinstance(page.seen[-1], Frame) or page.seen[-1].seq < 1003:
                for message in await page.packet():
                    if isinstance(message, Merged):
                        values += message.columns[0].values.numpy().tolist()
            assert 1.0 in values
            assert sum(message.frames for message in page.seen if isinstance(message, Merged)) > 500

    play(story())


def test_frames_after_a_pause_are_shown_at_once_and_a_stream_comes_in_ticks(house: House) -> None:
    async def story() -> None:
        async with courier(house) as engine, viewer(house) as page:
            await engine.say(*opening())
            await stored(engine, 3)
            await shown(page)
            delays = []
            for seq in range(4, 14):
                await asyncio.sleep(2 * VIEW_TICK_SECONDS)
                began = time.monotonic()
                await engine.say(frame(seq, seq))
                await page.next_of(Frame)
                delays.append(time.monotonic() - began)
            assert sorted(delays)[len(delays) // 2] < VIEW_TICK_SECONDS / 2
            page.seen.clear()
            began = time.monotonic()
            for seq in range(14, 114):
                await engine.say(frame(seq, seq))
                await asyncio.sleep(0.003)
            await page.next_of(Frame, lambda message: message.seq == 113)
            packets = sum(isinstance(message, Tick) for message in page.seen)
            assert packets <= (time.monotonic() - began) / VIEW_TICK_SECONDS + 2

    play(story())


def test_a_stopping_server_says_good_bye_and_is_quick(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        async with courier(house) as engine, viewer(house) as page:
            await engine.say(*opening())
            await stored(engine, 3)
            house.ask_to_end()
            codes = await asyncio.gather(engine.closed(), page.closed())
            assert codes == [CLOSE_GOING_AWAY] * 2

    with serving(tmp_path) as house:
        play(story(house))
        began = time.monotonic()
        house.end()
        assert time.monotonic() - began < 2
