"""A disk that can be filled and emptied: a small tmpfs, or a limit on files where nothing may be mounted."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

BLOCK = 1 << 16


class SmallDisk:
    """A directory on a disk of its own.

    Parameters
    ----------
    path : Path
        Made by the caller.
    mounted : bool
        Whether a small disk is mounted there; else `fill` forbids the processes to let files grow.
    writers : callable
        Gives the ids of those processes.
    """

    def __init__(self, path: Path, *, mounted: bool) -> None:
        self.path = path
        self._mounted = mounted
        self.writers: Callable[[], list[int]] = list

    def fill(self) -> None:
        """Leave no room at all."""
        if not self._mounted:
            self._limit(1)
            return
        file = os.open(self.path / "ballast", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        size = BLOCK
        while size:
            try:
                os.write(file, bytes(size))
            except OSError:
                size //= 2
        os.close(file)

    def empty(self) -> None:
        """Make room again."""
        if self._mounted:
            (self.path / "ballast").unlink()
        else:
            self._limit(resource.RLIM_INFINITY)

    def _limit(self, size: int) -> None:
        for process in self.writers():
            hard = resource.prlimit(process, resource.RLIMIT_FSIZE)[1]
            resource.prlimit(process, resource.RLIMIT_FSIZE, (size, hard))


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """Make a disk of 32 MB in a folder, for a time."""
    path = folder / "small"
    path.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=32m,mode=700", "tmpfs", str(path)]
    mounted = os.geteuid() == 0 and subprocess.run(words, capture_output=True, check=False).returncode == 0
    try:
        yield SmallDisk(path, mounted=mounted)
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(path)], check=True)
