"""What waits for one viewer: bounded, and honest about what was merged.

Three lanes. *Reliable*: acknowledgements, command records, statuses, declarations; never dropped, and a viewer that
lets them pile up is closed. *Latest*: heat maps, strips and the like, where a newer one makes the older one worthless.
*Frames*: kept one by one up to a bound, beyond it merged with minimum and maximum kept.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from spiral_core.wire import codec
from spiral_core.wire.messages import (
    Ack,
    CommandRecord,
    Frame,
    HeatMaps,
    Merged,
    Message,
    ProbeBatch,
    RunChanged,
    RunsListed,
    Strip,
    Tick,
)
from spiral_server.live.merging import MergedFrames

FRAME_BOUND = 240
"""Frames kept one by one: eight ticks of an engine that makes 900 steps a second."""
RELIABLE_BOUND = 2000
"""Messages that must not be dropped; a page that has not read so many is not looking."""
RELIABLE_BYTES = 4 * 1024 * 1024
"""The same bound in bytes."""
PACKET_BYTES = 1024 * 1024
"""A packet of deltas is closed at this size, so that one message over it still fits the limit of a packet."""


class Lane(Enum):
    """How messages of a kind are kept."""

    RELIABLE = "reliable"
    LATEST = "latest"
    FRAMES = "frames"


LANES: dict[type[Message], Lane] = {
    Frame: Lane.FRAMES,
    HeatMaps: Lane.LATEST,
    Strip: Lane.LATEST,
    ProbeBatch: Lane.LATEST,
    RunsListed: Lane.LATEST,
}
"""Every kind that is not named here is reliable."""

URGENT: frozenset[type[Message]] = frozenset({Ack, CommandRecord, RunChanged, RunsListed})
"""A person waits for these: they do not wait for the tick."""


def _key(message: Message) -> tuple[str, ...]:
    match message:
        case HeatMaps():
            return ("heat-maps", message.method, message.layer)
        case Strip():
            return ("strip", message.name)
        case _:
            return (type(message).__name__,)


class Mailbox:
    """Messages that wait for one viewer.

    Parameters
    ----------
    frame_bound, reliable_bound, reliable_bytes
        See the constants of this module.
    """

    def __init__(
        self,
        *,
        frame_bound: int = FRAME_BOUND,
        reliable_bound: int = RELIABLE_BOUND,
        reliable_bytes: int = RELIABLE_BYTES,
    ) -> None:
        self._frame_bound = frame_bound
        self._reliable_bound = reliable_bound
        self._reliable_bytes = reliable_bytes
        self.run = ""
        self.merged = 0
        """Frames of this watch that were merged."""
        self._number = 0
        self._listing: bytes | None = None
        self._opening: list[bytes] | None = []
        self._forget()

    def _forget(self) -> None:
        self._reliable: deque[bytes] = deque()
        self._bytes = 0
        self._latest: dict[tuple[str, ...], bytes] = {}
        self._frames: deque[tuple[Frame, bytes]] = deque()
        self._merged_frames = MergedFrames()
        self.urgent = self._listing is not None

    def watch(self, run: str) -> None:
        """Begin to collect the deltas of a run; they are held back until its snapshot is there."""
        self.run, self.merged, self._number = run, 0, 0
        self._opening = None
        self._forget()

    def open_with(self, snapshot: list[bytes]) -> None:
        """Give the snapshot; each part is one encoded message and makes a packet of its own."""
        self._opening = list(snapshot)
        self.urgent = True

    @property
    def pending(self) -> bool:
        """Whether a packet can be drawn now."""
        if self._listing is not None or self._opening:
            return True
        return self._opening is not None and self._deltas

    @property
    def _deltas(self) -> bool:
        return bool(self._reliable or self._latest or self._frames or self._merged_frames)

    @property
    def depth(self) -> int:
        """Number of messages that wait; merged frames count as one."""
        return len(self._reliable) + len(self._latest) + len(self._frames) + bool(self._merged_frames)

    @property
    def overflowed(self) -> bool:
        """Whether the reliable lane has outgrown its bound: the viewer is too slow and must be closed."""
        return len(self._reliable) > self._reliable_bound or self._bytes > self._reliable_bytes

    def put(self, message: Message, data: bytes) -> None:
        """Add a message, given together with its encoding; one encoding serves all viewers."""
        kind = type(message)
        if isinstance(message, RunsListed):
            self._listing = data
        elif isinstance(message, Frame):
            self._frames.append((message, data))
            if len(self._frames) > self._frame_bound:
                self._merge()
        elif LANES.get(kind) is Lane.LATEST:
            self._latest[_key(message)] = data
        else:
            self._reliable.append(data)
            self._bytes += len(data)
        if kind in URGENT:
            self.urgent = True

    def _merge(self) -> None:
        self._merged_frames.add([frame for frame, _ in self._frames])
        self.merged += len(self._frames)
        self._frames.clear()

    def drain(self, limit: int = PACKET_BYTES) -> list[bytes]:
        """Draw the encoded messages of the next packet; empty when nothing is pending.

        The list of runs and the snapshot come as packets of their own; deltas open with a `Tick`.
        """
        if self._listing is not None:
            listing, self._listing = self._listing, None
            self.urgent = bool(self._opening) or self._waits_urgently()
            return [listing]
        if self._opening is None:
            return []
        if self._opening:
            return [self._opening.pop(0)]
        if not self._deltas:
            self.urgent = False
            return []
        self._number += 1
        packet = [codec.encode(Tick(run=self.run, number=self._number, merged=self.merged))]
        room = limit
        while room > 0 and (data := self._next()) is not None:
            packet.append(data)
            room -= len(data)
        self.urgent = self._waits_urgently()
        return packet

    def _waits_urgently(self) -> bool:
        # What is left over by the limit of a packet has waited long enough.
        return self._opening is not None and bool(self._reliable)

    def _next(self) -> bytes | None:
        """Take the next delta: reliable ones first, for frames refer to series declared in them."""
        if self._reliable:
            data = self._reliable.popleft()
            self._bytes -= len(data)
            return data
        if self._merged_frames:
            step, time = self._merged_frames.step, self._merged_frames.time
            return codec.encode(Merged(run=self.run, step=step, time=time, columns=self._merged_frames.take()))
        if self._frames:
            return self._frames.popleft()[1]
        if self._latest:
            return self._latest.pop(next(iter(self._latest)))
        return None
