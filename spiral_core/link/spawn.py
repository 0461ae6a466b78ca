"""Starting and ending the courier process."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit, urlunsplit

from spiral_core.errors import ArgumentError
from spiral_core.link.doorbell import BellPush, hurry_line
from spiral_core.link.inbox import Inbox
from spiral_core.link.rundir import RunDir
from spiral_core.link.runlog import parts_of

FIRST_RESTART_SECONDS = 1.0
LAST_RESTART_SECONDS = 60.0


@dataclass
class CourierProcess:
    """A running courier and the doorbell that wakes it."""

    process: subprocess.Popen[bytes]
    doorbell: BellPush

    def finish(self, seconds: float) -> bool:
        """Let the courier deliver the rest, at most for a time, then end it; tell whether the server has everything."""
        self.doorbell.close()
        try:
            return self.process.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            self.process.terminate()
        try:
            self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        return False


class Thinner:
    """Starts the process that merges old frames when a run's logs outgrow their bound; one at a time.

    Parameters
    ----------
    rundir : RunDir
    limit : int
        Bytes of all files of its run logs.
    """

    def __init__(self, rundir: RunDir, limit: int) -> None:
        self._rundir = rundir
        self._limit = limit
        self._process: subprocess.Popen[bytes] | None = None

    def look(self) -> None:
        """Start it if there is need; where the system has no room for a process, that is told, and training goes on."""
        if self._process is not None and self._process.poll() is None:
            return
        try:
            self._start()
        except OSError as error:
            _tell(f"old frames cannot be merged now ({error}); it is tried again when the run log has grown")

    def _start(self) -> None:
        files = [file for _, path in self._rundir.logs() for file in parts_of(path)]
        if sum(file.stat().st_size for file in files) <= self._limit:
            return
        words = [sys.executable, "-m", "spiral_core.link.thinning", "--folder", str(self._rundir.path)]
        words += ["--run", self._rundir.id, "--limit", str(self._limit)]
        self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True)

    def finish(self) -> None:
        """End it; a file that it was at stays as it was."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()


class Line:
    """A run's way to its server: a courier, and another one when it dies.

    Parameters
    ----------
    rundir, incarnation
        Of the run; its log must exist.
    server : str or None
        Address of the server; None for a run that keeps to its log.
    token : str
        Of that server.
    inbox : Inbox
        Where commands arrive.

    Raises
    ------
    ArgumentError
        The address is none.
    """

    def __init__(self, rundir: RunDir, *, incarnation: int, server: str | None, token: str, inbox: Inbox) -> None:
        self._inbox = inbox
        self._start = (
            None
            if server is None
            else partial(start, rundir, incarnation=incarnation, server=server, token=token, inbox=inbox)
        )
        self._courier: CourierProcess | None = None
        self._delay = FIRST_RESTART_SECONDS
        self._restarted = -math.inf
        self._try()

    def _try(self) -> None:
        """Start a courier; where the system has no room for one, that is told, and it is tried again later."""
        if self._start is None:
            return
        try:
            self._courier = self._start()
        except OSError as error:
            _tell(f"no courier can be started now ({error}); training goes on, the log is kept, and it is tried again")

    def ring(self, at_once: bool) -> None:
        """Tell the courier, if there is one, that the log has grown."""
        if self._courier is not None:
            self._courier.doorbell.ring(at_once)

    def mend(self, now: float) -> None:
        """Start another courier when ours has died; less and less often while they go on dying young."""
        if not self._inbox.hung_up or self._start is None or now < self._restarted + self._delay:
            return
        old = now > self._restarted + LAST_RESTART_SECONDS
        self._delay = FIRST_RESTART_SECONDS if old else min(2 * self._delay, LAST_RESTART_SECONDS)
        self._restarted = now
        if self._courier is not None:
            self._courier.finish(0.0)
            self._courier = None
        if self._inbox.renew():
            self._try()

    def finish(self, seconds: float) -> bool:
        """Let the courier deliver the rest; tell whether the server has everything (True without a server)."""
        return self._start is None if self._courier is None else self._courier.finish(seconds)


def _tell(sentence: str) -> None:
    with contextlib.suppress(OSError):
        print(f"spiral: {sentence}", file=sys.stderr, flush=True)  # noqa: T201 - a process's own voice


def engine_socket(server: str) -> str:
    """Turn a server's address into the address of its engine websocket.

    Parameters
    ----------
    server : str
        ``http://host:port`` or ``https://host/path``.

    Raises
    ------
    ArgumentError
        Not an http(s) address.
    """
    parts = urlsplit(server)
    try:
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        # The port is no number, or beyond 65535.
        usable = False
    if not usable:
        raise ArgumentError(f"server = {server!r} cannot be used: give an address such as http://127.0.0.1:8787")
    scheme = "wss" if parts.scheme == "https" else "ws"
    return urlunsplit((scheme, parts.netloc, parts.path.rstrip("/") + "/ws/engine", "", ""))


def start(rundir: RunDir, *, incarnation: int, server: str, token: str, inbox: Inbox) -> CourierProcess:
    """Start a courier for a run; its log must exist by then.

    The token travels in the environment, because arguments can be read by every user of the machine.
    """
    url = engine_socket(server)
    try:
        bell_read, bell_write = os.pipe()
        hurry = hurry_line()
    except OSError:
        inbox.close_write_end()
        raise
    os.set_blocking(bell_write, False)
    bell = BellPush(bell_write, hurry)
    heard = [one for one in (bell_read, hurry) if one >= 0]
    words = [sys.executable, "-m", "spiral_core.link.courier", "--folder", str(rundir.path), "--run", rundir.id]
    words += ["--incarnation", str(incarnation), "--url", url]
    words += ["--doorbell", *map(str, heard), "--commands", str(inbox.write_end)]
    # The child is born deaf to Ctrl-C; otherwise one that comes while it still imports would end it with a traceback.
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            pass_fds=(*heard, inbox.write_end),
            env={**os.environ, "SPIRAL_TOKEN": token},
        )
    except OSError:
        bell.close()
        raise
    finally:
        signal.signal(signal.SIGINT, previous)
        os.close(bell_read)
        inbox.close_write_end()
    return CourierProcess(process=process, doorbell=bell)
