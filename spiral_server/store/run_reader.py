"""Reads one run's database: points of series, heat maps, and what a view is rebuilt from.

Opens a connection for each question, so that any thread may ask; writes nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from spiral_core.arrays import F64
from spiral_core.errors import DecodeError
from spiral_core.wire import codec
from spiral_core.wire.messages import AnyMessage, CommandRecord, Frame, HeatMaps, Logged, RunMessage
from spiral_server.live.decimation import Points, decimate, in_order
from spiral_server.live.merging import columns_of
from spiral_server.store.blocks import SUMMARY_POINTS, Columns, checksum, decode_frame, unpack
from spiral_server.store.errors import StoreError
from spiral_server.store.protocol import Damage, History, SeriesQuery, SeriesRead
from spiral_server.store.schema import open_for_reading

SUMMARY_PAIRS = SUMMARY_POINTS - 2
"""Points of a summary that show extremes."""
_FOREVER = 2**62
"""Above every step."""

T = TypeVar("T")


class RunReader:
    """Questions to the database of one run."""

    def __init__(self, run: str, path: Path) -> None:
        self.run = run
        self._path = path

    def _ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with closing(open_for_reading(self._path)) as connection:
                return question(connection)
        except sqlite3.Error as error:
            raise StoreError(f"the data of run {self.run} cannot be read: {error}") from error

    def heat_maps(self, step: int | None) -> HeatMaps | None:
        """Read the newest undamaged heat maps at or before a step."""

        def question(connection: sqlite3.Connection) -> HeatMaps | None:
            rows = connection.execute(
                "SELECT incarnation, seq, step, data, crc FROM messages WHERE kind = 'heat-maps' AND step <= ? "
                "ORDER BY incarnation DESC, step DESC, seq DESC",
                (_FOREVER if step is None else step,),
            )
            for row in rows:
                message = _message(*row)
                if isinstance(message, HeatMaps):
                    return message
            return None

        return self._ask(question)

    def history(self) -> History:
        """Read what the run's view is rebuilt from."""
        return self._ask(self._history)

    def _history(self, connection: sqlite3.Connection) -> History:
        history = History()
        mark = connection.execute("SELECT incarnation, seq, time FROM marks ORDER BY incarnation DESC").fetchone()
        if mark is not None:
            history.incarnation, history.seq, history.time = mark
            history.frame_step = connection.execute(
                "SELECT MAX(step) FROM (SELECT step FROM frames WHERE incarnation = :i UNION ALL "
                "SELECT last_step FROM blocks WHERE incarnation = :i)",
                {"i": history.incarnation},
            ).fetchone()[0]
        rows = connection.execute(
            "SELECT incarnation, seq, step, data, crc FROM messages WHERE kind NOT IN ('heat-maps', 'probe-batch') "
            "UNION ALL SELECT incarnation, seq, step, data, crc FROM strips "
            "UNION ALL SELECT * FROM (SELECT incarnation, seq, step, data, crc FROM messages "
            "WHERE kind = 'heat-maps' ORDER BY incarnation DESC, seq DESC LIMIT 8) "
            "UNION ALL SELECT * FROM (SELECT incarnation, seq, step, data, crc FROM messages "
            "WHERE kind = 'probe-batch' ORDER BY incarnation DESC, seq DESC LIMIT 1) ORDER BY 1, 2"
        )
        for row in rows:
            message = _message(*row)
            if message is None:
                history.damage.append(Damage(self.run, row[2], row[2], f"message {row[1]} does not match its checksum"))
            else:
                history.messages.append(message)
        for number, data, crc in connection.execute("SELECT number, data, crc FROM commands ORDER BY number"):
            record = _decoded(data) if checksum(data, number) == crc else None
            if isinstance(record, CommandRecord):
                history.commands.append(record)
            else:
                history.damage.append(Damage(self.run, 0, 0, f"command {number} does not match its checksum"))
        return history

    def series(self, query: SeriesQuery) -> SeriesRead:
        """Read points of series, decimated."""
        return self._ask(lambda connection: _SeriesReading(self.run, connection, query).read())


def _decoded(data: bytes) -> AnyMessage | None:
    try:
        return codec.decode(data)
    except DecodeError:
        return None


