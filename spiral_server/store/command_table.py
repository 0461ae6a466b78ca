"""The commands of one run's database, and how many there are: one statement writes both.

Before and after each statement a thread of Python waits for the interpreter, which the event loop may be holding. A
command that takes five of them, with those that begin and end a transaction, is on disk up to 2 ms later. A trigger
does what follows from the one statement, in the transaction that SQLite opens for it.
"""

from __future__ import annotations

import sqlite3

from spiral_core.wire import codec
from spiral_core.wire.messages import CommandRecord
from spiral_server.store.blocks import checksum

_PREPARE = """
PRAGMA temp_store = MEMORY;
CREATE TEMP VIEW entered AS SELECT number, id, data, crc, 0 AS count, 0 AS count_crc FROM commands;
CREATE TEMP TRIGGER enter INSTEAD OF INSERT ON entered BEGIN
    INSERT INTO commands VALUES (NEW.number, NEW.id, NEW.data, NEW.crc);
    REPLACE INTO journaled VALUES (1, NEW.count, NEW.count_crc);
END;
"""
_ENTER = "INSERT INTO entered VALUES (?, ?, ?, ?, ?, ?)"


class CommandTable:
    """Writes commands.

    Parameters
    ----------
    connection : sqlite3.Connection
        Without a transaction of its own around `enter`, a command is committed when that returns.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.executescript(_PREPARE)
        self.read()

    def read(self) -> None:
        """Count anew, such as after a transaction that failed."""
        (self._count,) = self._connection.execute("SELECT COUNT(*) FROM commands").fetchone()

    def enter(self, record: CommandRecord) -> bool:
        """Write a command; False where there is an older state of it, or of another one under its number."""
        data = codec.encode(record)
        row = (record.number, record.id, data, checksum(data, record.number))
        try:
            self._connection.execute(_ENTER, (*row, self._count + 1, checksum(b"", self._count + 1)))
        except sqlite3.IntegrityError:
            return False
        self._count += 1
        return True

    def remove(self, record: CommandRecord) -> None:
        """Take out what stands in a command's way."""
        gone = self._connection.execute("DELETE FROM commands WHERE number = ? OR id = ?", (record.number, record.id))
        self._count -= gone.rowcount

    def keep_count(self) -> None:
        """Write the count again."""
        row = (self._count, checksum(b"", self._count))
        self._connection.execute("REPLACE INTO journaled VALUES (1, ?, ?)", row)
