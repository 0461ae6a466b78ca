"""Who takes part in a run: its engine's courier, and those who watch.

Holds no connection: a `Bell` or an `Outlet` is how a party is reached, and what is behind it is the business of the
routes.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from typing import Protocol

from spiral_core.wire.messages import Compare, Frame, Message, Stored, Watch
from spiral_server.live.channel import Channel, Outlet, Reader
from spiral_server.live.commands import command_of
from spiral_server.live.comparison import Comparison
from spiral_server.live.run_view import RunView


class Bell(Protocol):
    """Calls a courier's connection."""

    def ring(self) -> None:
        """Something is there to be sent."""

    def leave(self, code: int, reason: str) -> None:
        """Ask for the connection to be closed; the first reason counts."""


class Viewer(Reader):
    """One page that watches."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__(outlet)
        self.gone = False
        """Whether it has left; what it said last may still be on its way."""
        self.wanted: Watch | None = None
        """What was asked for and is not there yet."""
        self.shown: Watch | None = None
        """What was answered last."""
        self.live: LiveRun | None = None
        self.compares: Compare | None = None
        self.comparison: Comparison | None = None


class EngineLink:
    """The connection of one run's courier."""

    def __init__(self, live: LiveRun, incarnation: int, bell: Bell) -> None:
        self.live = live
        self.incarnation = incarnation
        self.bell = bell
        self.stored = -1
        """Last sequence number on disk."""
        self.told = -1
        """Last one that the courier knows to be there."""
        self.reporting = False
        """Whether it is about to be told of others."""
        self.sent = 0
        """Number of the last command handed out here."""
        self.backlog = 0
        """Bytes that wait for the disk."""
        self.newest: Future[None] = Future()
        """Resolved when the newest of them are there."""

    def take(self) -> list[Message]:
        """Give what the courier is to be told now: each thing once for each connection."""
        messages: list[Message] = []
        if self.stored > self.told:
            self.told = self.stored
            messages.append(Stored(seq=self.stored))
        for record in self.live.view.ledger.unsettled(after=self.sent):
            self.sent = record.number
            messages.append(command_of(record))
        return messages


class LiveRun:
    """A run in memory."""

    def __init__(self, view: RunView) -> None:
        self.view = view
        self.engine: EngineLink | None = None
        self.channel: Channel[Viewer] = Channel(view.run)
        self.tail: deque[Frame] = deque()
        """Frames that are shown already and not on disk yet."""
        self.journaling = 0
        """Commands on their way to the disk."""

    @property
    def idle(self) -> bool:
        """Whether the run can be forgotten and read back from the store."""
        return self.engine is None and not (self.channel.readers or self.tail or self.journaling)

    def kept(self, incarnation: int, seq: int) -> None:
        """Forget the frames that are on disk now."""
        while self.tail and (self.tail[0].incarnation, self.tail[0].seq) <= (incarnation, seq):
            self.tail.popleft()
