"""Moves what a process has allocated into huge pages: fewer places to look up when it is woken.

Server and courier sleep most of the time and are woken for a moment of work that is spread over many pages of 4 KiB,
beside an engine that has used the core's table of pages (TLB) for its own. With all three in pages of 2 MiB, half of
the commands were acknowledged 0.1 to 0.5 ms sooner (`docs/performance.md`).

Linux does that by itself only where the administrator lets it do so for everybody. Whoever knows what stays in memory
can ask for it (madvise(2), ``MADV_COLLAPSE``, since Linux 6.1); elsewhere nothing happens.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

HUGE_BYTES = 2 * 1024 * 1024
"""Of a huge page, on x86-64, and on ARM where a page has 4 KiB."""
_MADV_COLLAPSE = 25
_ALLOWED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_MAPS = Path("/proc/self/smaps")
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \d+ *(.*)")


def collapse() -> int:
    """Move what is allocated now into huge pages, as far as it fills them; give the bytes that have been moved.

    To be called when a process has imported what it needs: what comes later is not moved. Takes up to 80 ms.
    """
    if not sys.platform.startswith("linux"):
        return 0
    moved = 0
    with suppress(OSError, AttributeError):
        if "[never]" in _ALLOWED.read_text(encoding="ascii"):
            return 0
        madvise = ctypes.CDLL(None).madvise
        madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        for begin, end in list(_filled(_MAPS.read_text(encoding="utf-8", errors="replace").splitlines())):
            # Where there is no room, or the system does not know how, the pages stay what they are.
            if madvise(begin, end - begin, _MADV_COLLAPSE) == 0:
                moved += end - begin
    return moved


def _filled(smaps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Find the addresses of whole huge pages in heap and anonymous mappings; those that are mostly empty are left."""
    begin = end = 0
    for line in smaps:
        if mapping := _MAPPING.fullmatch(line):
            first, last, rights, name = mapping.groups()
            begin = end = 0
            # Stacks of threads are anonymous, too, and nearly empty.
            if rights == "rw-p" and name in ("", "[heap]"):
                begin, end = int(first, 16), int(last, 16)
        elif line.startswith("Rss:") and int(line.split()[1]) * 1024 >= (end - begin) / 2:
            inner = -(-begin // HUGE_BYTES) * HUGE_BYTES, end // HUGE_BYTES * HUGE_BYTES
            if inner[0] < inner[1]:
                yield inner
