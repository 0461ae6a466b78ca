"""Finds what is damaged in a run's database, and mends it from the run log where that is there.

Verifying reads every row; what a row holds is judged by its checksum, what is missing by the counts beside it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from spiral_core.errors import DecodeError
from spiral_core.wire.messages import Frame, Strip, Thinned
from spiral_server.store import pyramid, spool
from spiral_server.store.blocks import checksum, unpack
from spiral_server.store.protocol import Damage, Entry, SeriesQuery
from spiral_server.store.run_reader import RunReader, decoded_message
from spiral_server.store.run_writer import RunWriter
from spiral_server.store.series_reading import FOREVER, SeriesReading

MENDABLE = frozenset({"block", "frame", "lost", "node", "message", "strip"})
"""What the run log or the rest of the database can give back."""
_EVERYTHING = SeriesQuery(None, None, None, 2**62)
_PAGES_TOLD = 20
"""Sentences of SQLite about a file that is broken; it would write one for each page."""


def verify(reader: RunReader) -> list[Damage]:
    """Read everything, and give what is damaged."""

    def look(connection: sqlite3.Connection) -> list[Damage]:
        return [*_file(reader.run, connection), *_rows(reader, connection)]

    return reader.ask(look)


def _file(run: str, connection: sqlite3.Connection) -> Iterator[Damage]:
    for (sentence,) in connection.execute(f"PRAGMA integrity_check({_PAGES_TOLD})"):
        if sentence != "ok":
            yield Damage(run, 0, FOREVER, str(sentence))


def _rows(reader: RunReader, connection: sqlite3.Connection) -> Iterator[Damage]:
    run = reader.run
    yield from SeriesReading(run, connection, _EVERYTHING).read().damage
    history = reader.history_of(connection)
    yield from history.damage
    told = {(damage.incarnation, damage.first_seq) for damage in history.damage if damage.kind == "message"}
    for row in connection.execute("SELECT incarnation, seq, step, data, crc, kind FROM messages"):
        incarnation, seq, step, *_ = row
        if (incarnation, seq) not in told and decoded_message(*row) is None:
            reason = f"message {seq} does not match its checksum"
            yield Damage(run, step, step, reason, "message", incarnation, seq, seq)
    yield from _nodes(run, connection)


def _nodes(run: str, connection: sqlite3.Connection) -> Iterator[Damage]:
    """Look at the pyramid: every node that should be there, and what it holds."""
    blocks = connection.execute("SELECT incarnation, MAX(ordinal) + 1 FROM blocks GROUP BY incarnation").fetchall()
    for incarnation, count in blocks:
        level = 0
        while count > 0:
            for place in range(count):
                if not _sound(connection, incarnation, level, place):
                    reason = f"node {place} of level {level} of the pyramid does not match its checksum"
                    yield Damage(run, 0, FOREVER, reason, "node", incarnation, level, place)
            count //= pyramid.FANOUT
            level += 1


def _sound(connection: sqlite3.Connection, incarnation: int, level: int, place: int) -> bool:
    row = connection.execute(
        "SELECT data, crc FROM nodes WHERE incarnation = ? AND level = ? AND place = ?", (incarnation, level, place)
    ).fetchone()
    if row is None or checksum(row[0], incarnation, level, place) != row[1]:
        return False
    try:
        pyramid.unpack(row[0])
    except DecodeError:
        return False
    return True


def mend(writer: RunWriter, folder: Path, damage: Iterable[Damage]) -> None:
    """Put back what is damaged, inside a transaction; what the run log does not hold any more stays reported."""
    wanted = [one for one in damage if one.kind in MENDABLE]
    for incarnation in sorted({one.incarnation for one in wanted if one.kind != "node"}):
        own = [one for one in wanted if one.incarnation == incarnation and one.kind != "node"]
        numbers = {seq for one in own for seq in range(one.first_seq, one.last_seq + 1)}
        spooled = _Spooled(writer, spool.entries(folder, incarnation, numbers.__contains__))
        for one in own:
            _put_back(writer, one, spooled)
    # After the blocks, from which they are made.
    for one in wanted:
        if one.kind == "node":
            _raise_again(writer, one)


class _Spooled:
    """What a run log gives back for the damage of one incarnation."""

    def __init__(self, writer: RunWriter, entries: Iterable[Entry]) -> None:
        self._found: dict[int, Entry] = {}
        self._thinned: list[Thinned] = []
        for entry in entries:
            self._found[entry.message.seq] = entry
            if isinstance(entry.message, Thinned) and not writer.holds(entry):
                # What was written was finer than what the log holds now.
                self._thinned.append(entry.message)

    def entries(self, damage: Damage) -> list[Entry]:
        """Give what the log has between the ends of a damage."""
        seqs = range(damage.first_seq, damage.last_seq + 1)
        return [self._found[seq] for seq in seqs if seq in self._found]

    def missing(self, damage: Damage) -> list[int]:
        """Give the sequence numbers between the ends of a damage that the log does not have."""
        return [seq for seq in range(damage.first_seq, damage.last_seq + 1) if seq not in self._found]

    def merged(self, damage: Damage) -> bool:
        """Tell whether the log was thinned out there after it was written."""
        return any(one.first_step <= damage.last_step and damage.first_step <= one.step for one in self._thinned)


def _put_back(writer: RunWriter, damage: Damage, spooled: _Spooled) -> None:
    entries = spooled.entries(damage)
    frames = [entry.message for entry in entries if isinstance(entry.message, Frame)]
    merged, missing = spooled.merged(damage), spooled.missing(damage)
    if damage.kind == "block" and frames:
        if merged or (missing and len(frames) < writer.promised(damage)):
            # Merged frames stay in their places, with fewer values.
            gone = range(damage.first_seq, damage.last_seq + 1) if merged else missing
            writer.replace_block(damage.row, frames, lost=(gone[0], gone[-1]))
        else:
            writer.replace_block(damage.row, frames)
    elif damage.kind == "lost" and frames and not (merged or missing):
        writer.return_lost(damage.row, frames)
    elif damage.kind == "frame" and frames and not merged:
        writer.replace_row("frames", entries[0])
    elif damage.kind == "message" and entries and writer.same_kind(entries[0]):
        writer.replace_row("messages", entries[0])
    elif damage.kind == "strip" and entries and isinstance(entries[0].message, Strip):
        writer.replace_row("strips", entries[0])


def _raise_again(writer: RunWriter, damage: Damage) -> None:
    """Make a node of the pyramid again from the blocks below it."""
    span = pyramid.FANOUT**damage.first_seq
    for ordinal in range(damage.last_seq * span, (damage.last_seq + 1) * span):
        row = writer.connection.execute(
            "SELECT id, incarnation, first_seq, last_seq, first_step, last_step, count FROM blocks "
            "WHERE incarnation = ? AND ordinal = ?",
            (damage.incarnation, ordinal),
        ).fetchone()
        data = row and writer.connection.execute("SELECT data, crc FROM block_data WHERE id = ?", row[:1]).fetchone()
        if data and checksum(data[0], *row[1:]) == data[1]:
            writer.keep_node(damage.incarnation, 0, ordinal, pyramid.summed_up(unpack(data[0])))
            writer.raise_pyramid(damage.incarnation, ordinal)
