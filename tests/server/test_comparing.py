"""Viewers that compare runs: one packing for all, nothing lost, the slow and the hidden get the whole anew."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np

from spiral_core.wire import codec
from spiral_core.wire.limits import CLOSE_PROTOCOL
from spiral_core.wire.messages import AnyMessage, Compare, Compared, Ping, Points, Pong, Visibility
from spiral_core.wire.parts import SeriesSpec
from spiral_server.hub import Hub
from spiral_server.live.channel import Parcel, Reader
from spiral_server.live.comparison import TICK_POINTS, WAITING_TICKS, Comparison
from spiral_server.settings import Pace
from spiral_server.store.sqlite_store import SqliteStore

from .asking import play, stored
from .house import House, Peer, courier, eventually, hide, serving, viewer
from .saying import frame, opening

NAMES = ["train/s1", "train/none", "train/s0"]


def points_of(messages: Iterable[AnyMessage]) -> dict[int, dict[float, float]]:
    """Put together what a page would draw: by place, values by step."""
    found: dict[int, dict[float, float]] = {}
    for message in messages:
        if isinstance(message, Points):
            told = zip(message.place.numpy(), message.steps.numpy(), message.values.numpy(), strict=True)
            for place, step, value in told:
                found.setdefault(int(place), {})[float(step)] = float(value)
        elif isinstance(message, Compared):
            base = ["a", "b"].index(message.run.id) * len(NAMES)
            for column in message.columns:
                told_of = dict(zip(column.steps.numpy().tolist(), column.values.numpy().tolist(), strict=True))
                found.setdefault(base + column.index, {}).update(told_of)
    return found


async def drawn(page: Peer, expected: dict[int, dict[float, float]]) -> None:
    while points_of(page.seen) != expected:
        await page.packet()


def test_runs_are_compared_by_names_of_series_and_followed_while_they_train(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        async with AsyncExitStack() as stack:
            engines = [await stack.enter_async_context(courier(house, run=run)) for run in ("a", "b")]
            pages = [await stack.enter_async_context(viewer(house)) for _ in range(20)]
            for run, engine in zip("ab", engines, strict=True):
                await engine.say(*opening(run=run), frame(4, 1, [1.0, 2.0], run=run))
                await stored(engine, 4)
            for page in pages:
                await page.say(Compare(runs=["a", "b", "missing"], series=NAMES, width=500))
            expected = {2: {1.0: 1.0}, 0: {1.0: 2.0}, 5: {1.0: 1.0}, 3: {1.0: 2.0}}
            for page in pages:
                await drawn(page, expected)
            for seq in range(5, 9):
                for run, engine in zip("ab", engines, strict=True):
                    await engine.say(frame(seq, seq, [float(seq), 0.5], run=run))
                    await stored(engine, seq)
                for base in (0, 3):
                    expected[base + 2][seq] = float(seq)
                    expected[base][seq] = 0.5
                for page in pages:
                    await drawn(page, expected)
            (comparison,) = house.app.state.hub.audience.comparisons._known.values()
            sent = sum(isinstance(message, Points) for message in pages[0].seen)
            # Each engine's frame may fall into a tick of its own; all viewers share it.
            assert sent == comparison.packed <= 8
            await pages[0].say(Compare(runs=[], series=[], width=0))

            async def one_less() -> bool:
                return len(comparison.readers) == 19

            await eventually(one_less)

    with serving(tmp_path, pace=Pace(compare_tick=0.01)) as house:
        play(story(house))


def test_a_hidden_page_gets_no_points_and_the_whole_when_it_is_seen_again(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        async with courier(house, run="a") as engine, viewer(house) as page, viewer(house) as other:
            await engine.say(*opening(run="a"), frame(4, 1, run="a"))
            await stored(engine, 4)
            for one in (page, other):
                await one.say(Compare(runs=["a"], series=NAMES, width=500))
                await one.next_of(Compared)
            await hide(house, page)
            page.seen.clear()
            await engine.say(frame(5, 2, run="a"))
            await other.next_of(Points)
            await page.say(Ping(time=1.0))
            await page.next_of(Pong)
            assert points_of(page.seen) == {}
            await page.say(Visibility(visible=True))
            await drawn(page, {0: {1.0: 2.0, 2.0: 2.0}, 2: {1.0: 1.0, 2.0: 1.0}})

    with serving(tmp_path, pace=Pace(compare_tick=0.01)) as house:
        play(story(house))


def test_too_many_curves_are_refused(house: House) -> None:
    async def story() -> None:
        async with viewer(house) as page:
            await page.say(Compare(runs=[str(k) for k in range(100)], series=[str(k) for k in range(100)], width=9))
            assert await page.closed() == CLOSE_PROTOCOL

    play(story())


class Jammed:
    """An outlet that a test shuts."""

    def __init__(self) -> None:
        self.ready = True
        self.parcels: list[Parcel] = []

    def send(self, parcel: Parcel) -> None:
        self.parcels.append(parcel)

    def leave(self, code: int, reason: str) -> None:
        raise AssertionError(f"{code} {reason}")


def test_what_a_viewer_said_before_it_left_joins_no_comparison(tmp_path: Path) -> None:
    async def story() -> None:
        hub = Hub(SqliteStore(tmp_path))
        page = hub.arrive(Jammed())
        hub.audience.depart(page)
        await hub.audience.comparisons.compare(page, Compare(runs=["a"], series=NAMES, width=500))
        assert not hub.audience.comparisons._known
        await hub.stop()

    play(story())


def test_a_jammed_viewer_keeps_a_bounded_number_of_packets_and_then_needs_the_whole() -> None:
    specs = {0: SeriesSpec(index=0, name="train/s0", unit="", group="train", scale="linear", help="")}
    comparison = Comparison((("a",), ("train/s0",)))
    outlet = Jammed()
    reader = Reader(outlet)
    comparison.join(reader)
    comparison.open_with(reader, [])
    outlet.ready = False
    for step in range(1000):
        comparison.add(frame(step, step, [1.0], run="a"), specs)
        comparison.flush()
        assert not comparison.catch_up(reader)
    outlet.ready = True
    assert comparison.catch_up(reader)
    assert 0 < len(outlet.parcels) <= WAITING_TICKS + 2


def test_a_fast_run_takes_few_points_a_tick_and_its_spike_is_among_them() -> None:
    specs = {0: SeriesSpec(index=0, name="train/s0", unit="", group="train", scale="linear", help="")}
    comparison = Comparison((("a",), ("train/s0",)))
    outlet = Jammed()
    reader = Reader(outlet)
    comparison.join(reader)
    comparison.open_with(reader, [])
    for step in range(500):
        comparison.add(frame(step, step, [float(step == 321)], run="a"), specs)
    comparison.flush()
    ((message,),) = (codec.decode_packet(parcel.packet) for parcel in outlet.parcels)
    assert isinstance(message, Points)
    assert len(message.steps.numpy()) <= TICK_POINTS
    assert np.max(message.values.numpy()) == 1.0
