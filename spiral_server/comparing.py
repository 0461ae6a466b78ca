"""Viewers that compare runs: reads the curves, then sends new points on a slow tick.

The rules stand in `live.comparison`. All methods run on one event loop; curves are read on threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from spiral_core.wire.messages import Compare, Frame
from spiral_server.live.channel import Parcel
from spiral_server.live.comparison import PENDING_FRAMES, Comparison, Subject, subject_of
from spiral_server.live.parties import Viewer
from spiral_server.live.run_view import RunView
from spiral_server.live.snapshot import points_for
from spiral_server.store.errors import StoreError, UnknownRunError
from spiral_server.store.protocol import SeriesQuery, SeriesRead


class Runs(Protocol):
    """What is asked of the runs."""

    def knows(self, run: str) -> bool:
        """Whether there is such a run."""

    async def view(self, run: str) -> RunView:
        """Give the view of a run."""

    async def series(self, run: str, query: SeriesQuery) -> SeriesRead:
        """Read points of a run's series."""

    def unreadable(self, run: str, reason: str) -> None:
        """Take note that a run cannot be read."""


class Comparisons:
    """All that is being compared.

    Parameters
    ----------
    runs : Runs
        Whom to ask.
    tick : float
        Seconds between two packets of points.
    start : callable
        Runs a coroutine beside everything else.
    """

    def __init__(self, runs: Runs, tick: float, start: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        self._runs = runs
        self._tick = tick
        self._start = start
        self._known: dict[Subject, Comparison] = {}
        self._timers: dict[Comparison, asyncio.TimerHandle] = {}

    async def compare(self, viewer: Viewer, compare: Compare) -> None:
        """Show a viewer the runs that it compares, instead of what it compared before.

        Raises
        ------
        RemoteError
            Too much at once.
        """
        subject = subject_of(compare)
        self.leave(viewer)
        if viewer.gone or not (compare.runs and compare.series):
            return
        comparison = self._known.setdefault(subject, Comparison(subject))
        viewer.compares, viewer.comparison = compare, comparison
        comparison.join(viewer)
        parcels: list[Parcel] = []
        for run in comparison.runs:
            if self._runs.knows(run):
                try:
                    parcels.append(await self._read(comparison, run, compare.width))
                except UnknownRunError:
                    # It has been deleted meanwhile.
                    continue
                except StoreError as error:
                    self._runs.unreadable(run, str(error))
        if viewer.compares is compare:
            comparison.open_with(viewer, parcels)

    async def _read(self, comparison: Comparison, run: str, width: int) -> Parcel:
        view = await self._runs.view(run)
        indices = comparison.indices(view.series)
        query = SeriesQuery(frozenset(indices), None, None, points_for(width))
        read = await self._runs.series(run, query)
        return comparison.compared(view.summary, read.columns, indices)

    def leave(self, viewer: Viewer) -> None:
        """Compare nothing for a viewer any more."""
        comparison, viewer.comparison, viewer.compares = viewer.comparison, None, None
        if comparison is None:
            return
        comparison.leave(viewer)
        if not comparison.watched:
            self._known = {subject: known for subject, known in self._known.items() if known is not comparison}
            timer = self._timers.pop(comparison, None)
            if timer is not None:
                timer.cancel()

    def ready(self, viewer: Viewer) -> None:
        """Send what waits for a viewer, or everything anew where something had to be forgotten."""
        compare, comparison = viewer.compares, viewer.comparison
        if compare is not None and comparison is not None and comparison.catch_up(viewer):
            self._start(self.compare(viewer, compare))

    def add(self, view: RunView, frame: Frame) -> None:
        """Take note of a frame."""
        for comparison in self._known.values():
            if view.run in comparison.runs:
                comparison.add(frame, view.series)
                if comparison.pending >= PENDING_FRAMES:
                    self._flush(comparison)
                elif comparison not in self._timers:
                    loop = asyncio.get_running_loop()
                    self._timers[comparison] = loop.call_later(self._tick, self._flush, comparison)

    def _flush(self, comparison: Comparison) -> None:
        timer = self._timers.pop(comparison, None)
        if timer is not None:
            timer.cancel()
        comparison.flush()
        # Those who could not take something may be able to by now.
        for reader in comparison.readers:
            if isinstance(reader, Viewer):
                self.ready(reader)

    def turned(self, run: str) -> None:
        """Show everything anew where a run begins again at a checkpoint: steps come twice then."""
        for comparison in self._known.values():
            if run in comparison.runs:
                for viewer in comparison.readers:
                    if isinstance(viewer, Viewer) and viewer.compares is not None:
                        self._start(self.compare(viewer, viewer.compares))
