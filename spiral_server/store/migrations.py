"""Brings a run's database up to date: one function for each step from a version to the next.

Each step runs in one transaction together with the new version number, so that a kill leaves the one or the other.
"""

from __future__ import annotations

import sqlite3
import zlib
from pathlib import Path

import msgspec
import numpy as np
import structlog

from spiral_core.arrays import F64
from spiral_core.errors import DecodeError
from spiral_server.store import pyramid
from spiral_server.store.blocks import Columns, checksum, pack
from spiral_server.store.errors import StoreError
from spiral_server.store.marks import Mark
from spiral_server.store.schema import RUN_SCHEMA_VERSION, RUN_TABLES, open_for_writing, version_of

log = structlog.get_logger(__name__)


def open_current(path: Path) -> sqlite3.Connection:
    """Open a run's database for writing; one of an older version is brought up to date first.

    Raises
    ------
    StoreError
        A newer Spiral has written it, or an older one that is not known any more.
    """
    connection = open_for_writing(path, RUN_TABLES, RUN_SCHEMA_VERSION)
    try:
        while (version := version_of(connection, path, RUN_SCHEMA_VERSION)) < RUN_SCHEMA_VERSION:
            if version != 1 or not _has(connection, "block_summary"):
                raise StoreError(f"{path} claims schema {version} and does not have its tables: it is damaged")
            log.info("a run is brought up to date", path=str(path), schema=version)
            connection.execute("BEGIN IMMEDIATE")
            try:
                _from_1(connection)
                connection.execute("PRAGMA user_version = 2")
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
    except BaseException:
        connection.close()
        raise
    return connection


def is_current(connection: sqlite3.Connection, path: Path) -> bool:
    """Tell whether a database needs nothing; raises as `open_current` does for one from the future."""
    return version_of(connection, path, RUN_SCHEMA_VERSION) == RUN_SCHEMA_VERSION


def _has(connection: sqlite3.Connection, table: str) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone() is not None


# --- 1 to 2: blocks in byte planes, a pyramid instead of one summary for each block, counts of what there is ------


class _Packed1(msgspec.Struct, frozen=True, array_like=True):
    index: list[int]
    counts: list[int]
    steps: list[bytes]
    values: list[bytes]
    all_steps: bytes


def _unpack_1(data: bytes) -> tuple[Columns, F64]:
    try:
        packed = msgspec.msgpack.decode(data, type=_Packed1)
        all_steps = np.frombuffer(zlib.decompress(packed.all_steps), dtype="<f8")
        columns: Columns = {}
        for index, steps, values in zip(packed.index, packed.steps, packed.values, strict=True):
            own = np.frombuffer(zlib.decompress(steps), dtype="<f8") if steps else all_steps
            columns[index] = (own, np.frombuffer(zlib.decompress(values), dtype="<f8"))
    except (msgspec.MsgspecError, zlib.error, ValueError) as error:
        raise DecodeError(f"not a block: {error}") from error
    return columns, all_steps


def _from_1(connection: sqlite3.Connection) -> None:
    for table in ("marks", "blocks", "block_data"):
        connection.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    for statement in RUN_TABLES.split(";"):
        connection.execute(statement)
    connection.execute("INSERT INTO lost SELECT incarnation, seq, seq, step, step, 1 FROM damaged")
    ordinals: dict[int, int] = {}
    nodes: dict[tuple[int, int, int], pyramid.Node] = {}
    rows = connection.execute(
        "SELECT id, incarnation, first_seq, last_seq, first_step, last_step, count FROM old_blocks "
        "ORDER BY incarnation, first_seq"
    ).fetchall()
    for identity, *numbers in rows:
        row = connection.execute("SELECT data, crc FROM old_block_data WHERE id = ?", (identity,)).fetchone()
        try:
            if row is None or checksum(row[0], *numbers) != row[1]:
                raise DecodeError("its bytes do not match its checksum")
            columns, all_steps = _unpack_1(row[0])
        except DecodeError as error:
            log.warning("a damaged block is left behind", block=identity, reason=str(error))
            connection.execute("INSERT INTO lost VALUES (?, ?, ?, ?, ?, ?)", numbers)
            continue
        ordinal = ordinals.get(numbers[0], 0)
        ordinals[numbers[0]] = ordinal + 1
        crc = checksum(b"", identity, ordinal, *numbers)
        connection.execute("INSERT INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (identity, *numbers, ordinal, crc))
        data = pack(columns, all_steps)
        connection.execute("INSERT INTO block_data VALUES (?, ?, ?)", (identity, data, checksum(data, *numbers)))
        _stack(nodes, (numbers[0], 0, ordinal), pyramid.summed_up(columns))
    for key, node in nodes.items():
        data = pyramid.pack(node)
        connection.execute("INSERT INTO nodes VALUES (?, ?, ?, ?, ?)", (*key, data, checksum(data, *key)))
    _count_1(connection)
    for table in ("old_marks", "old_blocks", "old_block_data", "block_summary", "damaged"):
        connection.execute(f"DROP TABLE {table}")


def _stack(nodes: dict[tuple[int, int, int], pyramid.Node], key: tuple[int, int, int], node: pyramid.Node) -> None:
    """Add a node, and those above it that it makes complete."""
    nodes[key] = node
    incarnation, level, place = key
    if place % pyramid.FANOUT == pyramid.FANOUT - 1:
        below = [nodes[incarnation, level, one] for one in range(place - pyramid.FANOUT + 1, place + 1)]
        _stack(nodes, (incarnation, level + 1, place // pyramid.FANOUT), pyramid.joined(below))


def _count_1(connection: sqlite3.Connection) -> None:
    """Count what is there, once."""
    for incarnation, seq, time in connection.execute("SELECT incarnation, seq, time FROM old_marks").fetchall():
        frames = 0
        for what in ("SUM(count) FROM blocks", "COUNT(*) FROM frames", "SUM(count) FROM lost"):
            found = connection.execute(f"SELECT {what} WHERE incarnation = ?", (incarnation,)).fetchone()[0]
            frames += found or 0
        counted = connection.execute("SELECT COUNT(*) FROM messages WHERE incarnation = ?", (incarnation,))
        mark = Mark(seq, time, frames, counted.fetchone()[0])
        row = (incarnation, *mark, mark.crc(incarnation))
        connection.execute("INSERT INTO marks VALUES (?, ?, ?, ?, ?, ?)", row)
    commands = connection.execute("SELECT COUNT(*) FROM commands").fetchone()[0]
    connection.execute("INSERT INTO journaled VALUES (1, ?, ?)", (commands, checksum(b"", commands)))
