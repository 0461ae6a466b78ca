"""One side of a conversation: who may say what, and when.

Rule 1: holds no socket, reads no clock, starts no thread; bytes and times come in as arguments.
Rule 2: `GRAMMAR` is the whole grammar; the code below only looks things up in it.

A shell (the courier, a route, a test) feeds what it reads to `Session.receive`, then sends whatever `data_to_send`
returns, and calls `tick` when `next_tick` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TypeAlias, get_args

from spiral_core.errors import DecodeError, LocalError, RemoteError
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
    AnyMessage,
    Command,
    CommandRecord,
    Compare,
    Compared,
    EngineHello,
    EngineWelcome,
    Merged,
    Message,
    Ping,
    Points,
    Pong,
    Resumed,
    RunChanged,
    RunMessage,
    RunsListed,
    Snapshot,
    Steer,
    Steered,
    Stored,
    Tick,
    ViewHello,
    ViewWelcome,
    Visibility,
    Watch,
)


class Role(Enum):
    """Which end of which conversation."""

    COURIER = "courier"
    """The engine's end of ``/ws/engine``."""
    INGEST = "ingest"
    """The server's end of ``/ws/engine``."""
    VIEWER = "viewer"
    """The browser's end of ``/ws/view``."""
    VIEW = "view"
    """The server's end of ``/ws/view``."""


class State(Enum):
    """How far the conversation has come."""

    OPENING = "opening"
    """Only the greeting may pass."""
    OPEN = "open"


Sayable: TypeAlias = dict[State, frozenset[type[Message]]]

_RUN: frozenset[type[Message]] = frozenset(get_args(RunMessage))
_BEAT: frozenset[type[Message]] = frozenset({Ping, Pong})
_DOWN: frozenset[type[Message]] = frozenset({Stored, Command})
_ASK: frozenset[type[Message]] = frozenset({Watch, Compare, Visibility, Steer})
_SHOW: frozenset[type[Message]] = frozenset(
    {RunsListed, Snapshot, Resumed, Tick, Merged, RunChanged, CommandRecord, Compared, Points, Steered}
)

GRAMMAR: dict[Role, Sayable] = {
    Role.COURIER: {State.OPENING: frozenset({EngineHello}), State.OPEN: _RUN | _BEAT},
    Role.INGEST: {State.OPENING: frozenset({EngineWelcome}), State.OPEN: _DOWN | _BEAT},
    Role.VIEWER: {State.OPENING: frozenset({ViewHello}), State.OPEN: _ASK | _BEAT},
    Role.VIEW: {
        State.OPENING: frozenset({ViewWelcome}),
        State.OPEN: _SHOW | _RUN | _BEAT,
    },
}
"""What each role may say in each state. Saying the greeting opens one's own direction."""

PEER: dict[Role, Role] = {
    Role.COURIER: Role.INGEST,
    Role.INGEST: Role.COURIER,
    Role.VIEWER: Role.VIEW,
    Role.VIEW: Role.VIEWER,
}

_SPEAKS_FIRST = frozenset({Role.COURIER, Role.VIEWER})


class Session:
    """One side of one connection.

    Parameters
    ----------
    role : Role
        Which end this is.
    now : float
        Seconds of any monotonic clock; the same clock for every call.
    heartbeat, silence : float
        Seconds between two pings, and after which a peer that says nothing is lost.
    """

    def __init__(
        self, role: Role, *, now: float, heartbeat: float = HEARTBEAT_SECONDS, silence: float = SILENCE_SECONDS
    ) -> None:
        self.role = role
        self._heartbeat = heartbeat
        self._silence = silence
        self._ours = State.OPENING
        self._theirs = State.OPENING
        self._heard = now
        self._pinged = now
        self._outbox: list[bytes] = []

    @property
    def open(self) -> bool:
        """Whether both sides have greeted."""
        return self._ours is State.OPEN and self._theirs is State.OPEN

    def receive(self, packet: bytes, *, now: float) -> list[AnyMessage]:
        """Take in one packet; give its messages, heartbeats left out.

        After this call the shell must send `data_to_send`.

        Raises
        ------
        RemoteError
            The packet is damaged, or a message in it is not allowed now; close with its code.
        """
        try:
            messages = codec.decode_packet(packet)
        except DecodeError as error:
            raise RemoteError(CLOSE_BAD_DATA, str(error)) from error
        self._heard = now
        passed: list[AnyMessage] = []
        for message in messages:
            self._admit(message)
            if isinstance(message, Ping):
                self._outbox.append(codec.encode_packet([Pong(time=message.time)]))
            elif not isinstance(message, Pong):
                passed.append(message)
        return passed

    def _admit(self, message: AnyMessage) -> None:
        kind = type(message)
        if kind not in GRAMMAR[PEER[self.role]][self._theirs]:
            raise RemoteError(CLOSE_PROTOCOL, f"{kind.__name__} is not allowed while {self._theirs.value}")
        if self._theirs is State.OPENING:
            version = getattr(message, "protocol", None)
            if version != PROTOCOL:
                raise RemoteError(
                    CLOSE_PROTOCOL, f"the peer speaks protocol {version}, this side {PROTOCOL}: update the older one"
                )
            self._theirs = State.OPEN

    def send(self, messages: Sequence[Message]) -> bytes:
        """Pack messages that this role may say now.

        Raises
        ------
        LocalError
            A message is not allowed now: a bug on our side.
        """
        for message in messages:
            self._allow(type(message))
        return codec.encode_packet(messages)

    def forward(self, encoded: Sequence[bytes]) -> bytes:
        """Pack messages that are encoded already, such as records of a run log; only once both sides have greeted."""
        if not self.open:
            raise LocalError("nothing can be forwarded before both sides have greeted")
        return codec.join(encoded)

    def _allow(self, kind: type[Message]) -> None:
        if kind not in GRAMMAR[self.role][self._ours]:
            raise LocalError(f"{self.role.value} may not say {kind.__name__} while {self._ours.value}")
        if self._ours is State.OPENING:
            if self.role not in _SPEAKS_FIRST and self._theirs is State.OPENING:
                raise LocalError(f"{self.role.value} answers a greeting, it does not speak first")
            self._ours = State.OPEN

    def tick(self, *, now: float) -> None:
        """Look at the clock: queue a ping when it is due.

        Raises
        ------
        RemoteError
            The peer has been silent for too long.
        """
        if now - self._heard >= self._silence:
            raise RemoteError(CLOSE_SILENT, f"nothing was heard for {self._silence:g} s")
        if now - self._pinged >= self._heartbeat:
            # Also where there is nobody to ping yet, or the next look would be due at once, again and again.
            self._pinged = now
            if self.open:
                self._outbox.append(codec.encode_packet([Ping(time=now)]))

    def next_tick(self) -> float:
        """Tell when `tick` should be called next."""
        return min(self._heard + self._silence, self._pinged + self._heartbeat)

    def data_to_send(self) -> list[bytes]:
        """Give the packets that wait to be sent, and forget them."""
        packets, self._outbox = self._outbox, []
        return packets
