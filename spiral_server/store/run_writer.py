"""Writes one run's database: messages, commands, and frames that are packed into blocks as they grow old.

Used by one thread at a time, inside a transaction that the caller opens and ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from spiral_core.wire import codec
from spiral_core.wire.messages import CommandRecord, Frame, Strip
from spiral_server.store.blocks import BLOCK_STEPS, Block, build, checksum, decode_frame
from spiral_server.store.protocol import Entry
from spiral_server.store.schema import RUN_TABLES, open_for_writing

LOOSE_FRAMES = BLOCK_STEPS + 64
"""Single frames that are kept before a block is made: the youngest stay single, where a repeated step is cheap."""
LOOSE_FRAMES_BUSY = 16 * BLOCK_STEPS
"""Single frames that may pile up while others wait to write; reading so many takes some 30 ms."""
HEAT_MAPS_KEPT = 1000
"""Heat maps of a run before every second of the older ones is dropped; at 16 KB each that is 16 MB."""
HEAT_MAPS_RECENT = 200
"""The newest heat maps are never thinned."""


class RunWriter:
    """The open database of one run.

    Parameters
    ----------
    run : str
        A checked run id.
    path : Path
        File of the database; its directory is created when it is missing.
    """

    def __init__(self, run: str, path: Path) -> None:
        self.run = run
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = open_for_writing(path, RUN_TABLES)
        self._marks: dict[int, tuple[int, float]] = {}
        self._read_marks()

    def _read_marks(self) -> None:
        rows = self._connection.execute("SELECT incarnation, seq, time FROM marks")
        self._marks = {incarnation: (seq, time) for incarnation, seq, time in rows}
        self._loose = int(self._connection.execute("SELECT COUNT(*) FROM frames").fetchone()[0])
        self._heat_maps = int(
            self._connection.execute("SELECT COUNT(*) FROM messages WHERE kind = 'heat-maps'").fetchone()[0]
        )

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit at the end, or forget everything on an error."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self._read_marks()
            raise

    def stored(self, incarnation: int) -> int:
        """Give the last sequence number on disk; -1 for none."""
        return self._marks.get(incarnation, (-1, 0.0))[0]

    def append(self, entries: Sequence[Entry]) -> None:
        """Write messages; those that are on disk already are passed over."""
        for message, data in entries:
            incarnation, seq, step = message.incarnation, message.seq, message.step
            if seq <= self.stored(incarnation):
                continue
            row = (incarnation, seq, step, data, checksum(data, incarnation, seq, step))
            if isinstance(message, Frame):
                self._connection.execute("INSERT INTO frames VALUES (?, ?, ?, ?, ?)", row)
                self._loose += 1
            elif isinstance(message, Strip):
                self._connection.execute("REPLACE INTO strips VALUES (?, ?, ?, ?, ?, ?)", (message.name, *row))
            else:
                kind = str(message.__struct_config__.tag)
                self._heat_maps += kind == "heat-maps"
                self._connection.execute(
                    "INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?)", (incarnation, seq, kind, *row[2:])
                )
            self._marks[incarnation] = (seq, message.time)
        for incarnation in {entry.message.incarnation for entry in entries} & self._marks.keys():
            self._connection.execute("REPLACE INTO marks VALUES (?, ?, ?)", (incarnation, *self._marks[incarnation]))

    def journal(self, record: CommandRecord) -> None:
        """Write a command, over an older state of it."""
        data = codec.encode(record)
        row = (record.number, record.id, data, checksum(data, record.number))
        self._connection.execute("REPLACE INTO commands VALUES (?, ?, ?, ?)", row)

    @property
    def compactable(self) -> bool:
        """Whether `compact` has something to do."""
        return self._loose > LOOSE_FRAMES or self._heat_maps > HEAT_MAPS_KEPT

    @property
    def overdue(self) -> bool:
        """Whether `compact` should not be put off any longer."""
        return self._loose > LOOSE_FRAMES_BUSY

    def compact(self) -> None:
        """Pack the oldest single frames into a block; thin out old heat maps."""
        if self._loose > LOOSE_FRAMES:
            self._pack_frames()
        if self._heat_maps > HEAT_MAPS_KEPT:
            self._thin_heat_maps()

    def _pack_frames(self) -> None:
        rows = self._connection.execute(
            "SELECT incarnation, seq, step, data, crc FROM frames "
            "WHERE incarnation = (SELECT MIN(incarnation) FROM frames) ORDER BY seq LIMIT ?",
            (BLOCK_STEPS,),
        ).fetchall()
        decoded = [(row, decode_frame(*row)) for row in rows]
        frames = [frame for _, frame in decoded if frame is not None]
        if frames:
            self._insert(build(frames))
        bad = [row[:3] for row, frame in decoded if frame is None]
        self._connection.executemany("INSERT INTO damaged VALUES (?, ?, ?)", bad)
        self._connection.executemany("DELETE FROM frames WHERE incarnation = ? AND seq = ?", [row[:2] for row in rows])
        self._loose -= len(rows)

    def _insert(self, block: Block) -> None:
        cursor = self._connection.execute(
            "INSERT INTO blocks (incarnation, first_seq, last_seq, first_step, last_step, count) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            block.numbers,
        )
        for table, data in (("block_data", block.data), ("block_summary", block.summary)):
            self._connection.execute(
                f"INSERT INTO {table} VALUES (?, ?, ?)",  # noqa: S608 - the two names above
                (cursor.lastrowid, data, checksum(data, *block.numbers)),
            )

    def _thin_heat_maps(self) -> None:
        self._connection.execute(
            "DELETE FROM messages WHERE rowid IN (SELECT place FROM (SELECT rowid AS place, ROW_NUMBER() OVER "
            "(ORDER BY incarnation DESC, seq DESC) AS age FROM messages WHERE kind = 'heat-maps') "
            "WHERE age > ? AND age % 2 = 0)",
            (HEAT_MAPS_RECENT,),
        )
        self._heat_maps -= self._connection.execute("SELECT changes()").fetchone()[0]

    def close(self) -> None:
        """Close the database."""
        self._connection.close()