def _message(incarnation: int, seq: int, step: int, data: bytes, crc: int) -> RunMessage | None:
    if checksum(data, incarnation, seq, step) != crc:
        return None
    message = _decoded(data)
    return message if isinstance(message, Logged) else None


class _SeriesReading:
    """One reading of series: which blocks, in which detail, and what of them holds."""

    def __init__(self, run: str, connection: sqlite3.Connection, query: SeriesQuery) -> None:
        self._run = run
        self._connection = connection
        self._query = query
        self._first = -_FOREVER if query.first is None else query.first
        self._last = _FOREVER if query.last is None else query.last
        self._parts: dict[int, list[tuple[F64, F64]]] = {}
        self._summarised = False
        self._damage: list[Damage] = []

    def read(self) -> SeriesRead:
        ends = self._ends()
        blocks = self._connection.execute(
            "SELECT id, incarnation, first_seq, last_seq, first_step, last_step, count FROM blocks "
            "WHERE first_step <= ? AND last_step >= ? ORDER BY incarnation, first_seq",
            (self._last, self._first),
        ).fetchall()
        far = len(blocks) * SUMMARY_PAIRS >= self._query.points
        for incarnation, end in sorted(ends.items()):
            last = min(self._last, end - 1)
            for identity, *numbers in (block for block in blocks if block[1] == incarnation):
                inside = self._first <= numbers[3] and numbers[4] <= last
                if numbers[3] <= last:
                    self._add(self._block(identity, numbers, summary=far and inside), last)
            self._add(columns_of(list(self._loose(incarnation))), last)
        return SeriesRead({index: self._points(parts) for index, parts in sorted(self._parts.items())}, self._damage)

    def _ends(self) -> dict[int, int]:
        """Give for each incarnation the first step that a later one has replaced.

        A resumed run computes everything anew from the step at which it begins.
        """
        firsts = self._connection.execute(
            "SELECT incarnation, MIN(step) FROM (SELECT incarnation, step FROM frames UNION ALL "
            "SELECT incarnation, first_step FROM blocks) GROUP BY incarnation ORDER BY incarnation DESC"
        )
        ends: dict[int, int] = {}
        end = _FOREVER
        for incarnation, first in firsts:
            ends[incarnation] = end
            end = min(end, first)
        return ends

    def _block(self, identity: int, numbers: list[int], *, summary: bool) -> Columns:
        for table in ("block_summary", "block_data") if summary else ("block_data",):
            row = self._connection.execute(
                f"SELECT data, crc FROM {table} WHERE id = ?",  # noqa: S608 - the two names above
                (identity,),
            ).fetchone()
            try:
                if row is None or checksum(row[0], *numbers) != row[1]:
                    raise DecodeError("its bytes do not match its checksum")
                columns = unpack(row[0], self._query.indices)
            except DecodeError as error:
                self._report(numbers[3], numbers[4], f"{table.replace('_', ' ')} {identity}: {error}")
                continue
            self._summarised |= table == "block_summary"
            return columns
        return {}

    def _loose(self, incarnation: int) -> Iterator[Frame]:
        rows = self._connection.execute(
            "SELECT incarnation, seq, step, data, crc FROM frames WHERE incarnation = ? AND step BETWEEN ? AND ? "
            "ORDER BY seq",
            (incarnation, self._first, self._last),
        )
        for row in rows:
            frame = decode_frame(*row)
            if frame is None:
                self._report(row[2], row[2], f"frame {row[1]} does not match its checksum")
            else:
                yield frame
        lost = self._connection.execute("SELECT seq, step FROM damaged WHERE incarnation = ?", (incarnation,))
        for seq, step in lost:
            if self._first <= step <= self._last:
                self._report(step, step, f"frame {seq} did not match its checksum")

    def _report(self, first: int, last: int, reason: str) -> None:
        self._damage.append(Damage(self._run, first, last, reason))

    def _add(self, columns: Columns, last: int) -> None:
        wanted = self._query.indices
        for index, (steps, values) in columns.items():
            if wanted is None or index in wanted:
                inside = (steps >= self._first) & (steps <= last)
                if not inside.all():
                    steps, values = steps[inside], values[inside]
                if len(steps):
                    self._parts.setdefault(index, []).append((steps, values))

    def _points(self, parts: list[tuple[F64, F64]]) -> Points:
        points = decimate(*in_order(parts), self._query.points)
        return Points(points.steps, points.values, points.reduced or self._summarised)
