"""What waits for a viewer: bounded, and honest about what was merged.

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
    Strip,
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
}
"""Every kind that is not named here is reliable."""

_URGENT: frozenset[type[Message]] = frozenset({Ack, RunChanged})

Key = tuple[str, ...]


def urgent(message: Message) -> bool:
    """Tell whether a person waits for a message, so that it does not wait for the tick.

    That a command is accepted is no news: whoever gave it is answered, and all the others would be told at the very
    moment at which it is on its way to the engine.
    """
    if isinstance(message, CommandRecord):
        return message.state != "accepted"
    return type(message) in _URGENT


def lane_of(message: Message) -> Lane:
    """Tell how a message is kept."""
    return LANES.get(type(message), Lane.RELIABLE)


def key_of(message: Message) -> Key | None:
    """Tell what makes a message worthless: a newer one with the same key. None: nothing does."""
    if lane_of(message) is not Lane.LATEST:
        return None
    match message:
        case HeatMaps():
            return ("heat-maps", message.method, message.layer)
        case Strip():
            return ("strip", message.name)
        case ProbeBatch():
            return ("probe-batch",)
        case _:
            return None


class Mailbox:
    """Deltas of one run that wait.

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
        self.merged = 0
        """Frames that were ever merged here."""
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._reliable: deque[bytes] = deque()
        self._bytes = 0
        self.clear_transient()

    def clear_transient(self) -> None:
        """Forget everything that may be dropped."""
        self._latest: dict[Key, bytes] = {}
        self._frames: deque[tuple[Frame, bytes]] = deque()
        self._merged_frames = MergedFrames()

    @property
    def pending(self) -> bool:
        """Whether anything waits."""
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
        if isinstance(message, Frame):
            self._frames.append((message, data))
            if len(self._frames) > self._frame_bound:
                self._merged_frames.add([frame for frame, _ in self._frames])
                self.merged += len(self._frames)
                self._frames.clear()
            return
        key = key_of(message)
        if key is not None:
            self._latest[key] = data
        else:
            self._reliable.append(data)
            self._bytes += len(data)

    def drain(self, limit: int = PACKET_BYTES, *, reliable: bool = False) -> list[bytes]:
        """Draw the encoded messages of the next packet; empty when nothing is pending.

        ``reliable``: only those that must not be dropped.
        """
        packet: list[bytes] = []
        room = limit
        take = self._next_reliable if reliable else self._next
        while room > 0 and (data := take()) is not None:
            packet.append(data)
            room -= len(data)
        return packet

    def _next_reliable(self) -> bytes | None:
        if not self._reliable:
            return None
        data = self._reliable.popleft()
        self._bytes -= len(data)
        return data

    def _next(self) -> bytes | None:
        """Take the next delta: reliable ones first, for frames refer to series declared in them."""
        if (data := self._next_reliable()) is not None:
            return data
        if self._merged_frames:
            return self._take_merged()
        if self._frames:
            return self._frames.popleft()[1]
        if self._latest:
            return self._latest.pop(next(iter(self._latest)))
        return None

    def _take_merged(self) -> bytes:
        merged = self._merged_frames
        run, step, time, count = merged.run, merged.step, merged.time, merged.count
        return codec.encode(Merged(run=run, step=step, time=time, frames=count, columns=merged.take()))
