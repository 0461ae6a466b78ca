"""What survives the loss of power: a file is on the disk when its bytes are, and its name in its folder as well."""

from __future__ import annotations

import os
from pathlib import Path


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
