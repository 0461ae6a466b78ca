"""Reading a run's curves: what is on disk, and what is shown already and still on its way there, as one."""

from __future__ import annotations

from collections.abc import Callable

from spiral_server.live import snapshot
from spiral_server.live.parties import LiveRun
from spiral_server.store.protocol import RunStore, SeriesQuery, SeriesRead


def reading(store: RunStore, live: LiveRun, query: SeriesQuery) -> Callable[[], SeriesRead]:
    """Prepare to read points as they are now; what is returned may wait for a disk, so call it on a thread."""
    view = live.view
    last = query.last
    if view.frame_step is not None:
        last = view.frame_step if last is None else min(last, view.frame_step)
    first = -1 if query.first is None else query.first
    tail = [frame for frame in live.tail if first <= frame.step and (last is None or frame.step <= last)]
    query = query._replace(last=last)

    def read() -> SeriesRead:
        read = store.series(view.run, query) if store.knows(view.run) else SeriesRead()
        read.columns = snapshot.with_tail(read.columns, tail, indices=query.indices, points=query.points)
        return read

    return read
