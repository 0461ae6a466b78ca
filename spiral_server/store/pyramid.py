"""The pyramid over the blocks of a run: what a far view needs, so that it reads little.

Bytes in, bytes out: knows no database. A node of level 0 sums up one block, one of level L the `FANOUT` ** L blocks
below it: for each series how many points there are, how many of them are not finite and the sum of the others, the
least and the greatest value in each of `BUCKETS` buckets at the steps where they stand, both ends, and points that are
not finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import msgspec
import numpy as np

from spiral_core.arrays import F64, I64
from spiral_core.errors import DecodeError
from spiral_server.live.decimation import apart, decimate_many, in_order, lined_up
from spiral_server.store.blocks import Columns

FANOUT = 4
"""Nodes below a node: a view never gets more than this many times the buckets that it needs."""
BUCKETS = 8
NODE_POINTS = 2 * BUCKETS + 2
"""Points of a series in a node: two of each bucket, and both ends."""
NODE_NONFINITE = 32
"""Points of a series in a node that are not finite."""


class Tally(NamedTuple):
    """How many points a series has, how many of them are not finite, and the sum of the others."""

    points: int
    nonfinite: int
    total: float


class Node(NamedTuple):
    """What is known of a stretch of a run, by series."""

    points: Columns
    tallies: dict[int, Tally]


class _Packed(msgspec.Struct, frozen=True, array_like=True):
    index: list[int]
    tallies: list[Tally]
    counts: list[int]
    steps: bytes
    values: bytes


MAX_SERIES = 1 << 31
"""Beyond every index of a series; frames have 16 bits for one."""
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Packed)


def summed_up(columns: Columns) -> Node:
    """Sum up the columns of a block."""
    if not columns:
        return Node({}, {})
    # What is not finite makes sums that are not; nobody needs to be warned of that.
    with np.errstate(all="ignore"):
        return _summed_up(columns)


def _summed_up(columns: Columns) -> Node:
    # The steps of most frames, if not of all: beside them stand series that only some frames have.
    first = max((steps for steps, _ in columns.values()), key=len)
    points: Columns = {}
    tallies: dict[int, Tally] = {}
    index = [i for i, (steps, _) in columns.items() if steps is first]
    ascending = bool(np.all(first[1:] > first[:-1]))
    if ascending and len(first) > NODE_POINTS and len(first) % BUCKETS == 0:
        table = np.stack([columns[i][1] for i in index])
        sums = table.sum(axis=1).tolist()
        even = np.logical_and.reduce(np.isfinite(table), axis=1).tolist()
        places = _extremes(table)
        kept = zip(first[places], np.take_along_axis(table, places, axis=1), strict=True)
        for series, pair, whole, total in zip(index, kept, even, sums, strict=True):
            if whole:
                points[series] = pair
                tallies[series] = Tally(len(first), 0, total)
    rest = [series for series in columns if series not in points]
    if rest:
        steps, values, lengths = _ascending([columns[series] for series in rest])
        points |= _reduced(rest, steps, values, lengths)
        tallies |= zip(rest, _tallies(values, lengths), strict=True)
    return Node(points, tallies)


def _ascending(columns: Sequence[tuple[F64, F64]]) -> tuple[F64, F64, I64]:
    """Line up series, the steps of each ascending."""
    steps, values, lengths = lined_up([column] for column in columns)
    rising = steps[1:] > steps[:-1]
    ends = np.cumsum(lengths)[:-1]
    rising[ends[(ends > 0) & (ends < len(steps))] - 1] = True
    if rising.all():
        return steps, values, lengths
    # Of a step that is said twice the later value counts; the earlier one must not be an extreme.
    return lined_up([in_order([column])] for column in columns)


def _reduced(index: Sequence[int], steps: F64, values: F64, lengths: I64) -> Columns:
    """Give the points that a node keeps of series that are lined up."""
    many = decimate_many(steps, values, lengths, NODE_POINTS, nonfinite=NODE_NONFINITE)
    return dict(zip(index, apart(many.steps, many.values, many.lengths.tolist()), strict=True))


def _tallies(values: F64, lengths: I64) -> list[Tally]:
    """Tally series that are lined up, each of them as if it were alone, to the last bit of its sum."""
    finite = np.isfinite(values)
    ends = np.cumsum(lengths)
    odd = np.diff(np.searchsorted(np.flatnonzero(~finite), ends), prepend=0)
    counts = (lengths - odd).tolist()
    values = values[finite]
    sums: list[float] = []
    at = 0
    # NumPy adds up the rows of a table pairwise, as it does single arrays, but not the parts that `reduceat` is given.
    for count, same in groupby(counts):
        rows = len(list(same))
        sums += values[at : at + rows * count].reshape(rows, count).sum(axis=1).tolist()
        at += rows * count
    return [Tally(*numbers) for numbers in zip(lengths.tolist(), odd.tolist(), sums, strict=True)]


def _extremes(table: F64) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Give for each row the places of both ends and of the extremes of each bucket, ascending."""
    rows, width = table.shape
    parts = table.reshape(rows, BUCKETS, -1)
    starts = np.arange(0, width, width // BUCKETS)
    ends = np.broadcast_to(np.array([0, width - 1]), (rows, 2))
    places = np.concatenate([parts.argmin(axis=2) + starts, parts.argmax(axis=2) + starts, ends], axis=1)
    places.sort(axis=1)
    return places


def joined(nodes: Sequence[Node]) -> Node:
    """Sum up nodes that follow one another."""
    index = sorted({series for node in nodes for series in node.points})
    parts = ([node.points[series] for node in nodes if series in node.points] for series in index)
    tallies = {series: _total([node.tallies[series] for node in nodes if series in node.tallies]) for series in index}
    return Node(_reduced(index, *lined_up(parts)), tallies)


def _total(tallies: Sequence[Tally]) -> Tally:
    """Give the tally of all together, older first: the sum depends on the order."""
    points, nonfinite, total = 0, 0, 0.0
    for tally in tallies:
        points += tally.points
        nonfinite += tally.nonfinite
        total += tally.total
    return Tally(points, nonfinite, total)


def pack(node: Node) -> bytes:
    """Pack a node."""
    index = sorted(node.points)
    empty = [np.empty(0)]
    return _encoder.encode(
        _Packed(
            index=index,
            tallies=[node.tallies[series] for series in index],
            counts=[len(node.points[series][0]) for series in index],
            steps=np.concatenate(empty + [node.points[series][0] for series in index]).astype("<f8").tobytes(),
            values=np.concatenate(empty + [node.points[series][1] for series in index]).astype("<f8").tobytes(),
        )
    )


class Flat(NamedTuple):
    """A node as it is packed: the points of its series one behind the other."""

    series: list[int]
    counts: list[int]
    steps: F64
    values: F64
    tallies: list[Tally]


def flat(data: bytes) -> Flat:
    """Unpack a node as far as that is quick.

    Raises
    ------
    DecodeError
        The bytes are no node.
    """
    try:
        packed = _decoder.decode(data)
        steps, values = np.frombuffer(packed.steps, dtype="<f8"), np.frombuffer(packed.values, dtype="<f8")
    except (msgspec.MsgspecError, ValueError) as error:
        raise DecodeError(f"not a node of the pyramid: {error}") from error
    if not len(packed.index) == len(packed.counts) == len(packed.tallies):
        raise DecodeError("not a node of the pyramid: not as many counts as series")
    if min(packed.index, default=0) < 0 or max(packed.index, default=0) >= MAX_SERIES:
        raise DecodeError("not a node of the pyramid: a series has an index that none has")
    if min(packed.counts, default=0) < 0 or not sum(packed.counts) == len(steps) == len(values):
        raise DecodeError("a node of the pyramid has parts of different lengths")
    return Flat(packed.index, packed.counts, steps, values, packed.tallies)


def unpack(data: bytes) -> Node:
    """Unpack a node.

    Raises
    ------
    DecodeError
        The bytes are no node.
    """
    node = flat(data)
    points = dict(zip(node.series, apart(node.steps, node.values, node.counts), strict=True))
    return Node(points, dict(zip(node.series, node.tallies, strict=True)))


def together(nodes: Sequence[Flat]) -> Columns:
    """Join the points of nodes that follow one another."""
    series = np.concatenate([np.repeat(np.array(node.series, dtype=np.int64), node.counts) for node in nodes])
    order = np.argsort(series, kind="stable")
    series = series[order]
    steps = np.concatenate([node.steps for node in nodes])[order]
    values = np.concatenate([node.values for node in nodes])[order]
    starts = np.flatnonzero(np.diff(series, prepend=-1))
    ends = np.append(starts[1:], len(series))
    return {int(series[start]): (steps[start:end], values[start:end]) for start, end in zip(starts, ends, strict=True)}
