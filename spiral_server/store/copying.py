"""Copies a run while others write it."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from spiral_server.store.errors import StoreError, UnknownRunError
from spiral_server.store.protocol import check_run_id
from spiral_server.store.schema import RUN_FILE

_NOT_COPIED = shutil.ignore_patterns(f"{RUN_FILE}*", "lock", "*.part", "thinning-*")


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
        # The database first: what the log has beyond it can be brought home from there, not the other way round.
        part.mkdir(parents=True)
        if (source / RUN_FILE).is_file():
            _copy_database(source / RUN_FILE, part / RUN_FILE)
        shutil.copytree(source, part, ignore=_NOT_COPIED, dirs_exist_ok=True)
        part.rename(made)
    except (OSError, sqlite3.Error) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise StoreError(f"run {run} cannot be copied to {target}: {error}") from error
    return made


def _copy_database(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as original, closing(sqlite3.connect(target)) as copy:
        original.execute("PRAGMA query_only = ON")
        original.backup(copy)
