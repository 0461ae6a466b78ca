"""The tables of a run's database and of the catalogue, and how their files are opened.

Statements only: what is written when stands in `run_writer`, what is read in `run_reader`.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from spiral_server.store.errors import StoreError

RUN_FILE = "run.db"
CATALOG_FILE = "catalog.db"
BUSY_SECONDS = 10.0
"""How long a connection waits for another one's lock; only a foreign program can hold one for long."""

UNREADABLE = (sqlite3.Error, UnicodeDecodeError, TypeError, ValueError, OverflowError)
"""What reading a damaged database may raise: names that are no text, and numbers that are none."""

RUN_SCHEMA_VERSION = 2
RUN_TABLES = """
CREATE TABLE IF NOT EXISTS marks (
    incarnation INTEGER PRIMARY KEY, seq INTEGER NOT NULL, time REAL NOT NULL, frames INTEGER NOT NULL,
    messages INTEGER NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS messages (
    incarnation INTEGER NOT NULL, seq INTEGER NOT NULL, kind TEXT NOT NULL, step INTEGER NOT NULL,
    data BLOB NOT NULL, crc INTEGER NOT NULL, PRIMARY KEY (incarnation, seq));
CREATE INDEX IF NOT EXISTS messages_by_kind ON messages (kind, incarnation, step, seq);
CREATE TABLE IF NOT EXISTS strips (
    name TEXT PRIMARY KEY, incarnation INTEGER NOT NULL, seq INTEGER NOT NULL, step INTEGER NOT NULL,
    data BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS frames (
    incarnation INTEGER NOT NULL, seq INTEGER NOT NULL, step INTEGER NOT NULL,
    data BLOB NOT NULL, crc INTEGER NOT NULL, PRIMARY KEY (incarnation, seq));
CREATE TABLE IF NOT EXISTS lost (
    incarnation INTEGER NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL, first_step INTEGER NOT NULL,
    last_step INTEGER NOT NULL, count INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS blocks (
    id INTEGER PRIMARY KEY, incarnation INTEGER NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL,
    first_step INTEGER NOT NULL, last_step INTEGER NOT NULL, count INTEGER NOT NULL, ordinal INTEGER NOT NULL,
    crc INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS block_data (id INTEGER PRIMARY KEY, data BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS nodes (
    incarnation INTEGER NOT NULL, level INTEGER NOT NULL, place INTEGER NOT NULL, data BLOB NOT NULL,
    crc INTEGER NOT NULL, PRIMARY KEY (incarnation, level, place));
CREATE TABLE IF NOT EXISTS commands (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, data BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS journaled (one INTEGER PRIMARY KEY, count INTEGER NOT NULL, crc INTEGER NOT NULL);
"""
"""A table beside what it holds: how many frames, messages and commands there are (``marks``, ``journaled``), so that a
row that cannot be found any more is missed; and what is known to be damaged and has been taken out (``lost``)."""

CATALOG_VERSION = 1
CATALOG_TABLES = """
CREATE TABLE IF NOT EXISTS runs (id TEXT PRIMARY KEY, data BLOB NOT NULL, settled INTEGER NOT NULL);
"""


def open_for_writing(path: Path, tables: str, version: int) -> sqlite3.Connection:
    """Open a database, creating it when it is missing.

    Write-ahead log, and a sync at each commit: what is committed survives the loss of power.

    Raises
    ------
    StoreError
        A newer or an older Spiral has written it; `migrations` brings an older one up to date.
    """
    # One thread at a time uses a connection, but not always the thread that opened it.
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        if version_of(connection, path, version) == 0:
            if connection.execute("SELECT 1 FROM sqlite_master").fetchone() is not None:
                raise StoreError(f"{path} has tables and does not say which: it is damaged")
            # In one transaction: a kill leaves either no table or all of them.
            connection.executescript(f"BEGIN IMMEDIATE; {tables} PRAGMA user_version = {version}; COMMIT;")
    except BaseException:
        connection.close()
        raise
    return connection


def version_of(connection: sqlite3.Connection, path: Path, newest: int) -> int:
    """Give the version of a database's tables, 0 for one that has none yet.

    Raises
    ------
    StoreError
        It was written by a newer Spiral.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > newest:
        raise StoreError(f"{path} was written by a newer Spiral (schema {version}): update this one")
    return version


def open_for_reading(path: Path) -> sqlite3.Connection:
    """Open a database that exists, in a transaction that shows one state of it."""
    # Not mode=ro: after a kill the first connection must be able to recover the write-ahead log.
    address = f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("BEGIN")
    except BaseException:
        connection.close()
        raise
    return connection
