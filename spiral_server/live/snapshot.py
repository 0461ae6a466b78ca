"""The whole state of a run for a viewer that begins to watch it, and the line of the list of runs.

Takes what a `RunView` holds and the points that the store has read; reads neither by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from spiral_core.wire import codec
from spiral_core.wire.limits import SNAPSHOT_POINTS
from spiral_core.wire.messages import Frame, Message, RunsListed, Snapshot
from spiral_core.wire.parts import FINAL_STATUSES, Column, RunSummary
from spiral_server.live.decimation import Points, decimate, in_order
from spiral_server.live.merging import column, columns_of
from spiral_server.live.run_view import RunView

INLINE_BYTES = 1024 * 1024
"""A probe batch or heat maps beyond this follow the snapshot as messages of their own: a message has a size limit."""
RUNS_LISTED = 1000
"""Newest runs in the list that viewers are sent."""
NARROWEST, WIDEST = 50, 10_000
"""Chart widths in pixels that are taken at their word."""


def points_for(width: int, most: int = SNAPSHOT_POINTS) -> int:
    """Give the number of points for a chart of this width: two for each pixel column."""
    return min(most, 2 * min(max(width, NARROWEST), WIDEST))


def with_tail(
    stored: Mapping[int, Points], tail: Sequence[Frame], *, indices: frozenset[int] | None, points: int
) -> dict[int, Points]:
    """Add frames that are not on disk yet to points that were read from there."""
    together = dict(stored)
    for index, (steps, values) in columns_of(tail).items():
        if indices is None or index in indices:
            old = stored.get(index)
            parts = [(steps, values)] if old is None else [(old.steps, old.values), (steps, values)]
            joined = decimate(*in_order(parts), points)
            reduced = joined.reduced or (old is not None and old.reduced)
            together[index] = Points(joined.steps, joined.values, reduced)
    return together


def snapshot_of(view: RunView) -> tuple[Snapshot, list[Message]]:
    """Take the state of a run, without columns; and what is too large to be part of it and must follow."""
    after: list[Message] = []
    probe, heat_maps = view.probe, view.newest_heat_maps
    if probe is not None and len(probe.images.data) + len(probe.masks.data if probe.masks else b"") > INLINE_BYTES:
        after.append(probe)
        probe = None
    if heat_maps is not None and len(heat_maps.maps.data) > INLINE_BYTES:
        after.append(heat_maps)
        heat_maps = None
    snapshot = Snapshot(
        run=view.summary,
        incarnation=view.incarnation,
        seq=view.seq,
        rev=view.rev,
        started=view.started,
        status=view.status,
        series=list(view.series.values()),
        columns=[],
        knobs=list(view.knobs.values()),
        guards=view.guards,
        thinned=view.thinned,
        commands=view.ledger.newest(),
        probe=probe,
        heat_maps=heat_maps,
        strips=list(view.strips.values()),
        checkpoints=list(view.checkpoints.values()),
    )
    return snapshot, after


def encoded(snapshot: Snapshot, columns: Mapping[int, Points]) -> bytes:
    """Fill in the columns and pack the snapshot."""
    filled: list[Column] = [column(index, points) for index, points in sorted(columns.items())]
    return codec.encode(msgspec.structs.replace(snapshot, columns=filled))


def listing(summaries: Iterable[RunSummary]) -> list[RunSummary]:
    """Order runs, newest first."""
    return sorted(summaries, key=lambda summary: (summary.created, summary.id), reverse=True)


def listed(summaries: Iterable[RunSummary]) -> RunsListed:
    """Make the list that viewers are sent."""
    return RunsListed(runs=listing(summaries)[:RUNS_LISTED])


def notable(summary: RunSummary) -> tuple[object, ...]:
    """Give what everybody is told of when it changes."""
    return (summary.status, summary.connected, summary.name, summary.trouble)


def unplugged(summary: RunSummary) -> RunSummary:
    """Give a line of a run that nobody is connected for."""
    status = summary.status if summary.status in FINAL_STATUSES else "lost"
    return msgspec.structs.replace(summary, connected=False, status=status, trouble="")
