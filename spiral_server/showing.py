"""Shows viewers the runs that they ask for: a snapshot or what they missed, then what follows.

A run that cannot be read is said to be in trouble; whoever asked for it goes on with the others. All methods run on one
event loop; what may wait for a disk runs on a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol

from spiral_core.wire import codec
from spiral_core.wire.messages import Watch
from spiral_core.wire.parts import RunSummary
from spiral_server.audience import Audience
from spiral_server.live import snapshot
from spiral_server.live.channel import Parcel
from spiral_server.live.parties import LiveRun, Viewer
from spiral_server.reading import reading
from spiral_server.store.errors import StoreError, UnknownRunError
from spiral_server.store.protocol import RunStore, SeriesQuery


class Runs(Protocol):
    """What is asked of the runs."""

    def summaries(self) -> list[RunSummary]:
        """List the runs, newest first."""

    def knows(self, run: str) -> bool:
        """Whether there is such a run."""

    async def live(self, run: str) -> LiveRun:
        """Give a run, read back from the store where need be."""

    def unreadable(self, run: str, reason: str) -> None:
        """Take note that a run cannot be read."""


class Showing:
    """The way of runs to viewers.

    Parameters
    ----------
    runs : Runs
        Whom to ask.
    store : RunStore
    audience : Audience
    start : callable
        Runs a coroutine beside everything else.
    """

    def __init__(
        self, runs: Runs, store: RunStore, audience: Audience, start: Callable[[Coroutine[Any, Any, None]], object]
    ) -> None:
        self._runs = runs
        self._store = store
        self._audience = audience
        self._start = start

    async def watch(self, viewer: Viewer, watch: Watch) -> None:
        """Show a run to a viewer: the one it asks for, or the newest that can be read.

        A run that does not exist yet, or that cannot be read, is waited for.
        """
        viewer.wanted = watch
        for run in [watch.run] if watch.run else [summary.id for summary in self._runs.summaries()]:
            if not self._runs.knows(run):
                continue
            try:
                await self._show(viewer, watch, run)
            except UnknownRunError:
                # It has been deleted meanwhile.
                self._withdraw(viewer, watch)
            except StoreError as error:
                self._withdraw(viewer, watch)
                self._runs.unreadable(run, str(error))
            if viewer.wanted is not watch or viewer.gone:
                return

    async def _show(self, viewer: Viewer, watch: Watch, run: str) -> None:
        live = await self._runs.live(run)
        if viewer.wanted is not watch or viewer.gone:
            return
        viewer.wanted, viewer.shown = None, watch
        self._audience.attach(viewer, live)
        missed = None if watch.since is None else live.channel.resumed(watch.since, watch.epoch)
        if missed is not None:
            self._audience.open(viewer, missed, live.channel.number)
            return
        cursor = live.channel.number
        state, after = snapshot.snapshot_of(live.view, live.channel.epoch, cursor)
        read = reading(self._store, live, SeriesQuery(None, None, None, snapshot.points_for(watch.width)))
        parts = await asyncio.to_thread(lambda: [snapshot.encoded(state, read().columns), *map(codec.encode, after)])
        # A later watch of the same viewer may have overtaken this one.
        if viewer.live is live and viewer.shown is watch:
            self._audience.open(viewer, [Parcel(codec.join([part])) for part in parts], cursor)

    def _withdraw(self, viewer: Viewer, watch: Watch) -> None:
        """Let a viewer wait again, whose run could not be shown."""
        if viewer.shown is watch:
            viewer.wanted, viewer.shown = watch, None
            self._audience.detach(viewer)

    def refresh(self, viewer: Viewer) -> None:
        """Show a viewer its run anew."""
        if viewer.shown is not None and viewer.live is not None and viewer.wanted is None:
            again = Watch(run=viewer.live.view.run, width=viewer.shown.width)
            self._start(self.watch(viewer, again))

    def invite(self, viewers: Iterable[Viewer]) -> None:
        """Show the run that has just come to those who wait for it."""
        for viewer in viewers:
            if viewer.wanted is not None:
                self._start(self.watch(viewer, viewer.wanted))
