"""Writes one run's database: messages, commands, and frames that are packed into blocks as they grow old.

Used by one thread at a time, inside a transaction that the caller opens and ends; any thread may put down a command
(`redo`). `compact_some` opens its own: what it does is done in parts of a few milliseconds, so that others need not
wait for the whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from spiral_core.errors import DecodeError
from spiral_core.wire import codec
from spiral_core.wire.messages import Frame, Strip
from spiral_server.store import migrations, pyramid
from spiral_server.store.blocks import BLOCK_STEPS, Block, build, checksum, decode_frame
from spiral_server.store.command_table import CommandTable
from spiral_server.store.marks import Mark, read_marks
from spiral_server.store.protocol import Damage, Entry
from spiral_server.store.redo import REDO_FILE, Disk, RedoLog
from spiral_server.store.schema import UNREADABLE

LOOSE_FRAMES = BLOCK_STEPS + 64
"""Single frames that are kept before a block is made: the youngest stay single, where a repeated step is cheap."""
LOOSE_FRAMES_BUSY = 16 * BLOCK_STEPS
"""Single frames that may pile up while others wait to write; reading so many takes some 30 ms."""
MERGE_ROWS = 1500
"""Rows, and commits, in the write-ahead log before it is merged into the database, which takes 5 ms and two syncs."""
MERGE_ROWS_BUSY = 8 * MERGE_ROWS
"""As many while others wait to write."""
HEAT_MAPS_KEPT = 1000
"""Heat maps of a run before every second of the older ones is dropped; at 16 KB each that is 16 MB."""
HEAT_MAPS_RECENT = 200
"""The newest heat maps are never thinned."""


def block_crc(identity: int, ordinal: int, numbers: Sequence[int]) -> int:
    """Sum up a row of the list of blocks."""
    return checksum(b"", identity, ordinal, *numbers)


@dataclass
class _Packing:
    """A block on its way: frames that have been read, and what has been made of them so far."""

    incarnation: int
    last_seq: int
    frames: list[Frame]
    bad: list[tuple[int, ...]]
    """Rows of the list of what is lost: frames that were damaged."""
    block: Block | None = None
    node: pyramid.Node | None = None


class RunWriter:
    """The open database of one run.

    Parameters
    ----------
    run : str
        A checked run id.
    path : Path
        File of the database; its directory is created when it is missing.
    """

    def __init__(self, run: str, path: Path, disk: Disk) -> None:
        self.run = run
        path.parent.mkdir(parents=True, exist_ok=True)
        self.redo = RedoLog(path.with_name(REDO_FILE), disk)
        self.connection = migrations.open_current(path)
        # By itself SQLite merges at the end of some commit, which may be one that is waited for.
        self.connection.execute("PRAGMA wal_autocheckpoint = 0")
        self._unmerged = 0
        self._commands = CommandTable(run, self.connection)
        self._read_marks()

    def _read_marks(self) -> None:
        self._marks = read_marks(self.connection)
        self._fresh: list[tuple[Frame, bytes]] = []
        self._packing: _Packing | None = None
        self._moved: set[int] = set()
        self._loose = self._count("frames")
        self._heat_maps = self._count("messages WHERE kind = 'heat-maps'")
        self._commands.read()
        rows = self.connection.execute("SELECT incarnation, MAX(ordinal) FROM blocks GROUP BY incarnation")
        self._ordinals = {incarnation: last + 1 for incarnation, last in rows}

    def _count(self, what: str) -> int:
        return int(self.connection.execute(f"SELECT COUNT(*) FROM {what}").fetchone()[0])  # noqa: S608 - our own words

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit at the end, or forget everything on an error."""
        before = self.connection.total_changes
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            entered = self._commands.enter(self.redo.pending)
            self._keep_frames()
            self._keep_marks()
            self.connection.execute("COMMIT")
            self._unmerged += 1 + self.connection.total_changes - before
            self.redo.entered(entered)
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            self._read_marks()
            raise

    def stored(self, incarnation: int) -> int:
        """Give the last sequence number on disk; -1 for none."""
        return self._mark(incarnation).seq

    def _mark(self, incarnation: int) -> Mark:
        return self._marks.get(incarnation, Mark())

    def probe(self) -> None:
        """Write what is there once more: fails where nothing can be written."""
        self._moved.update(self._marks or {0})

    def append(self, entries: Sequence[Entry]) -> None:
        """Write messages; those that are on disk already are passed over."""
        for message, data in entries:
            incarnation, seq, step = message.incarnation, message.seq, message.step
            mark = self._mark(incarnation)
            if seq <= mark.seq:
                continue
            frames, messages = mark.frames, mark.messages
            if isinstance(message, Frame):
                self._fresh.append((message, data))
                frames += 1
            elif isinstance(message, Strip):
                row = (message.name, incarnation, seq, step, data, checksum(data, incarnation, seq, step))
                self.connection.execute("REPLACE INTO strips VALUES (?, ?, ?, ?, ?, ?)", row)
            else:
                kind = str(message.__struct_config__.tag)
                self._heat_maps += kind == "heat-maps"
                messages += 1
                self.connection.execute(
                    "INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?)",
                    (incarnation, seq, kind, step, data, checksum(data, incarnation, seq, step)),
                )
            self._marks[incarnation] = Mark(seq, message.time, frames, messages)
            self._moved.add(incarnation)

    def _keep_frames(self) -> None:
        """Write the frames of this transaction: many of them as blocks at once, few one by one."""
        fresh, self._fresh = self._fresh, []
        for incarnation in sorted({frame.incarnation for frame, _ in fresh}):
            own = [pair for pair in fresh if pair[0].incarnation == incarnation]
            if len(own) >= BLOCK_STEPS:
                loose = self._read_loose(incarnation)
                self._take_out(loose)
                young = [(frame, b"") for frame in loose.frames] + own
                whole = len(young) - len(young) % BLOCK_STEPS
                for start in range(0, whole, BLOCK_STEPS):
                    self._insert(build([frame for frame, _ in young[start : start + BLOCK_STEPS]]))
                own = young[whole:]
            rows = []
            for frame, data in own:
                data = data or codec.encode(frame)
                numbers = (frame.incarnation, frame.seq, frame.step)
                rows.append((*numbers, data, checksum(data, *numbers)))
            self.connection.executemany("INSERT INTO frames VALUES (?, ?, ?, ?, ?)", rows)
            self._loose += len(rows)

    def _keep_marks(self) -> None:
        for incarnation in self._moved & self._marks.keys():
            mark = self._marks[incarnation]
            row = (incarnation, *mark, mark.crc(incarnation))
            self.connection.execute("REPLACE INTO marks VALUES (?, ?, ?, ?, ?, ?)", row)
        if self._moved - self._marks.keys():
            # Nothing is there yet; a write all the same.
            self._commands.keep_count()
        self._moved.clear()

    @property
    def compactable(self) -> bool:
        """Whether `compact_some` has something to do."""
        return self._loose > LOOSE_FRAMES or self._heat_maps > HEAT_MAPS_KEPT or self._unmerged > MERGE_ROWS

    @property
    def overdue(self) -> bool:
        """Whether `compact_some` should not be put off any longer."""
        return self._loose > LOOSE_FRAMES_BUSY or self._unmerged > MERGE_ROWS_BUSY

    def compact_some(self) -> None:
        """Merge the write-ahead log, or do the next part of packing old single frames, or thin out old heat maps.

        Frames are read, made into a block and summed up outside of a transaction; a last part writes everything.
        """
        if self._unmerged > MERGE_ROWS:
            self._unmerged = 0
            self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            return
        if self._loose <= LOOSE_FRAMES:
            with self.transaction():
                self._thin_heat_maps()
            return
        packing = self._packing
        if packing is None:
            self._packing = self._read_oldest()
        elif packing.frames and packing.block is None:
            packing.block = build(packing.frames)
        elif packing.block is not None and packing.node is None:
            packing.node = pyramid.summed_up(packing.block.columns)
        else:
            with self.transaction():
                self._pack(packing)

    def pack_all(self) -> None:
        """Pack every single frame: of a run that is not written any more."""
        while self._loose:
            self._pack(self._read_oldest())

    def _read_oldest(self) -> _Packing:
        (incarnation,) = self.connection.execute("SELECT MIN(incarnation) FROM frames").fetchone()
        return self._read_loose(incarnation, BLOCK_STEPS)

    def _read_loose(self, incarnation: int, most: int = -1) -> _Packing:
        """Read the oldest single frames; what is damaged is noted."""
        rows = self.connection.execute(
            "SELECT incarnation, seq, step, data, crc FROM frames WHERE incarnation = ? ORDER BY seq LIMIT ?",
            (incarnation, most),
        ).fetchall()
        decoded = [(row, decode_frame(*row)) for row in rows]
        return _Packing(
            incarnation,
            rows[-1][1] if rows else -1,
            [frame for _, frame in decoded if frame is not None],
            [(row[0], row[1], row[1], row[2], row[2], 1) for row, frame in decoded if frame is None],
        )

    def _take_out(self, packing: _Packing) -> None:
        """Delete single frames that are about to be written as a block."""
        self._packing = None
        # Up to the last of them: appended since are later ones only.
        gone = self.connection.execute(
            "DELETE FROM frames WHERE incarnation = ? AND seq <= ?", (packing.incarnation, packing.last_seq)
        )
        self._loose -= gone.rowcount
        self.connection.executemany("INSERT INTO lost VALUES (?, ?, ?, ?, ?, ?)", packing.bad)

    def _pack(self, packing: _Packing) -> None:
        self._take_out(packing)
        if packing.frames:
            self._insert(packing.block or build(packing.frames), packing.node)

    def _insert(self, block: Block, node: pyramid.Node | None = None) -> None:
        ordinal = self._ordinals.get(block.incarnation, 0)
        self._ordinals[block.incarnation] = ordinal + 1
        cursor = self.connection.execute(
            "INSERT INTO blocks (incarnation, first_seq, last_seq, first_step, last_step, count, ordinal, crc) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
            (*block.numbers, ordinal),
        )
        self._fill(int(cursor.lastrowid or 0), ordinal, block, node)

    def _fill(self, identity: int, ordinal: int, block: Block, node: pyramid.Node | None = None) -> None:
        """Write what belongs to a row of the list of blocks, and the pyramid above it."""
        self.connection.execute(
            "UPDATE blocks SET first_seq = ?, last_seq = ?, first_step = ?, last_step = ?, count = ?, crc = ? "
            "WHERE id = ?",
            (*block.numbers[1:], block_crc(identity, ordinal, block.numbers), identity),
        )
        self.connection.execute(
            "REPLACE INTO block_data VALUES (?, ?, ?)", (identity, block.data, checksum(block.data, *block.numbers))
        )
        self.keep_node(block.incarnation, 0, ordinal, node or pyramid.summed_up(block.columns))
        self.raise_pyramid(block.incarnation, ordinal)

    def raise_pyramid(self, incarnation: int, ordinal: int) -> None:
        """Sum up again what stands above a block, as far as it is complete."""
        level, place = 1, ordinal // pyramid.FANOUT
        while True:
            below = range(place * pyramid.FANOUT, (place + 1) * pyramid.FANOUT)
            nodes = [self._node(incarnation, level - 1, one) for one in below]
            whole = [node for node in nodes if node is not None]
            if len(whole) < pyramid.FANOUT:
                return
            self.keep_node(incarnation, level, place, pyramid.joined(whole))
            level, place = level + 1, place // pyramid.FANOUT

    def keep_node(self, incarnation: int, level: int, place: int, node: pyramid.Node) -> None:
        """Write a node of the pyramid."""
        data = pyramid.pack(node)
        row = (incarnation, level, place, data, checksum(data, incarnation, level, place))
        self.connection.execute("REPLACE INTO nodes VALUES (?, ?, ?, ?, ?)", row)

    def _node(self, incarnation: int, level: int, place: int) -> pyramid.Node | None:
        key = (incarnation, level, place)
        row = self.connection.execute(
            "SELECT data, crc FROM nodes WHERE incarnation = ? AND level = ? AND place = ?", key
        ).fetchone()
        if row is None or checksum(row[0], *key) != row[1]:
            return None
        try:
            return pyramid.unpack(row[0])
        except DecodeError:
            return None

    def _thin_heat_maps(self) -> None:
        gone = self.connection.execute(
            "DELETE FROM messages WHERE rowid IN (SELECT place FROM (SELECT rowid AS place, ROW_NUMBER() OVER "
            "(ORDER BY incarnation DESC, seq DESC) AS age FROM messages WHERE kind = 'heat-maps') "
            "WHERE age > ? AND age % 2 = 0) RETURNING incarnation",
            (HEAT_MAPS_RECENT,),
        ).fetchall()
        self._heat_maps -= len(gone)
        for (incarnation,) in gone:
            mark = self._mark(incarnation)
            self._marks[incarnation] = mark._replace(messages=mark.messages - 1)
            self._moved.add(incarnation)

    # --- mending

    def holds(self, entry: Entry) -> bool:
        """Tell whether a message is on disk as it is given here."""
        message = entry.message
        row = self.connection.execute(
            "SELECT data FROM messages WHERE incarnation = ? AND seq = ?", (message.incarnation, message.seq)
        ).fetchone()
        return row is not None and row[0] == entry.data

    def same_kind(self, entry: Entry) -> bool:
        """Tell whether the message on disk of this sequence number is of the same kind: thinning puts others there."""
        message = entry.message
        row = self.connection.execute(
            "SELECT kind FROM messages WHERE incarnation = ? AND seq = ?", (message.incarnation, message.seq)
        ).fetchone()
        return row is not None and row[0] == message.__struct_config__.tag

    def promised(self, block: Damage) -> int:
        """Count the frames that were written between the ends of a damaged block, with those that were taken out."""
        (frames,) = self.connection.execute("SELECT count FROM blocks WHERE id = ?", (block.row,)).fetchone()
        (lost,) = self.connection.execute(
            "SELECT TOTAL(count) FROM lost WHERE incarnation = ? AND first_seq <= ? AND last_seq >= ?",
            (block.incarnation, block.last_seq, block.first_seq),
        ).fetchone()
        return int(frames + lost)

    def replace_block(self, identity: int, frames: Sequence[Frame], *, lost: tuple[int, int] | None = None) -> None:
        """Put frames in the place of a block that is damaged.

        ``lost``: the first and last sequence number between which some are missing, which stays on record.
        """
        incarnation, first_step, last_step, ordinal, count = self.connection.execute(
            "SELECT incarnation, first_step, last_step, ordinal, count FROM blocks WHERE id = ?", (identity,)
        ).fetchone()
        self._fill(identity, ordinal, build(frames))
        missing = 0
        if lost is not None:
            missing = max(0, count - len(frames))
            row = (incarnation, *lost, first_step, last_step, missing)
            self.connection.execute("INSERT INTO lost VALUES (?, ?, ?, ?, ?, ?)", row)
        self._recount(incarnation, len(frames) + missing - count)

    def replace_row(self, table: str, message: Entry) -> None:
        """Put a message in the place of one that is damaged."""
        self._packing = None
        numbers = (message.message.incarnation, message.message.seq, message.message.step)
        self.connection.execute(
            f"UPDATE {table} SET step = ?, data = ?, crc = ? WHERE incarnation = ? AND seq = ?",  # noqa: S608
            (numbers[2], message.data, checksum(message.data, *numbers), *numbers[:2]),
        )

    def return_lost(self, row: int, frames: Sequence[Frame]) -> None:
        """Put frames back whose damaged rows have been taken out."""
        incarnation, count = self.connection.execute(
            "DELETE FROM lost WHERE rowid = ? RETURNING incarnation, count", (row,)
        ).fetchone()
        self._insert(build(frames))
        self._recount(incarnation, len(frames) - count)

    def _recount(self, incarnation: int, more: int) -> None:
        mark = self._mark(incarnation)
        self._marks[incarnation] = mark._replace(frames=mark.frames + more)
        self._moved.add(incarnation)

    def shrink(self) -> None:
        """Give space back to the file system; outside of a transaction."""
        self.connection.execute("VACUUM")
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close the database; commands that are not in it yet and cannot be written stay where they are."""
        try:
            if self.redo.pending:
                # What cannot be written now, or only after waiting for others, stays where it is.
                with suppress(*UNREADABLE):
                    self.connection.execute("PRAGMA busy_timeout = 0")
                    with self.transaction():
                        pass
        finally:
            self.redo.close()
            self.connection.close()
