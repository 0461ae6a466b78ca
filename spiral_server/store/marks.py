"""How far each incarnation of a run is on disk, and how many rows that makes: what cannot be found is missed."""

from __future__ import annotations

import sqlite3
import struct
from typing import NamedTuple

from spiral_server.store.blocks import checksum


class Mark(NamedTuple):
    """The last message of an incarnation that is on disk, and how many rows there are."""

    seq: int = -1
    time: float = 0.0
    frames: int = 0
    messages: int = 0

    def crc(self, incarnation: int) -> int:
        """Sum the mark up."""
        return checksum(struct.pack("<d", self.time), incarnation, self.seq, self.frames, self.messages)


def read_marks(connection: sqlite3.Connection) -> dict[int, Mark]:
    """Read the marks that are what was written, by incarnation."""
    rows = connection.execute("SELECT incarnation, seq, time, frames, messages, crc FROM marks ORDER BY incarnation")
    marks = ((incarnation, Mark(*rest), crc) for incarnation, *rest, crc in rows)
    return {incarnation: mark for incarnation, mark, crc in marks if mark.crc(incarnation) == crc}
