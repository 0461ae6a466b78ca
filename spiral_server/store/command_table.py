"""The commands of one run's database, and how many there are, so that one that cannot be found is missed."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from spiral_core.wire import codec
from spiral_core.wire.messages import CommandRecord
from spiral_server.store.blocks import checksum
from spiral_server.store.complaint import complain


class CommandTable:
    """Writes commands, inside transactions that the caller opens and ends.

    Parameters
    ----------
    run : str
    connection : sqlite3.Connection
    """

    def __init__(self, run: str, connection: sqlite3.Connection) -> None:
        self._run = run
        self._connection = connection
        self._stuck = ""
        """The command of which was said that it cannot be written."""
        self.read()

    def read(self) -> None:
        """Count anew, such as after a transaction that failed."""
        (self._count,) = self._connection.execute("SELECT COUNT(*) FROM commands").fetchone()

    def enter(self, records: Sequence[CommandRecord]) -> list[CommandRecord]:
        """Write commands, over older states of them; give those that could be."""
        entered = []
        for record in records:
            try:
                if self._enter(record):
                    entered.append(record)
                    continue
                reason = "another one that cannot be deleted is in its place"
            except sqlite3.OperationalError:
                # Such as a disk that is full: nothing else can be written either.
                raise
            except sqlite3.DatabaseError as error:
                reason = str(error)
            if record.id != self._stuck:
                self._stuck = record.id
                complain("a command cannot be entered and is kept", run=self._run, command=record.id, reason=reason)
        if entered:
            self.keep_count()
        return entered

    def _enter(self, record: CommandRecord) -> bool:
        if self._insert(record):
            return True
        self._connection.execute("SAVEPOINT entering")
        entered, places = False, (record.number, record.id)
        try:
            gone = self._connection.execute("DELETE FROM commands WHERE number = ? OR id = ?", places)
            entered = self._insert(record)
            if entered:
                self._count -= gone.rowcount
        finally:
            if not entered:
                self._connection.execute("ROLLBACK TO entering")
            self._connection.execute("RELEASE entering")
        return entered

    def _insert(self, record: CommandRecord) -> bool:
        data = codec.encode(record)
        row = (record.number, record.id, data, checksum(data, record.number))
        try:
            self._connection.execute("INSERT INTO commands VALUES (?, ?, ?, ?)", row)
        except sqlite3.IntegrityError:
            return False
        self._count += 1
        return True

    def keep_count(self) -> None:
        """Write how many there are."""
        row = (self._count, checksum(b"", self._count))
        self._connection.execute("REPLACE INTO journaled VALUES (1, ?, ?)", row)
