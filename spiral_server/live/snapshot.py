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
from spiral_server.live.decimation import MIN_POINTS, Points, decimate, in_order
from spiral_server.live.merging import column, columns_of
from spiral_server.live.run_view import RunView

INLINE_BYTES = 1024 * 1024
"""A probe batch or heat maps beyond this follow the snapshot as messages of their own: a message has a size limit."""
COLUMN_BYTES = 4 * 1024 * 1024
"""All columns of a snapshot: more than 131 curves are drawn coarser, and refined where a person zooms."""
POINT_BYTES = 16
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


def snapshot_of(view: RunView, epoch: str, number: int) -> tuple[Snapshot, list[Message]]:
    """Take the state of a run, without columns; and what is too large to be part of it and must follow.

    ``epoch`` and ``number`` tell which delta the state includes last.
    """
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
        epoch=epoch,
        number=number,
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
    """Fill in the columns, so many points of each that all together stay a message, and pack the snapshot."""
    most = max(MIN_POINTS, COLUMN_BYTES // (POINT_BYTES * max(1, len(columns))))
    filled: list[Column] = [column(index, _within(points, most)) for index, points in sorted(columns.items())]
    return codec.encode(msgspec.structs.replace(snapshot, columns=filled))


def _within(points: Points, most: int) -> Points:
    if len(points.steps) <= most:
        return points
    fewer = decimate(points.steps, points.values, most, nonfinite=most)
    return Points(fewer.steps, fewer.values, True)


def listing(summaries: Iterable[RunSummary]) -> list[RunSummary]:
    """Order runs, newest first."""
    return sorted(summaries, key=lambda summary: (summary.created, summary.id), reverse=True)


def listed(summaries: Iterable[RunSummary]) -> RunsListed:
    """Make the list that viewers are sent."""
    return RunsListed(runs=listing(summaries)[:RUNS_LISTED])


def unplugged(summary: RunSummary) -> RunSummary:
    """Give a line of a run that nobody is connected for."""
    status = summary.status if summary.status in FINAL_STATUSES else "lost"
    return msgspec.structs.replace(summary, connected=False, status=status)
