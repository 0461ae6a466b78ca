"""One reading of series: which blocks, in which detail, and what of them holds."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

from spiral_core.arrays import F64
from spiral_core.errors import DecodeError
from spiral_core.wire.messages import Frame
from spiral_server.live.decimation import Points, decimate, in_order
from spiral_server.live.merging import columns_of
from spiral_server.store import pyramid
from spiral_server.store.blocks import Columns, checksum, decode_frame, unpack
from spiral_server.store.marks import read_marks
from spiral_server.store.protocol import Damage, DamageKind, SeriesQuery, SeriesRead

NODE_PAIRS = 2 * pyramid.BUCKETS
"""Points of a node that show extremes."""
OVERSAMPLING = 2
"""A far view reads at least this many times the points that it gives: buckets narrower than those that are drawn."""
FOREVER = 2**62
"""Above every step."""


class BlockRow(NamedTuple):
    """A row of the list of blocks."""

    id: int
    incarnation: int
    first_seq: int
    last_seq: int
    first_step: int
    last_step: int
    frames: int
    ordinal: int
    crc: int

    @property
    def numbers(self) -> tuple[int, ...]:
        """What the checksum of the data covers beside the bytes."""
        return self[1:7]

    @property
    def sound(self) -> bool:
        """Whether the row is what was written."""
        return checksum(b"", self.id, self.ordinal, *self.numbers) == self.crc


class SeriesReading:
    """Reads points of series from one state of a run's database.

    Parameters
    ----------
    run : str
    connection : sqlite3.Connection
        In a transaction.
    query : SeriesQuery
    """

    def __init__(self, run: str, connection: sqlite3.Connection, query: SeriesQuery) -> None:
        self._run = run
        self._connection = connection
        self._query = query
        self._first = -FOREVER if query.first is None else query.first
        self._last = FOREVER if query.last is None else query.last
        self._parts: dict[int, list[tuple[F64, F64]]] = {}
        self._summarised = False
        self._damage: list[Damage] = []

    def read(self) -> SeriesRead:
        """Read, decimate, and report what is damaged."""
        blocks = self._blocks()
        loose = self._loose()
        self._account(blocks, loose)
        ends = _ends(blocks, loose)
        inside = [block for block in blocks if self._overlaps(block, ends)]
        level = self._level(len(inside))
        for incarnation in sorted(ends):
            last = min(self._last, ends[incarnation] - 1)
            own = [block for block in inside if block.incarnation == incarnation]
            frames = [frame for frame in loose.get(incarnation, []) if self._first <= frame.step <= last]
            final = _final(own, min((frame.step for frame in frames), default=FOREVER))
            for columns, whole in self._columns(own, last, level, final):
                self._add(columns, last, whole=whole)
            self._add(columns_of(frames), last)
        return SeriesRead({index: self._points(parts) for index, parts in sorted(self._parts.items())}, self._damage)

    def _overlaps(self, block: BlockRow, ends: dict[int, int]) -> bool:
        return block.last_step >= self._first and block.first_step <= min(self._last, ends[block.incarnation] - 1)

    def _level(self, blocks: int) -> int:
        """Give the level of the pyramid to read, -1 for the blocks themselves."""
        wanted = OVERSAMPLING * self._query.points
        level = -1
        while blocks * NODE_PAIRS >= wanted:
            level += 1
            blocks //= pyramid.FANOUT
        return level

    # --- rows

    def _blocks(self) -> list[BlockRow]:
        """Give the list of blocks; a range cannot be trusted to choose among them before they are looked at."""
        rows = [
            BlockRow(*row)
            for row in self._connection.execute(
                "SELECT id, incarnation, first_seq, last_seq, first_step, last_step, count, ordinal, crc FROM blocks "
                "ORDER BY incarnation, ordinal"
            )
        ]
        sound: list[BlockRow] = []
        for row in rows:
            if row.sound:
                sound.append(row)
            else:
                self._report(row.first_step, row.last_step, f"the entry of block {row.id} does not match", "file")
        return sound

    def _loose(self) -> dict[int, list[Frame]]:
        found: dict[int, list[Frame]] = {}
        for row in self._connection.execute(
            "SELECT incarnation, seq, step, data, crc FROM frames ORDER BY incarnation, seq"
        ):
            frame = decode_frame(*row)
            found.setdefault(row[0], [])
            if frame is not None:
                found[row[0]].append(frame)
            else:
                reason = f"frame {row[1]} does not match its checksum"
                self._report(row[2], row[2], reason, "frame", (row[0], row[1], row[1]))
        return found

    def _account(self, blocks: list[BlockRow], loose: dict[int, list[Frame]]) -> None:
        """Look whether all frames are there that were written, and say which are known to be lost."""
        there: dict[int, int] = {}
        for block in blocks:
            there[block.incarnation] = there.get(block.incarnation, 0) + block.frames
        for incarnation, frames in loose.items():
            there[incarnation] = there.get(incarnation, 0) + len(frames)
        for damage in self._damage:
            if damage.kind == "frame":
                there[damage.incarnation] = there.get(damage.incarnation, 0) + 1
        for row, incarnation, first, last, first_step, last_step, count in self._connection.execute(
            "SELECT rowid, incarnation, first_seq, last_seq, first_step, last_step, count FROM lost"
        ):
            there[incarnation] = there.get(incarnation, 0) + count
            reason = f"frames {first} to {last} did not match their checksum"
            self._report(first_step, last_step, reason, "lost", (incarnation, first, last), row)
        promised = {incarnation: mark.frames for incarnation, mark in read_marks(self._connection).items()}
        for incarnation in sorted(promised.keys() | there.keys()):
            if promised.get(incarnation) != there.get(incarnation, 0):
                said = promised.get(incarnation, "an unknown number of")
                reason = (
                    f"{said} frames of incarnation {incarnation} were written, {there.get(incarnation, 0)} are found"
                )
                self._report(-FOREVER, FOREVER, reason, "missing", (incarnation, -1, -1))

    # --- columns

    def _columns(
        self, blocks: list[BlockRow], last: int, level: int, final: set[int]
    ) -> Iterator[tuple[Columns, bool]]:
        """Give the columns of blocks that follow one another, as coarse as the level allows, and if all are wanted."""
        place = {block.ordinal: block for block in blocks}
        whole = {
            ordinal for ordinal, block in place.items() if self._first <= block.first_step and block.last_step <= last
        }
        summable = whole & final
        done = -1
        nodes: list[pyramid.Flat] = []
        packed = self._nodes(blocks, level, summable)
        for block in blocks:
            if block.ordinal <= done:
                continue
            found = None
            for high in range(level, -1, -1) if block.ordinal in summable else ():
                span = pyramid.FANOUT**high
                if block.ordinal % span or not summable.issuperset(range(block.ordinal, block.ordinal + span)):
                    continue
                place_of_node = (block.incarnation, high, block.ordinal // span)
                found = self._node(*place_of_node, packed.get(place_of_node))
                if found is not None:
                    done = block.ordinal + span - 1
                    self._summarised = True
                    nodes.append(found)
                    break
            if found is None:
                done = block.ordinal
                if nodes:
                    yield pyramid.together(nodes), True
                    nodes = []
                yield self._block(block), block.ordinal in whole
        if nodes:
            yield pyramid.together(nodes), True

    def _nodes(
        self, blocks: list[BlockRow], level: int, summable: set[int]
    ) -> dict[tuple[int, int, int], tuple[bytes, int]]:
        """Read the nodes of a level that blocks can be replaced by, all at once; others are looked up one by one."""
        if level < 0 or not summable:
            return {}
        span = pyramid.FANOUT**level
        incarnation, first, last = blocks[0].incarnation, min(summable) // span, max(summable) // span
        rows = self._connection.execute(
            "SELECT place, data, crc FROM nodes WHERE incarnation = ? AND level = ? AND place BETWEEN ? AND ?",
            (incarnation, level, first, last),
        )
        return {(incarnation, level, place): (data, crc) for place, data, crc in rows}

    def _node(self, incarnation: int, level: int, place: int, row: tuple[bytes, int] | None) -> pyramid.Flat | None:
        """Give a node, of which the row may have been read."""
        row = (
            row
            or self._connection.execute(
                "SELECT data, crc FROM nodes WHERE incarnation = ? AND level = ? AND place = ?",
                (incarnation, level, place),
            ).fetchone()
        )
        try:
            if row is None or checksum(row[0], incarnation, level, place) != row[1]:
                raise DecodeError("its bytes do not match its checksum")
            return pyramid.flat(row[0])
        except DecodeError as error:
            reason = f"node {place} of level {level} of the pyramid: {error}"
            # Nothing is missing for that: it is read from below.
            self._report(self._first, self._last, reason, "node", (incarnation, level, place))
            return None

    def _block(self, block: BlockRow) -> Columns:
        row = self._connection.execute("SELECT data, crc FROM block_data WHERE id = ?", (block.id,)).fetchone()
        try:
            if row is None or checksum(row[0], *block.numbers) != row[1]:
                raise DecodeError("its bytes do not match its checksum")
            return unpack(row[0], self._query.indices)
        except DecodeError as error:
            where = (block.incarnation, block.first_seq, block.last_seq)
            self._report(block.first_step, block.last_step, f"block {block.id}: {error}", "block", where, block.id)
            return {}

    def _report(
        self,
        first: int,
        last: int,
        reason: str,
        kind: DamageKind,
        where: tuple[int, int, int] = (0, -1, -1),
        row: int = -1,
    ) -> None:
        if kind in ("file", "missing") or (first <= self._last and last >= self._first):
            self._damage.append(Damage(self._run, max(first, 0), min(last, FOREVER), reason, kind, *where, row))

    def _add(self, columns: Columns, last: int, *, whole: bool = False) -> None:
        wanted = self._query.indices
        for index, (steps, values) in columns.items():
            if wanted is None or index in wanted:
                if not whole:
                    inside = (steps >= self._first) & (steps <= last)
                    steps, values = steps[inside], values[inside]
                if len(steps):
                    self._parts.setdefault(index, []).append((steps, values))

    def _points(self, parts: list[tuple[F64, F64]]) -> Points:
        points = decimate(*in_order(parts), self._query.points)
        return Points(points.steps, points.values, points.reduced or self._summarised)


def _final(blocks: list[BlockRow], young: int) -> set[int]:
    """Give the ordinals of blocks of which no step is said again later: an overwritten extreme hides the next one.

    ``young`` is the first step of the frames behind the blocks.
    """
    found: set[int] = set()
    for block in reversed(blocks):
        if block.last_step < young:
            found.add(block.ordinal)
        young = min(young, block.first_step)
    return found


def _ends(blocks: list[BlockRow], loose: dict[int, list[Frame]]) -> dict[int, int]:
    """Give for each incarnation the first step that a later one has replaced.

    A resumed run computes everything anew from the step at which it begins.
    """
    firsts: dict[int, int] = {block.incarnation: FOREVER for block in blocks}
    for block in blocks:
        firsts[block.incarnation] = min(firsts[block.incarnation], block.first_step)
    for incarnation, frames in loose.items():
        firsts[incarnation] = min([firsts.get(incarnation, FOREVER), *(frame.step for frame in frames)])
    ends: dict[int, int] = {}
    end = FOREVER
    for incarnation in sorted(firsts, reverse=True):
        ends[incarnation] = end
        end = min(end, firsts[incarnation])
    return ends
