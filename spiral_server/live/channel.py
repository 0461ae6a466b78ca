"""What the viewers of one run are told: numbered, packed once for all, and kept a while for those who come back.

A viewer is *abreast* when it has everything that was sent; it gets the packet that all others get, the same bytes. One
that could not take a packet falls *behind*: what follows waits in a mailbox of its own until it has caught up. Nobody
waits for it.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from spiral_core.wire import codec
from spiral_core.wire.limits import CLOSE_TOO_SLOW
from spiral_core.wire.messages import Message, Resumed, Tick
from spiral_server.live.mailbox import PACKET_BYTES, Key, Lane, Mailbox, key_of, lane_of

RECENT_BYTES = 2 * 1024 * 1024
"""Deltas kept for viewers that come back: three minutes of 20 frames of 500 bytes a second."""
RECENT_COUNT = 20_000
"""The same bound in messages, because small ones take more room in memory than on the wire."""


class Parcel:
    """A packet on its way to many viewers, and what the roads there have wrapped around it, once for each road."""

    __slots__ = ("_wrapped", "packet")

    def __init__(self, packet: bytes) -> None:
        self.packet = packet
        self._wrapped: dict[str, bytes] = {}

    def wrapped(self, road: str, wrap: Callable[[bytes], bytes]) -> bytes:
        """Give the packet as a road carries it."""
        known = self._wrapped.get(road)
        if known is None:
            known = self._wrapped[road] = wrap(self.packet)
        return known


class Outlet(Protocol):
    """Where packets for one viewer leave."""

    @property
    def ready(self) -> bool:
        """Whether a packet would leave at once."""

    def send(self, parcel: Parcel) -> None:
        """Send a packet without waiting; only while ready, or little memory is safe."""

    def leave(self, code: int, reason: str) -> None:
        """Ask for the connection to be closed; the first reason counts."""


class Reader:
    """One viewer as a channel sees it."""

    def __init__(self, outlet: Outlet) -> None:
        self.outlet = outlet
        self.mailbox = Mailbox()
        self.visible = True
        self.opened = False
        """Whether the snapshot has been handed over; until then deltas wait."""
        self.cursor = 0
        """Number of the last delta that this viewer has in full, with all before it, while it is behind."""
        self.listing: Parcel | None = None
        """The list of runs, where it could not be sent yet; the newest is enough."""
        self.parcels: deque[Parcel] = deque()
        """Packets that come before what is in the mailbox."""

    def take(self, parcels: Iterable[Parcel]) -> bool:
        """Send packets, and keep in their order those that cannot leave now; False where there are any."""
        for parcel in parcels:
            if self.outlet.ready and not self.parcels:
                self.outlet.send(parcel)
            else:
                self.parcels.append(parcel)
        return not self.parcels

    def announce(self, parcel: Parcel) -> None:
        """Send the list of runs now or as soon as may be."""
        if self.outlet.ready:
            self.listing = None
            self.outlet.send(parcel)
        else:
            self.listing = parcel

    def open_with(self, parcels: Iterable[Parcel], cursor: int) -> None:
        """Hand over the snapshot, or what was missed; deltas follow."""
        self.parcels.extend(parcels)
        self.cursor = cursor
        self.opened = True

    def close(self) -> None:
        """Forget what waits: another run is going to be watched, or another snapshot comes."""
        self.opened = False
        self.parcels.clear()
        self.mailbox.clear()

    def put(self, message: Message, data: bytes) -> None:
        """Keep a delta; a viewer that lets too much pile up must go, one that is hidden is spared what may be lost."""
        if not self.visible and lane_of(message) is not Lane.RELIABLE:
            return
        self.mailbox.put(message, data)
        if self.mailbox.overflowed:
            self.outlet.leave(CLOSE_TOO_SLOW, "this viewer reads too slowly; it may come back")

    @property
    def settled(self) -> bool:
        """Whether this viewer has everything and wants everything."""
        waits = self.parcels or self.listing is not None or self.mailbox.pending
        return self.opened and self.visible and not waits


@dataclass(slots=True)
class _Delta:
    number: int
    reliable: bool
    key: Key | None
    data: bytes | None
    """None once a newer one has made it worthless."""


AnyReader = TypeVar("AnyReader", bound=Reader)


class Channel(Generic[AnyReader]):
    """The deltas of one run, and who gets them.

    Parameters
    ----------
    run : str
        Id of the run.
    """

    def __init__(self, run: str) -> None:
        self.run = run
        self.epoch = secrets.token_hex(4)
        self.number = 0
        """Of the last delta."""
        self.incarnation: int | None = None
        """Of the engine whose messages these are."""
        self.packed = 0
        """Packets made for all viewers that keep up."""
        self.emptied_at: float | None = None
        """When the last viewer went."""
        self._front = Mailbox()
        self._abreast: set[AnyReader] = set()
        self._behind: set[AnyReader] = set()
        self._recent: deque[_Delta] = deque()
        self._newest: dict[Key, _Delta] = {}
        self._recent_bytes = 0
        self._base = 0
        """Number of the last delta that is no longer kept."""
        self._complete = 0
        """Number of the last delta that those abreast were sent."""

    @property
    def readers(self) -> set[AnyReader]:
        """Everybody who watches this run."""
        return self._abreast | self._behind

    @property
    def merged(self) -> int:
        """Frames that were merged for all who keep up, because they came too fast."""
        return self._front.merged

    @property
    def watched(self) -> bool:
        """Whether anybody watches."""
        return bool(self._abreast or self._behind)

    @property
    def behind(self) -> list[AnyReader]:
        """Those who have not got everything."""
        return list(self._behind)

    def join(self, reader: AnyReader) -> None:
        """Take in a viewer, whose snapshot comes later: what is posted from now on waits for it."""
        self.leave(reader)
        reader.close()
        self._behind.add(reader)

    def leave(self, reader: AnyReader) -> None:
        """Let a viewer go."""
        self._abreast.discard(reader)
        self._behind.discard(reader)
        if not self._abreast:
            self._front.clear()

    def post(self, message: Message, data: bytes) -> None:
        """Add a delta."""
        self.number += 1
        if self._abreast:
            self._front.put(message, data)
        for reader in self._behind:
            reader.put(message, data)
        self._keep(_Delta(self.number, lane_of(message) is Lane.RELIABLE, key_of(message), data), len(data))

    def _keep(self, delta: _Delta, size: int) -> None:
        self._recent.append(delta)
        self._recent_bytes += size
        if delta.key is not None:
            older = self._newest.get(delta.key)
            if older is not None and older.data is not None:
                self._recent_bytes -= len(older.data)
                older.data = None
            self._newest[delta.key] = delta
        while self._recent and (self._recent_bytes > RECENT_BYTES or len(self._recent) > RECENT_COUNT):
            old = self._recent.popleft()
            self._base = old.number
            if old.data is not None:
                self._recent_bytes -= len(old.data)
                old.data = None

    def forget(self) -> None:
        """Keep nothing of the past: who comes back gets a snapshot."""
        self._recent.clear()
        self._newest.clear()
        self._recent_bytes = 0
        self._base = self.number

    def skip(self) -> None:
        """Count a delta that nobody is there for."""
        self.number += 1
        self.forget()

    def hurry(self) -> None:
        """Send what must not be dropped ahead of the rest, where everybody who keeps up can take it now.

        A page that has twenty frames to read first hears of a command later.
        """
        if not all(reader.outlet.ready and not reader.parcels for reader in self._abreast):
            self.flush()
            return
        parcels = list(self._parcels(reliable=True))
        for reader in self._abreast:
            reader.take(parcels)
        for reader in list(self._behind):
            self.catch_up(reader)

    def flush(self) -> None:
        """Send what has been posted since the last time."""
        parcels = list(self._parcels())
        for reader in list(self._abreast) if parcels else ():
            if not reader.take(parcels):
                reader.cursor = self.number
                self._abreast.discard(reader)
                self._behind.add(reader)
        for reader in list(self._behind):
            self.catch_up(reader)

    def _parcels(self, *, reliable: bool = False) -> Iterable[Parcel]:
        while deltas := self._front.drain(PACKET_BYTES, reliable=reliable):
            self.packed += 1
            # Where something is left in the mailbox the number is not complete: that may be older than what went.
            number = self.number if not self._front.pending else self._complete
            yield self._packed(number, deltas)
        if not self._front.pending:
            self._complete = self.number

    def _packed(self, number: int, deltas: list[bytes]) -> Parcel:
        return Parcel(codec.join([codec.encode(Tick(run=self.run, number=number)), *deltas]))

    def catch_up(self, reader: AnyReader) -> None:
        """Send what waits for a viewer that is behind, as far as it can leave now."""
        while reader.outlet.ready:
            if reader.listing is not None:
                parcel, reader.listing = reader.listing, None
            elif reader.parcels:
                parcel = reader.parcels.popleft()
            elif reader.opened and (deltas := reader.mailbox.drain(PACKET_BYTES)):
                if reader.visible and not reader.mailbox.pending:
                    reader.cursor = self.number
                parcel = self._packed(reader.cursor, deltas)
            else:
                break
            reader.outlet.send(parcel)
        # What the others are about to be sent, this viewer has already.
        if reader.settled and not self._front.pending and reader in self._behind:
            self._behind.discard(reader)
            self._abreast.add(reader)
            self._complete = self.number

    def hide(self, reader: AnyReader) -> None:
        """Send a viewer nothing but what must not be lost."""
        if not reader.visible:
            return
        if reader in self._abreast:
            self.flush()
        if reader in self._abreast:
            self._abreast.discard(reader)
            self._behind.add(reader)
            reader.cursor = self.number
        reader.visible = False
        reader.mailbox.clear_transient()

    def since(self, number: int, *, reliable: bool = True) -> list[Parcel] | None:
        """Pack all deltas after a number, the worthless left out; None where not all of them are kept.

        Without ``reliable`` those that are never dropped are left out, for a viewer that got them.
        """
        if not self._base <= number <= self.number:
            return None
        missed = [delta for delta in self._recent if delta.number > number and (reliable or not delta.reliable)]
        parcels: list[Parcel] = []
        batch: list[bytes] = []
        size = 0
        for delta in missed:
            if delta.data is None:
                continue
            batch.append(delta.data)
            size += len(delta.data)
            if size > PACKET_BYTES:
                parcels.append(self._packed(delta.number if reliable else number, batch))
                batch, size = [], 0
        parcels.append(self._packed(self.number if reliable else number, batch))
        return parcels

    def resumed(self, number: int, epoch: str) -> list[Parcel] | None:
        """Give what a viewer missed that had everything up to a number; None where it needs a snapshot."""
        missed = self.since(number) if epoch == self.epoch else None
        if missed is None:
            return None
        return [Parcel(codec.join([codec.encode(Resumed(run=self.run, since=number))])), *missed]
