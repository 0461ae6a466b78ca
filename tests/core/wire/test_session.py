"""Both ends of a conversation, back to back."""

from __future__ import annotations

import pytest

from spiral_core.errors import LocalError, RemoteError
from spiral_core.wire import codec
from spiral_core.wire.limits import (
    CLOSE_BAD_DATA,
    CLOSE_PROTOCOL,
    CLOSE_SILENT,
    HEARTBEAT_SECONDS,
    PROTOCOL,
    SILENCE_SECONDS,
)
from spiral_core.wire.messages import (
    EngineHello,
    EngineWelcome,
    Ping,
    Pong,
    RunsListed,
    Stored,
    ViewHello,
    ViewWelcome,
    Watch,
)
from spiral_core.wire.session import GRAMMAR, PEER, Role, Session, State

HELLO = EngineHello(protocol=PROTOCOL, run="r", incarnation=0)
WELCOME = EngineWelcome(protocol=PROTOCOL, stored=-1)


@pytest.fixture
def pair() -> tuple[Session, Session]:
    courier, ingest = Session(Role.COURIER, now=0.0), Session(Role.INGEST, now=0.0)
    ingest.receive(courier.send([HELLO]), now=0.0)
    courier.receive(ingest.send([WELCOME]), now=0.0)
    return courier, ingest


def test_two_ends_that_greet_are_open(pair: tuple[Session, Session]) -> None:
    courier, ingest = pair
    assert courier.open
    assert ingest.open
    assert courier.receive(ingest.send([Stored(seq=3)]), now=0.1) == [Stored(seq=3)]


def test_viewer_and_view_greet_and_speak() -> None:
    viewer, view = Session(Role.VIEWER, now=0.0), Session(Role.VIEW, now=0.0)
    view.receive(viewer.send([ViewHello(protocol=PROTOCOL)]), now=0.0)
    viewer.receive(view.send([ViewWelcome(protocol=PROTOCOL, instance="i", server="0")]), now=0.0)
    assert view.receive(viewer.send([Watch(run="", width=800)]), now=0.0) == [Watch(run="", width=800)]
    assert viewer.receive(view.send([RunsListed(runs=[])]), now=0.0) == [RunsListed(runs=[])]


@pytest.mark.parametrize("role", list(Role))
def test_nothing_but_the_greeting_may_pass_first(role: Role) -> None:
    """Each message that a role may say once open is refused before the greeting."""
    for kind in GRAMMAR[role][State.OPEN] - GRAMMAR[role][State.OPENING]:
        assert kind not in GRAMMAR[role][State.OPENING]
    listener = Session(PEER[role], now=0.0)
    with pytest.raises(RemoteError) as refused:
        listener.receive(codec.encode_packet([Ping(time=0.0)]), now=0.0)
    assert refused.value.code == CLOSE_PROTOCOL


def test_another_protocol_version_is_refused_with_the_remedy() -> None:
    ingest = Session(Role.INGEST, now=0.0)
    old = EngineHello(protocol=PROTOCOL + 1, run="r", incarnation=0)
    with pytest.raises(RemoteError, match="update the older one") as refused:
        ingest.receive(codec.encode_packet([old]), now=0.0)
    assert refused.value.code == CLOSE_PROTOCOL


def test_garbage_closes_with_bad_data(pair: tuple[Session, Session]) -> None:
    with pytest.raises(RemoteError) as refused:
        pair[1].receive(b"\xff\xff\xff\xffgarbage", now=0.0)
    assert refused.value.code == CLOSE_BAD_DATA


def test_a_viewer_cannot_speak_as_an_engine() -> None:
    view = Session(Role.VIEW, now=0.0)
    with pytest.raises(RemoteError, match="EngineHello"):
        view.receive(codec.encode_packet([HELLO]), now=0.0)


def test_saying_what_our_side_may_not_say_is_our_bug(pair: tuple[Session, Session]) -> None:
    with pytest.raises(LocalError):
        pair[0].send([Stored(seq=1)])
    with pytest.raises(LocalError, match="does not speak first"):
        Session(Role.INGEST, now=0.0).send([WELCOME])
    with pytest.raises(LocalError):
        Session(Role.COURIER, now=0.0).forward([b""])


def test_a_ping_is_answered_and_not_passed_on(pair: tuple[Session, Session]) -> None:
    courier, ingest = pair
    assert ingest.receive(courier.send([Ping(time=5.0)]), now=1.0) == []
    (answer,) = ingest.data_to_send()
    assert codec.decode_packet(answer) == [Pong(time=5.0)]
    assert ingest.data_to_send() == []


def test_a_quiet_line_is_pinged_and_a_dead_one_is_closed(pair: tuple[Session, Session]) -> None:
    courier, _ = pair
    assert courier.next_tick() == HEARTBEAT_SECONDS
    courier.tick(now=HEARTBEAT_SECONDS - 0.1)
    assert courier.data_to_send() == []
    courier.tick(now=HEARTBEAT_SECONDS)
    assert len(courier.data_to_send()) == 1
    with pytest.raises(RemoteError) as refused:
        courier.tick(now=SILENCE_SECONDS)
    assert refused.value.code == CLOSE_SILENT


def test_each_message_of_a_run_may_travel_up_and_out() -> None:
    up = GRAMMAR[Role.COURIER][State.OPEN]
    out = GRAMMAR[Role.VIEW][State.OPEN]
    assert up <= out
