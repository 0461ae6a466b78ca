"""Many viewers, hidden ones, those that are cut off and those that stop reading; over real sockets."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

import psutil
import pytest

from spiral_core.wire import codec
from spiral_core.wire.limits import CLOSE_SILENT, CLOSE_TOO_SLOW
from spiral_core.wire.messages import (
    Ack,
    CommandRecord,
    Frame,
    HeatMaps,
    Message,
    Ping,
    Pong,
    Resumed,
    RunsListed,
    RunStarted,
    Snapshot,
    Tick,
    ViewHello,
    Visibility,
    Watch,
)
from spiral_server.routes import connection as connection_module
from spiral_server.settings import Pace

from .asking import give, play, shown, stored
from .house import House, Peer, courier, dial, eventually, hide, serving, viewer
from .saying import ack, asking, frame, heat_maps, opening

VIEWERS = 300


def test_a_message_is_encoded_and_framed_once_for_three_hundred_viewers(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[type[Message]] = []
    framed: list[bytes] = []
    encode, wrap = codec.encode, connection_module.framed

    def counting(message: Message) -> bytes:
        encoded.append(type(message))
        return encode(message)

    def wrapping(packet: bytes) -> bytes:
        framed.append(packet)
        return wrap(packet)

    async def story() -> None:
        async with AsyncExitStack() as stack:
            engine = await stack.enter_async_context(courier(house))
            await engine.say(*opening())
            await stored(engine, 3)
            pages = [await stack.enter_async_context(viewer(house)) for _ in range(VIEWERS)]
            await asyncio.gather(*(shown(page) for page in pages))
            with monkeypatch.context() as patched:
                # Both are looked up at each call, in the server's thread; this thread packs what it says beforehand.
                said = [codec.encode_packet([frame(seq, seq)]) for seq in range(4, 9)]
                patched.setattr(codec, "encode", counting)
                patched.setattr(connection_module, "framed", wrapping)
                for seq, packet in enumerate(said, 4):
                    await engine.socket.send(packet)
                    await asyncio.gather(*(page.next_of(Frame, lambda one, seq=seq: one.seq == seq) for page in pages))
            assert encoded.count(Frame) == 5
            assert encoded.count(Tick) <= 5
            # The courier is told besides what is on disk.
            shared = [packet for packet in framed if any(isinstance(one, Tick) for one in codec.decode_packet(packet))]
            assert 0 < len(shared) <= 5
            assert sum(isinstance(one, Frame) for page in pages for one in page.seen) == 5 * VIEWERS

    play(story())


def test_a_hidden_page_is_sent_only_what_must_not_be_lost_and_catches_up_when_it_is_seen_again(house: House) -> None:
    async def story() -> None:
        async with courier(house) as engine, viewer(house) as page, viewer(house) as other:
            await engine.say(*opening())
            await stored(engine, 3)
            await shown(page)
            await shown(other)
            await hide(house, page)
            page.seen.clear()
            await engine.say(*(frame(seq, seq) for seq in range(4, 54)), heat_maps(54, 54), ack(55, 1, "c"))
            await other.next_of(HeatMaps)
            await page.next_of(Ack)
            await give(house, asking("c2"))
            await page.next_of(CommandRecord)
            await page.say(Ping(time=2.0))
            await page.next_of(Pong)
            assert not any(isinstance(message, (Frame, HeatMaps)) for message in page.seen)
            await page.say(Visibility(visible=True))
            await page.next_of(HeatMaps)
            assert [message.seq for message in page.seen if isinstance(message, Frame)] == list(range(4, 54))
            assert not any(isinstance(message, Snapshot) for message in page.seen)
            await engine.say(frame(56, 56))
            await page.next_of(Frame, lambda message: message.seq == 56)

    play(story())


def test_a_page_that_was_hidden_for_too_long_gets_a_fresh_snapshot(house: House) -> None:
    async def story() -> None:
        async with courier(house) as engine, viewer(house) as page:
            await engine.say(*opening())
            await stored(engine, 3)
            await shown(page)
            await hide(house, page)
            for seq in range(4, 34):
                await engine.say(frame(seq, seq, [0.5] * 10_000))
            await stored(engine, 33)
            await page.say(Visibility(visible=True))
            assert (await page.next_of(Snapshot)).seq == 33
            assert not any(isinstance(message, Frame) for message in page.seen)

    play(story())


def test_a_page_that_was_cut_off_gets_what_it_missed_and_not_everything(house: House) -> None:
    async def story() -> None:
        async with courier(house) as engine:
            await engine.say(*opening(), *(frame(seq, seq) for seq in range(4, 104)))
            await stored(engine, 103)
            async with viewer(house) as page:
                snapshot = await shown(page)
                await engine.say(frame(104, 104))
                await page.next_of(Frame)
                (tick,) = (message for message in page.seen if isinstance(message, Tick))
            await engine.say(*(frame(seq, seq) for seq in range(105, 155)), ack(155, 1, "c"))
            await stored(engine, 155)
            async with viewer(house) as page:
                await page.say(Watch(run="r1", width=800, epoch=snapshot.epoch, since=tick.number))
                assert await page.next_of(Resumed) == Resumed(run="r1", since=tick.number)
                await page.next_of(Ack)
                await engine.say(frame(156, 156))
                await page.next_of(Frame, lambda message: message.seq == 156)
                frames = [message.seq for message in page.seen if isinstance(message, Frame)]
                assert frames == [*range(105, 155), 156]
                assert not any(isinstance(message, Snapshot) for message in page.seen)

    play(story())


def test_a_page_that_knows_another_server_gets_a_snapshot(tmp_path: Path) -> None:
    async def before(house: House, known: list[Snapshot]) -> None:
        async with courier(house) as engine, viewer(house) as page:
            await engine.say(*opening(), frame(4, 1))
            await stored(engine, 4)
            known.append(await shown(page))

    async def after(house: House, known: Snapshot) -> None:
        async with viewer(house) as page:
            await page.say(Watch(run="r1", width=800, epoch=known.epoch, since=known.number))
            assert (await page.next_of(Snapshot)).epoch != known.epoch

    known: list[Snapshot] = []
    with serving(tmp_path) as house:
        play(before(house, known))
    with serving(tmp_path) as house:
        play(after(house, known[0]))


def test_deltas_of_a_run_that_nobody_comes_back_to_are_let_go(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        async with courier(house) as engine:
            await engine.say(*opening())
            await stored(engine, 3)
            async with viewer(house) as page:
                known = await shown(page)

            async def nobody() -> bool:
                return not house.app.state.hub.audience.viewers

            await eventually(nobody)
            await asyncio.sleep(0.2)
            await engine.say(frame(4, 4))
            await stored(engine, 4)
            async with viewer(house) as page:
                await page.say(Watch(run="r1", width=800, epoch=known.epoch, since=known.number))
                await page.next_of(Snapshot)

    with serving(tmp_path, pace=Pace(resume=0.1)) as house:
        play(story(house))


def test_after_a_resume_from_a_checkpoint_frames_come_in_order(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        async with viewer(house) as page:
            async with courier(house) as engine:
                await engine.say(*opening(), frame(4, 10))
                await stored(engine, 4)
                await shown(page)
                await engine.say(frame(5, 11))
                await page.next_of(Frame)
                # This one waits for the tick, which is later than the run's beginning anew.
                await engine.say(frame(6, 12))
                await stored(engine, 6)
                async with courier(house, incarnation=1) as next_engine:
                    await next_engine.say(*opening(incarnation=1), frame(4, 8, incarnation=1))
                    await page.next_of(Frame, lambda message: message.incarnation == 1)
            said = [message for message in page.seen if isinstance(message, (RunStarted, Frame))]
            assert [(type(message), message.incarnation, message.step) for message in said] == [
                (Frame, 0, 11),
                (Frame, 0, 12),
                (RunStarted, 1, 0),
                (Frame, 1, 8),
            ]

    with serving(tmp_path, pace=Pace(tick=1.0)) as house:
        play(story(house))


# --- heartbeats


def test_each_side_asks_whether_the_other_is_there_and_a_dead_page_is_closed(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        async with viewer(house) as dead, viewer(house) as living:
            await living.say(Ping(time=5.0))
            assert await living.next_of(Pong) == Pong(time=5.0)
            answered = 0
            closed = asyncio.create_task(dead.closed())
            while not closed.done():
                await living.next_of(Ping)  # which answers it
                answered += 1
            assert closed.result() == CLOSE_SILENT
            assert answered >= 3

    with serving(tmp_path, pace=Pace(heartbeat=0.2, silence=0.8)) as house:
        play(story(house))


def test_one_who_never_greets_is_closed(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        async with dial(house, "view") as page:
            assert await page.closed() == CLOSE_SILENT

    with serving(tmp_path, pace=Pace(heartbeat=0.1, silence=0.4)) as house:
        play(story(house))


# --- a viewer that stops reading


async def stalled_story(house: House, stall: float, resident: list[int], late: list[float]) -> None:
    """One viewer of four stops reading for three times the patience of the server; 160 KB, 20 times a second."""
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(courier(house))
        await engine.say(*opening())
        await stored(engine, 3)
        pages = [await stack.enter_async_context(viewer(house)) for _ in range(3)]
        sleeper = await stack.enter_async_context(viewer(house))
        for page in (*pages, sleeper):
            await shown(page)
        known = next(message for message in sleeper.seen if isinstance(message, Snapshot))
        watching = set(house.app.state.hub.audience.viewers)
        sleeper.socket.transport.pause_reading()
        process = psutil.Process()
        seq, gone_at = 4, None
        begun = time.monotonic()
        while gone_at is None or time.monotonic() < begun + 3 * stall:
            sent = time.monotonic()
            await engine.say(frame(seq, seq, [float(seq)] * 500), heat_maps(seq + 1, seq, side=200))
            await asyncio.gather(*(page.next_of(Frame, lambda one, seq=seq: one.seq == seq) for page in pages))
            late.append(time.monotonic() - sent)
            resident.append(process.memory_info().rss)
            await stored(engine, seq + 1)
            seq += 2
            if gone_at is None and len(house.app.state.hub.audience.viewers) == len(watching) - 1:
                gone_at = time.monotonic() - begun
            assert time.monotonic() < begun + 20 * stall + 20
            for peer in (engine, *pages):
                peer.seen.clear()
            await asyncio.sleep(max(0.0, sent + 0.05 - time.monotonic()))
        assert gone_at >= stall
        sleeper.socket.transport.resume_reading()
        assert await sleeper.closed() == CLOSE_TOO_SLOW
        back = await stack.enter_async_context(viewer(house))
        await catch_up(back, known, list(range(4, seq, 2)))
        await engine.say(frame(seq, seq))
        await back.next_of(Frame, lambda message: message.seq == seq)


async def catch_up(page: Peer, known: Snapshot, steps: list[int]) -> None:
    """Come back; what was missed must come, as frames or in a snapshot, and there with its ends and its extremes."""
    await page.say(Watch(run="r1", width=800, epoch=known.epoch, since=known.number))
    opened = await page.until(lambda message: isinstance(message, (Resumed, Snapshot)))
    if isinstance(opened, Snapshot):
        column = next(one for one in opened.columns if one.index == 0)
        got = column.steps.numpy().tolist()
        assert got == steps if not column.reduced else (got[0], got[-1]) == (steps[0], steps[-1])
        # The value of a step is the step.
        assert column.values.numpy().tolist() == got
    else:
        await page.next_of(Frame, lambda message: message.step == steps[-1])
        assert [message.step for message in page.seen if isinstance(message, Frame)] == steps


def test_a_viewer_that_takes_nothing_is_closed_with_a_code_and_the_others_see_every_frame(tmp_path: Path) -> None:
    with serving(tmp_path, pace=Pace(stall=0.5)) as house:
        late: list[float] = []
        play(stalled_story(house, 0.5, [], late))
    assert max(late) < 1


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_viewer_that_stops_reading_for_ninety_seconds_costs_the_server_no_memory(tmp_path: Path) -> None:
    resident: list[int] = []
    with serving(tmp_path) as house:
        late: list[float] = []
        play(stalled_story(house, house.settings.pace.stall, resident, late), seconds=300)
    late.sort()
    middle, long = (late[len(late) * part // 100] for part in (50, 99))
    print(f"{len(late)} frames, late by p50 {middle * 1e3:.0f}, p99 {long * 1e3:.0f} ms")
    # The budget of `tests/benchmarks/fanout.py`.
    assert long < 0.05
    assert late[-1] < 1
    # Server and viewers share this process. What the sleeper does not take from then on is 190 MB.
    assert max(resident[len(resident) // 3 :]) - resident[len(resident) // 3] < 24 * 1024 * 1024


def test_the_list_of_runs_reaches_a_page_that_watches_none(house: House) -> None:
    async def story() -> None:
        async with dial(house, "view") as page:
            await page.say(ViewHello(protocol=1))
            await page.next_of(RunsListed)
            async with courier(house, run="a") as engine:
                await engine.say(*opening(run="a"))
                await page.next_of(RunsListed, lambda message: bool(message.runs) and message.runs[0].name == "a run")

    play(story())
