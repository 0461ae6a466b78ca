"""Copies a run while others write it."""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from spiral_server.store import redo
from spiral_server.store.errors import StoreError, UnknownRunError
from spiral_server.store.protocol import check_run_id
from spiral_server.store.redo import REDO_FILE
from spiral_server.store.schema import RUN_FILE

ATTEMPTS = 5
"""At reading commands while they are written."""
_NOT_COPIED = shutil.ignore_patterns(f"{RUN_FILE}*", REDO_FILE, "lock", "*.part", "thinning-*")


def back_up(logdir: Path, run: str, target: Path) -> Path:
    """Copy a run directory under another directory; give the copy's path.

    The database is copied by SQLite itself, in one state, whoever writes to it meanwhile. A run log that grows is
    copied up to some record; one that is torn there is read up to the last whole one.

    Raises
    ------
    StoreError
        There is such a copy already, or the disk does not take it; then nothing is left of it.
    """
    source = logdir / check_run_id(run)
    if not source.is_dir():
        raise UnknownRunError(f"there is no run {run!r} in {logdir}")
    made = target / run
    if made.exists():
        raise StoreError(f"{made} exists already: choose another directory, or delete it")
    part = target / f".copying-{run}"
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        # What stands there may be in the database a moment later, and never the other way round.
        _copy_commands(source / REDO_FILE, part / REDO_FILE)
        # The database before the log: what that has beyond it can be brought home from there.
        if (source / RUN_FILE).is_file():
            _copy_database(source / RUN_FILE, part / RUN_FILE)
        shutil.copytree(source, part, ignore=_NOT_COPIED, dirs_exist_ok=True)
        part.rename(made)
    except (OSError, sqlite3.Error) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise StoreError(f"run {run} cannot be copied to {target}: {error}") from error
    return made


def _copy_commands(source: Path, target: Path) -> None:
    left = redo.read(source)
    for _ in range(ATTEMPTS):
        if not left.damage:
            break
        # Read while one was being written.
        time.sleep(0.01)
        left = redo.read(source)
    copy = redo.RedoLog(target, redo.Disk())
    for record in left.records:
        copy.append(record)
    copy.close()


def _copy_database(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as original, closing(sqlite3.connect(target)) as copy:
        original.execute("PRAGMA query_only = ON")
        original.backup(copy)
