"""Laws of the channel: one packing for all who keep up, and nobody misses what must not be lost."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from spiral_core.wire import codec
from spiral_core.wire.limits import CLOSE_TOO_SLOW
from spiral_core.wire.messages import Ack, AnyMessage, Frame, HeatMaps, Merged, Message, ProbeBatch, Resumed, Tick
from spiral_server.live.channel import RECENT_BYTES, Channel, Parcel, Reader

from .saying import ack, frame, heat_maps


@dataclass
class Basket:
    """An outlet that a test opens and shuts."""

    ready: bool = True
    parcels: list[Parcel] = field(default_factory=list)
    code: int | None = None

    def send(self, parcel: Parcel) -> None:
        self.parcels.append(parcel)

    def leave(self, code: int, reason: str) -> None:
        assert reason
        self.code = code

    @property
    def messages(self) -> list[AnyMessage]:
        return [message for parcel in self.parcels for message in codec.decode_packet(parcel.packet)]

    def of(self, *kinds: type[Message]) -> list[AnyMessage]:
        return [message for message in self.messages if isinstance(message, kinds)]


def watching(channel: Channel[Reader]) -> tuple[Reader, Basket]:
    basket = Basket()
    reader = Reader(basket)
    channel.join(reader)
    reader.open_with([], channel.number)
    channel.catch_up(reader)
    return reader, basket


def post(channel: Channel[Reader], *messages: Message) -> None:
    for message in messages:
        channel.post(message, codec.encode(message))


def test_all_who_keep_up_get_the_very_same_packet() -> None:
    channel: Channel[Reader] = Channel("r1")
    baskets = [watching(channel)[1] for _ in range(300)]
    for seq in range(10):
        post(channel, frame(seq, seq), ack(seq, seq, str(seq)))
        channel.flush()
    assert channel.packed == 10
    assert all(basket.parcels == baskets[0].parcels for basket in baskets)
    assert [message.number for message in baskets[0].of(Tick)] == list(range(2, 21, 2))


WORDS = st.sampled_from(["frame", "ack", "maps", "flush", "hurry", "jam", "clear", "hide", "show", "cut"])


@given(st.lists(WORDS, max_size=150))
def test_a_viewer_that_jams_hides_and_is_cut_off_has_in_the_end_what_one_has_that_never_did(script: list[str]) -> None:
    channel: Channel[Reader] = Channel("r1")
    reader, basket = watching(channel)
    _, steady = watching(channel)
    baskets = [basket]
    for seq, word in enumerate([*script, "clear", "show", "flush"]):
        if word in ("frame", "ack", "maps"):
            say = {"frame": frame(seq, seq), "ack": ack(seq, seq, str(seq)), "maps": heat_maps(seq, seq)}
            post(channel, say[word])
        elif word == "flush":
            channel.flush()
        elif word == "hurry":
            channel.hurry()
        elif word == "jam":
            basket.ready = False
        elif word == "clear":
            basket.ready = True
            channel.catch_up(reader)
        elif word == "hide":
            channel.hide(reader)
        elif word == "show" and not reader.visible:
            reader.visible = True
            missed = channel.since(reader.cursor, reliable=False)
            assert missed is not None
            reader.open_with(missed, channel.number)
            channel.catch_up(reader)
        elif word == "cut":
            # What the server wrote and the viewer has not read is lost with the connection.
            ticks = [message.number for message in basket.of(Tick)]
            known = ticks[-1] if ticks else 0
            channel.leave(reader)
            basket = Basket()
            baskets.append(basket)
            reader = Reader(basket)
            channel.join(reader)
            missed = channel.resumed(known, channel.epoch)
            assert missed is not None
            reader.open_with(missed, channel.number)
            channel.catch_up(reader)
    got = [message for one in baskets for message in one.messages]
    expected = steady.messages
    for kind in (Frame, Ack):
        said = {message.seq for message in expected if isinstance(message, kind)}
        assert {message.seq for message in got if isinstance(message, kind)} == said
    newest = [message.seq for message in expected if isinstance(message, HeatMaps)][-1:]
    assert [message.seq for message in got if isinstance(message, HeatMaps)][-1:] == newest
    assert reader.settled


def test_what_must_not_be_lost_goes_ahead_of_frames_and_the_number_is_complete_with_these() -> None:
    channel: Channel[Reader] = Channel("r1")
    _, basket = watching(channel)
    post(channel, frame(1, 1), ack(2, 1, "a"), heat_maps(3, 1))
    channel.hurry()
    assert [type(message) for message in basket.messages] == [Tick, Ack]
    assert basket.of(Tick)[0].number == 0, "who comes back with this number gets the frame"
    missed = channel.since(0)
    assert missed is not None
    channel.hurry()
    assert len(basket.parcels) == 1
    channel.flush()
    assert [type(message) for message in basket.messages[2:]] == [Tick, Frame, HeatMaps]
    assert basket.of(Tick)[-1].number == 3
    post(channel, ack(4, 1, "b"))
    channel.hurry()
    assert basket.of(Tick)[-1].number == 4, "nothing else waits"


def test_where_one_cannot_take_it_now_nothing_goes_ahead() -> None:
    channel: Channel[Reader] = Channel("r1")
    _, steady = watching(channel)
    jammed, basket = watching(channel)
    basket.ready = False
    post(channel, frame(1, 1), ack(2, 1, "a"))
    channel.hurry()
    assert [type(message) for message in steady.messages] == [Tick, Ack, Frame]
    basket.ready = True
    channel.catch_up(jammed)
    assert [type(message) for message in basket.messages] == [Tick, Ack, Frame]


def test_a_hidden_viewer_gets_what_must_not_be_lost_and_nothing_else() -> None:
    channel: Channel[Reader] = Channel("r1")
    reader, basket = watching(channel)
    post(channel, frame(0, 0))
    channel.hide(reader)
    assert [message.seq for message in basket.of(Frame)] == [0]
    post(channel, frame(1, 1), heat_maps(2, 2), ack(3, 1, "c"))
    channel.flush()
    assert [type(message) for message in basket.messages] == [Tick, Frame, Tick, Ack]
    # A cut now must bring back what was left out.
    assert [message.number for message in basket.of(Tick)] == [1, 1]


def test_a_viewer_that_hides_while_it_is_behind_is_spared_what_waits_for_it() -> None:
    channel: Channel[Reader] = Channel("r1")
    reader, basket = watching(channel)
    basket.ready = False
    post(channel, frame(0, 0))
    channel.flush()
    post(channel, frame(1, 1), ack(2, 1, "c"))
    channel.hide(reader)
    basket.ready = True
    channel.catch_up(reader)
    assert [message.seq for message in basket.of(Frame, Ack)] == [0, 2]


def test_what_was_missed_comes_without_what_a_newer_message_makes_worthless() -> None:
    channel: Channel[Reader] = Channel("r1")
    post(channel, frame(0, 0), heat_maps(1, 1), frame(2, 2), heat_maps(3, 3), frame(4, 4))
    parcels = channel.resumed(1, channel.epoch)
    assert parcels is not None
    messages = [message for parcel in parcels for message in codec.decode_packet(parcel.packet)]
    assert messages[:2] == [Resumed(run="r1", since=1), Tick(run="r1", number=5)]
    assert [message.seq for message in messages if isinstance(message, (Frame, HeatMaps))] == [2, 3, 4]


def test_who_was_away_too_long_or_knows_another_server_needs_a_snapshot() -> None:
    channel: Channel[Reader] = Channel("r1")
    post(channel, *(frame(seq, seq) for seq in range(10)))
    assert channel.resumed(3, "another") is None
    assert channel.resumed(11, channel.epoch) is None
    assert channel.resumed(10, channel.epoch) is not None
    for seq in range(10, 10 + 2 * RECENT_BYTES // 1000):
        channel.post(frame(seq, seq), b"x" * 1000)
    assert channel.resumed(3, channel.epoch) is None
    assert channel.resumed(channel.number - 100, channel.epoch) is not None
    channel.skip()
    assert channel.resumed(channel.number - 1, channel.epoch) is None


def test_a_viewer_that_is_behind_gets_merged_frames_while_the_others_get_each() -> None:
    channel: Channel[Reader] = Channel("r1")
    reader, slow = watching(channel)
    _, quick = watching(channel)
    slow.ready = False
    for seq in range(1000):
        post(channel, frame(seq, seq))
        channel.flush()
    assert len(quick.of(Frame)) == 1000
    slow.ready = True
    channel.catch_up(reader)
    merged = slow.of(Merged)
    assert sum(message.frames for message in merged) + len(slow.of(Frame)) == 1000
    assert len(merged) == 1
    assert reader.settled


def test_a_viewer_that_lets_reliable_messages_pile_up_is_sent_away_and_the_others_stay() -> None:
    channel: Channel[Reader] = Channel("r1")
    _, slow = watching(channel)
    _, quick = watching(channel)
    slow.ready = False
    for seq in range(50):
        channel.post(ack(seq, seq, str(seq)), codec.encode(ack(seq, seq, "x" * 100_000)))
        channel.flush()
    assert slow.code == CLOSE_TOO_SLOW
    assert quick.code is None
    assert len(quick.of(Ack)) == 50


def test_more_than_a_packet_holds_goes_as_several_and_the_number_is_complete_with_the_last() -> None:
    channel: Channel[Reader] = Channel("r1")
    _, basket = watching(channel)
    for seq in range(30):
        post(channel, ack(seq, seq, "x" * 100_000))
    channel.flush()
    assert len(basket.parcels) > 2
    numbers = [message.number for message in basket.of(Tick)]
    assert numbers == [0] * (len(numbers) - 1) + [30]


def test_a_viewer_that_joins_between_two_ticks_gets_nothing_twice() -> None:
    channel: Channel[Reader] = Channel("r1")
    watching(channel)
    post(channel, frame(0, 0))
    _, late = watching(channel)
    post(channel, frame(1, 1))
    channel.flush()
    post(channel, frame(2, 2))
    channel.flush()
    assert [message.seq for message in late.of(Frame, ProbeBatch)] == [1, 2]
