"""Processes that are ours beyond doubt: a number alone may have passed on to a stranger.

Linux gives numbers of processes anew. The time at which a process started, counted from the start of the machine, and
the id of that start tell it apart from every other one; a signal goes through a descriptor that stays with the process.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import msgspec


class Process(msgspec.Struct, frozen=True):
    """One process, and no other one."""

    pid: int
    start: int
    """Clock ticks from the start of the machine."""
    boot: str
    """Id of that start."""

    @property
    def alive(self) -> bool:
        """Whether it still runs; one that has ended and waits for its parent does not."""
        return identified(self.pid) == self

    def send(self, number: signal.Signals) -> bool:
        """Send a signal, to this process or to none; tell whether it was there."""
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(self.pid)
            try:
                # The descriptor keeps to the process that has the number now: it is looked at after it was opened.
                if self.alive:
                    signal.pidfd_send_signal(handle, number)
                    return True
            finally:
                os.close(handle)
        return False


def identified(pid: int) -> Process | None:
    """Tell which process has a number now; None where none has."""
    try:
        # The name, in brackets, may hold anything, blanks and brackets too.
        told = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
    # proc(5): the fields after the name begin with the third one, the state; the 22nd is the start.
    state, start = told[0], int(told[19])
    return None if state in "ZX" else Process(pid, start, boot)
