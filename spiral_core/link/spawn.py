"""Starting and ending the courier process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from spiral_core.errors import ArgumentError
from spiral_core.link.inbox import Inbox
from spiral_core.link.rundir import RunDir


@dataclass
class CourierProcess:
    """A running courier and the doorbell that wakes it."""

    process: subprocess.Popen[bytes]
    doorbell: int

    def ring(self) -> None:
        """Tell the courier that the log has grown. Never waits: a full pipe means that the bell rings already."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self.doorbell, b".")

    def finish(self, seconds: float) -> bool:
        """Let the courier deliver the rest, at most for a time, then end it; tell whether the server has everything."""
        with contextlib.suppress(OSError):
            os.close(self.doorbell)
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
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ArgumentError(f"server = {server!r} cannot be used: give an address such as http://127.0.0.1:8787")
    scheme = "wss" if parts.scheme == "https" else "ws"
    return urlunsplit((scheme, parts.netloc, parts.path.rstrip("/") + "/ws/engine", "", ""))


def start(rundir: RunDir, *, incarnation: int, server: str, token: str, inbox: Inbox) -> CourierProcess:
    """Start a courier for a run; its log must exist by then.

    The token travels in the environment, because arguments can be read by every user of the machine.
    """
    url = engine_socket(server)
    bell_read, bell_write = os.pipe()
    os.set_blocking(bell_write, False)
    words = [sys.executable, "-m", "spiral_core.link.courier", "--log", str(rundir.frames), "--run", rundir.id]
    words += ["--incarnation", str(incarnation), "--url", url]
    words += ["--doorbell", str(bell_read), "--commands", str(inbox.write_end)]
    # The child is born deaf to Ctrl-C; otherwise one that comes while it still imports would end it with a traceback.
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            pass_fds=(bell_read, inbox.write_end),
            env={**os.environ, "SPIRAL_TOKEN": token},
        )
    finally:
        signal.signal(signal.SIGINT, previous)
        os.close(bell_read)
        inbox.close_write_end()
    return CourierProcess(process=process, doorbell=bell_write)
