"""What survives the loss of power: a file is on the disk when its bytes are, and its name in its folder as well.

And room on the disk that is kept for what must be written whatever happens.
"""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import cast


def write(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has its bytes; its name is brought there by `sync_folder`."""
    with path.open("wb", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Bring the names in a folder to the disk: of files that were made, renamed or deleted."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def make_folder(path: Path) -> None:
    """Make a folder, which must not be there, with those above it, and bring their names to the disk."""
    above = [folder.parent for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True)
    for folder in above:
        sync_folder(folder)


def allowed(size: int) -> bool:
    """Tell whether this process may make a file so large."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return limit == resource.RLIM_INFINITY or size <= limit


def hold(file: int, start: int, size: int) -> bool:
    """Have the disk keep room for a file behind its end, which stays where it is; tell whether it does.

    The room goes back when the file is cut at its end, as by `os.ftruncate`. Some file systems cannot.
    """
    return allowed(start + size) and _fallocate is not None and _fallocate(file, _KEEP_SIZE, start, size) == 0


def fits(file: int, start: int, size: int) -> bool:
    """Tell whether there is room for a file behind its end at this moment."""
    try:
        os.posix_fallocate(file, start, size)
    except OSError:
        return False
    finally:
        # A process that is killed here leaves zeros behind: a torn last line, which is cut.
        os.ftruncate(file, start)
    return True


def _find_fallocate() -> Callable[[int, int, int, int], int] | None:
    """Find the system call that Python does not offer: `os.posix_fallocate` moves the end of the file."""
    try:
        found = ctypes.CDLL(None).fallocate64
    except (OSError, AttributeError):
        return None
    found.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    found.restype = ctypes.c_int
    return cast(Callable[[int, int, int, int], int], found)


_KEEP_SIZE = 1
"""``FALLOC_FL_KEEP_SIZE`` of Linux, fallocate(2)."""
_fallocate = _find_fallocate()
