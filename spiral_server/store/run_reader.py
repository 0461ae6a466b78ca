"""Reads one run's database: points of series, heat maps, and what a view is rebuilt from.

Opens a connection for each question, so that any thread may ask; writes nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from spiral_core.errors import DecodeError
from spiral_core.wire import codec
from spiral_core.wire.messages import AnyMessage, CommandRecord, HeatMaps, Logged, RunMessage
from spiral_server.store.blocks import checksum
from spiral_server.store.errors import StoreError
from spiral_server.store.marks import read_marks
from spiral_server.store.protocol import Damage, DamageKind, History, SeriesQuery, SeriesRead
from spiral_server.store.schema import UNREADABLE, open_for_reading
from spiral_server.store.series_reading import FOREVER, SeriesReading

T = TypeVar("T")


class RunReader:
    """Questions to the database of one run."""

    def __init__(self, run: str, path: Path) -> None:
        self.run = run
        self._path = path

    def ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Ask one question of one state of the database."""
        try:
            with closing(open_for_reading(self._path)) as connection:
                return question(connection)
        except UNREADABLE as error:
            raise StoreError(f"the data of run {self.run} cannot be read: {error}") from error

    def heat_maps(self, step: int | None) -> HeatMaps | None:
        """Read the newest undamaged heat maps at or before a step."""

        def question(connection: sqlite3.Connection) -> HeatMaps | None:
            rows = connection.execute(
                "SELECT incarnation, seq, step, data, crc, kind FROM messages WHERE kind = 'heat-maps' AND step <= ? "
                "ORDER BY incarnation DESC, step DESC, seq DESC",
                (FOREVER if step is None else step,),
            )
            for row in rows:
                message = decoded_message(*row)
                if isinstance(message, HeatMaps):
                    return message
            return None

        return self.ask(question)

    def history(self) -> History:
        """Read what the run's view is rebuilt from."""
        return self.ask(self.history_of)

    def history_of(self, connection: sqlite3.Connection) -> History:
        """Read what the run's view is rebuilt from, from a connection."""
        history = History()
        marks = read_marks(connection)
        if marks:
            history.incarnation, newest = max(marks.items())
            history.seq, history.time = newest.seq, newest.time
            history.frame_step = connection.execute(
                "SELECT MAX(step) FROM (SELECT step FROM frames WHERE incarnation = :i UNION ALL "
                "SELECT last_step FROM blocks WHERE incarnation = :i)",
                {"i": history.incarnation},
            ).fetchone()[0]
        rows = connection.execute(
            "SELECT incarnation, seq, step, data, crc, kind FROM messages "
            "WHERE kind NOT IN ('heat-maps', 'probe-batch') "
            "UNION ALL SELECT incarnation, seq, step, data, crc, 'strip' FROM strips "
            "UNION ALL SELECT * FROM (SELECT incarnation, seq, step, data, crc, kind FROM messages "
            "WHERE kind = 'heat-maps' ORDER BY incarnation DESC, seq DESC LIMIT 8) "
            "UNION ALL SELECT * FROM (SELECT incarnation, seq, step, data, crc, kind FROM messages "
            "WHERE kind = 'probe-batch' ORDER BY incarnation DESC, seq DESC LIMIT 1) ORDER BY 1, 2"
        )
        for row in rows:
            message = decoded_message(*row)
            kind = row[-1]
            if message is None:
                reason = f"message {row[1]} does not match its checksum"
                told: DamageKind = "strip" if kind == "strip" else "message"
                history.damage.append(Damage(self.run, row[2], row[2], reason, told, row[0], row[1], row[1]))
            else:
                history.messages.append(message)
        for number, data, crc in connection.execute("SELECT number, data, crc FROM commands ORDER BY number"):
            record = _decoded(data) if checksum(data, number) == crc else None
            if isinstance(record, CommandRecord):
                history.commands.append(record)
            else:
                reason = f"command {number} does not match its checksum"
                history.damage.append(Damage(self.run, 0, 0, reason, "command", row=number))
        history.damage += self._missing(connection)
        return history

    def _missing(self, connection: sqlite3.Connection) -> Iterator[Damage]:
        """Look whether all messages and commands are there that were written."""
        promised = {incarnation: mark.messages for incarnation, mark in read_marks(connection).items()}
        # The table itself, of which an index may know nothing any more, and the other way round.
        found = dict(connection.execute("SELECT incarnation, COUNT(*) FROM messages NOT INDEXED GROUP BY incarnation"))
        by_kind = dict(
            connection.execute(
                "SELECT incarnation, COUNT(*) FROM messages INDEXED BY messages_by_kind WHERE kind > '' "
                "GROUP BY incarnation"
            )
        )
        for incarnation in sorted(promised.keys() | found.keys() | by_kind.keys()):
            counts = {promised.get(incarnation), found.get(incarnation, 0), by_kind.get(incarnation, 0)}
            if len(counts) > 1:
                reason = f"messages of incarnation {incarnation} cannot be found"
                yield Damage(self.run, 0, FOREVER, reason, "missing", incarnation)
        count, crc = connection.execute("SELECT count, crc FROM journaled").fetchone() or (0, checksum(b"", 0))
        there = connection.execute("SELECT COUNT(*) FROM commands NOT INDEXED").fetchone()[0]
        if there != count or crc != checksum(b"", count):
            yield Damage(self.run, 0, FOREVER, f"{count} commands were journaled, {there} are found", "missing")

    def series(self, query: SeriesQuery) -> SeriesRead:
        """Read points of series, decimated."""
        return self.ask(lambda connection: SeriesReading(self.run, connection, query).read())


def _decoded(data: bytes) -> AnyMessage | None:
    try:
        return codec.decode(data)
    except DecodeError:
        return None


def decoded_message(incarnation: int, seq: int, step: int, data: bytes, crc: int, kind: str) -> RunMessage | None:
    """Decode a message of a run; None when it is not what was written."""
    if checksum(data, incarnation, seq, step) != crc:
        return None
    message = _decoded(data)
    return message if isinstance(message, Logged) and message.__struct_config__.tag == kind else None
