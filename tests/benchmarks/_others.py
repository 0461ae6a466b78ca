"""What others take of this machine's cores: programs that are not the benchmark's, and threads of the kernel.

By the account of Linux's scheduler (``/proc/PID/task/TID/schedstat``: nanoseconds on a core); elsewhere nobody is seen.
What began or ended between two looks is missing, and who runs at the moment of a look may be some milliseconds ahead.
A look takes 1 to 3 ms of a core.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")


def _parents() -> dict[str, str]:
    """Give the parent of each process."""
    found = {}
    for one in os.listdir(_PROC) if _PROC.is_dir() else ():
        with suppress(OSError, IndexError):
            if one.isdigit():
                # The name before it, in parentheses, may hold anything.
                found[one] = (_PROC / one / "stat").read_text(errors="replace").rpartition(")")[2].split()[1]
    return found


def _threads(process: str) -> list[str]:
    with suppress(OSError):
        return os.listdir(f"/proc/{process}/task")
    return []


class Others:
    """All that is neither this process nor begun by it, as far as that was begun before."""

    def __init__(self) -> None:
        parents = _parents()
        self._ours = {str(os.getpid())}
        while more := {one for one, parent in parents.items() if parent in self._ours} - self._ours:
            self._ours |= more

    def look(self) -> dict[str, int]:
        """Give the nanoseconds that each of their threads has had so far."""
        found = {}
        for one in os.listdir(_PROC) if _PROC.is_dir() else ():
            if one.isdigit() and one not in self._ours:
                for thread in _threads(one):
                    with suppress(OSError), open(f"/proc/{one}/task/{thread}/schedstat", encoding="ascii") as account:
                        found[thread] = int(account.read().split()[0])
        return found


def taken_between(before: dict[str, int], after: dict[str, int]) -> float:
    """Give the milliseconds that were taken between two looks."""
    return sum(spent - before[thread] for thread, spent in after.items() if thread in before) / 1e6
