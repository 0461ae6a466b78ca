"""How long a turn on a core this process asks the system for.

By itself Linux lets who computes finish its turn, of some milliseconds, before another one that has just been woken
runs on the same core. Server and courier are woken for a tenth of a millisecond of work that somebody waits for, beside
an engine that computes without a pause: they ask for turns so short that theirs come first. That is no priority: over
time each gets the same share. Since Linux 6.12 (sched_setattr(2), ``sched_runtime`` under SCHED_OTHER); elsewhere
nothing happens.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from contextlib import suppress

SHORT_NANOSECONDS = 100_000
"""The least that Linux takes."""
_SETATTR = {"x86_64": 314, "aarch64": 274}
"""Number of the system call, which the C library has no function for before glibc 2.41."""
_ATTR = struct.Struct("=IIQiIQQQ")
"""struct sched_attr, first version: size, policy, flags, nice, priority, runtime, deadline, period."""


def short_turns() -> None:
    """Ask for short turns for this thread, and for the threads and processes that it begins from now on."""
    _ask_for(SHORT_NANOSECONDS)


def usual_turns() -> None:
    """Ask for turns of the usual length: who computes and was started by a server has inherited its short ones."""
    _ask_for(0)


def _ask_for(nanoseconds: int) -> None:
    number = _SETATTR.get(platform.machine())
    if not sys.platform.startswith("linux") or number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attr = _ATTR.pack(_ATTR.size, os.SCHED_OTHER, 0, nice, 0, nanoseconds, 0, 0)
    with suppress(OSError, AttributeError):
        # Where it is refused, turns stay as they are.
        ctypes.CDLL(None).syscall(number, 0, attr, 0)
