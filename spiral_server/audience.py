"""When viewers are sent what: at once after a pause or when a person waits for it, else once in a tick.

The rules of who gets what stand in `live.channel`; this holds the timers, one for each run and none while nothing
happens. All methods run on one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from spiral_core.wire import codec
from spiral_core.wire.messages import Frame, Logged, Message, RunsListed
from spiral_server.comparing import Comparisons
from spiral_server.live.channel import Channel, Outlet, Parcel
from spiral_server.live.mailbox import urgent
from spiral_server.live.parties import LiveRun, Viewer
from spiral_server.settings import Pace


@dataclass
class _Rhythm:
    """When a channel was flushed last, and when it will be."""

    last: float = float("-inf")
    due: asyncio.TimerHandle | None = None
    hurry: asyncio.Handle | None = None
    """Set while what a person waits for is about to leave, ahead of the rest."""


class Audience:
    """All viewers.

    Parameters
    ----------
    pace : Pace
        Times that conversations keep.
    refresh : callable
        Shows a viewer its run anew.
    comparisons : Comparisons
        What viewers compare.
    """

    def __init__(self, pace: Pace, refresh: Callable[[Viewer], object], comparisons: Comparisons) -> None:
        self._pace = pace
        self.comparisons = comparisons
        self._refresh = refresh
        self._rhythms: dict[Channel[Viewer], _Rhythm] = {}
        self.viewers: set[Viewer] = set()

    # --- viewers come and go

    def arrive(self, outlet: Outlet) -> Viewer:
        """Take in a viewer."""
        viewer = Viewer(outlet)
        self.viewers.add(viewer)
        return viewer

    def depart(self, viewer: Viewer) -> None:
        """Let a viewer go."""
        viewer.gone = True
        self.viewers.discard(viewer)
        self.detach(viewer)
        self.comparisons.leave(viewer)

    def dismiss(self, live: LiveRun) -> None:
        """Show a run to nobody any more."""
        for viewer in [viewer for viewer in self.viewers if viewer.live is live]:
            self.detach(viewer)

    def attach(self, viewer: Viewer, live: LiveRun) -> None:
        """Let a viewer wait for the snapshot of a run; deltas are kept for it meanwhile."""
        self.detach(viewer)
        viewer.live = live
        live.channel.emptied_at = None
        live.channel.join(viewer)

    def detach(self, viewer: Viewer) -> None:
        """Show a viewer no run any more."""
        if viewer.live is None:
            return
        channel = viewer.live.channel
        channel.leave(viewer)
        viewer.live = None
        if not channel.watched:
            channel.emptied_at = asyncio.get_running_loop().time()
            rhythm = self._rhythms.pop(channel, None)
            if rhythm is not None and rhythm.due is not None:
                rhythm.due.cancel()

    def open(self, viewer: Viewer, parcels: Iterable[Parcel], cursor: int) -> None:
        """Send the snapshot, or what was missed, and then what follows."""
        viewer.open_with(parcels, cursor)
        self.ready(viewer)

    @property
    def merged(self) -> int:
        """Frames merged for those who are here: for each that is behind, and for all that keep up together."""
        channels = {viewer.live.channel for viewer in self.viewers if viewer.live is not None}
        return sum(viewer.mailbox.merged for viewer in self.viewers) + sum(channel.merged for channel in channels)

    # --- what is said

    def announce(self, listed: RunsListed, viewers: Iterable[Viewer] | None = None) -> None:
        """Send the list of runs, to everybody unless told otherwise."""
        parcel = Parcel(codec.join([codec.encode(listed)]))
        for viewer in self.viewers if viewers is None else viewers:
            viewer.announce(parcel)

    def tell(self, live: LiveRun, message: Message, data: bytes | None = None) -> None:
        """Send a message to those who watch a run, and keep it for those who may come back."""
        channel = live.channel
        if isinstance(message, Logged) and message.incarnation != channel.incarnation:
            self._turn(channel, message.incarnation)
        if isinstance(message, Frame):
            self.comparisons.add(live.view, message)
        if not channel.watched and self._deserted(channel):
            channel.skip()
            return
        channel.post(message, codec.encode(message) if data is None else data)
        if channel.watched:
            self._schedule(channel, urgent=urgent(message))

    def _turn(self, channel: Channel[Viewer], incarnation: int) -> None:
        # Steps begin anew: frames of before must not come after frames of now, whatever way they take.
        known, channel.incarnation = channel.incarnation, incarnation
        if known is None:
            return
        self.comparisons.turned(channel.run)
        channel.flush()
        channel.forget()
        for viewer in channel.behind:
            self._refresh(viewer)

    def _deserted(self, channel: Channel[Viewer]) -> bool:
        emptied = channel.emptied_at
        return emptied is None or asyncio.get_running_loop().time() - emptied > self._pace.resume

    def _schedule(self, channel: Channel[Viewer], *, urgent: bool) -> None:
        rhythm = self._rhythms.get(channel)
        if rhythm is None:
            rhythm = self._rhythms[channel] = _Rhythm()
        if urgent and rhythm.hurry is None:
            rhythm.hurry = asyncio.get_running_loop().call_soon(self._hurry, channel, rhythm)
        if not urgent and rhythm.due is None:
            loop = asyncio.get_running_loop()
            at = max(loop.time(), rhythm.last + self._pace.tick)
            rhythm.due = loop.call_at(at, self._flush, channel, rhythm)

    def urge(self, live: LiveRun) -> None:
        """Send what a person waits for now, before other work is begun."""
        rhythm = self._rhythms.get(live.channel)
        if rhythm is not None and rhythm.hurry is not None:
            rhythm.hurry.cancel()
            self._hurry(live.channel, rhythm)

    def _hurry(self, channel: Channel[Viewer], rhythm: _Rhythm) -> None:
        rhythm.hurry = None
        channel.hurry()

    def _flush(self, channel: Channel[Viewer], rhythm: _Rhythm) -> None:
        rhythm.due = None
        rhythm.last = asyncio.get_running_loop().time()
        channel.flush()

    def ready(self, viewer: Viewer) -> None:
        """Send what waits for a viewer whose outlet can take more."""
        if viewer.live is not None:
            viewer.live.channel.catch_up(viewer)
        elif viewer.listing is not None:
            viewer.announce(viewer.listing)
        self.comparisons.ready(viewer)

    # --- pages that nobody sees

    def see(self, viewer: Viewer, *, visible: bool) -> None:
        """Spare a hidden viewer what may be lost; give it what it missed, or a snapshot, once it is visible again."""
        if visible == viewer.visible:
            return
        live = viewer.live
        if not visible:
            if live is not None:
                live.channel.hide(viewer)
            viewer.visible = False
            return
        viewer.visible = True
        self.comparisons.ready(viewer)
        if live is None:
            return
        missed = live.channel.since(viewer.cursor, reliable=False) if viewer.opened else None
        if missed is None:
            self._refresh(viewer)
        else:
            self.open(viewer, missed, live.channel.number)
