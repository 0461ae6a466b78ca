"""Laws of the mailbox: bounded, nothing reliable lost, the newest wins, no spike merged away."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spiral_core.wire import codec
from spiral_core.wire.messages import Ack, AnyMessage, Frame, HeatMaps, Merged, Message, Strip
from spiral_server.live.mailbox import Mailbox
from spiral_server.live.merging import columns_of

from .saying import ack, frame, heat_maps, started, strip


def post(mailbox: Mailbox, *messages: Message) -> None:
    for message in messages:
        mailbox.put(message, codec.encode(message))


def drawn(mailbox: Mailbox, limit: int = 1 << 20) -> list[AnyMessage]:
    messages: list[AnyMessage] = []
    while mailbox.pending:
        messages += [codec.decode(data) for data in mailbox.drain(limit)]
    return messages


@given(st.lists(st.sampled_from(["frame", "ack", "maps", "strip", "drain"]), max_size=200), st.integers(1, 4000))
def test_nothing_reliable_is_lost_and_the_newest_of_the_rest_arrives(script: list[str], limit: int) -> None:
    mailbox = Mailbox(frame_bound=5)
    got: list[AnyMessage] = []
    acks: list[str] = []
    last: dict[str, int] = {}
    for seq, word in enumerate(script):
        if word == "drain":
            got += [codec.decode(data) for data in mailbox.drain(limit)]
        elif word == "ack":
            acks.append(str(seq))
            post(mailbox, ack(seq, seq + 1, str(seq)))
        else:
            last[word] = seq
            say = {"frame": frame, "maps": heat_maps}.get(word)
            post(mailbox, strip(seq, seq, 0.5) if say is None else say(seq, seq))
        assert len(mailbox._frames) <= 5
    got += drawn(mailbox, limit)
    assert [message.id for message in got if isinstance(message, Ack)] == acks
    for word, kind in (("maps", HeatMaps), ("strip", Strip)):
        if word in last:
            assert [message.seq for message in got if isinstance(message, kind)][-1] == last[word]
    merged = sum(message.frames for message in got if isinstance(message, Merged))
    assert merged + sum(isinstance(message, Frame) for message in got) == script.count("frame")


@given(
    st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), min_size=1, max_size=300),
    st.integers(1, 40),
)
def test_merged_frames_keep_minimum_maximum_and_what_is_not_finite(values: list[float], bound: int) -> None:
    mailbox = Mailbox(frame_bound=bound)
    post(mailbox, *(frame(step, step, [value]) for step, value in enumerate(values)))
    points: dict[float, float] = {}
    for message in drawn(mailbox):
        if isinstance(message, Merged):
            (column,) = message.columns
            points |= dict(zip(column.steps.numpy().tolist(), column.values.numpy().tolist(), strict=True))
        elif isinstance(message, Frame):
            points[message.step] = float(message.values.numpy()[0])
    assert all(points[step] == values[int(step)] or math.isnan(points[step]) for step in points)
    finite = [value for value in values if math.isfinite(value)]
    if finite:
        shown = [value for value in points.values() if math.isfinite(value)]
        assert (min(shown), max(shown)) == (min(finite), max(finite))
    assert sum(math.isnan(value) for value in points.values()) == sum(math.isnan(value) for value in values)


def test_frames_without_a_single_number_are_merged_into_nothing() -> None:
    assert columns_of([frame(0, 0, []), frame(1, 1, [])]) == {}
    assert set(columns_of([frame(0, 0, []), frame(1, 1, [5.0])])) == {0}


def test_a_viewer_that_stays_away_for_a_million_numbers_takes_bounded_memory_and_sees_the_spike() -> None:
    mailbox = Mailbox()
    for step in range(20_000):
        message = frame(step, step, [1.0 if step != 12_345 else 1000.0])
        mailbox.put(message, b"x" * 100)
    merged = next(codec.decode(data) for data in mailbox.drain() if len(data) > 100)
    assert isinstance(merged, Merged)
    assert merged.frames >= 19_000
    assert len(merged.columns[0].values.numpy()) <= 480
    assert 1000.0 in merged.columns[0].values.numpy()
    assert merged.columns[0].reduced


def test_too_many_reliable_messages_overflow_by_number_and_by_size() -> None:
    mailbox = Mailbox(reliable_bound=3)
    post(mailbox, *(ack(seq, seq, str(seq)) for seq in range(3)))
    assert not mailbox.overflowed
    post(mailbox, ack(3, 3, "3"))
    assert mailbox.overflowed
    heavy = Mailbox(reliable_bytes=100)
    heavy.put(started(), b"x" * 101)
    assert heavy.overflowed


def test_frames_within_the_bound_arrive_one_by_one_and_unchanged() -> None:
    mailbox = Mailbox()
    sent = [frame(step, step, [float(step), np.nan]) for step in range(100)]
    post(mailbox, *sent)
    assert [codec.encode(one) for one in drawn(mailbox)] == [codec.encode(one) for one in sent]
