"""The way of a command with nothing on it: five processes that hand a line on, two of which write it down first.

As many processes as wake between a command and its acknowledgement (server, courier, engine, courier, server), and as
many writes with ``fsync``. What it takes is the machine's, about.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

WRITES = (True, False, True, False, False)
LINE = b"x" * 255 + b"\n"


def relay(source: int, sink: int, path: str) -> None:
    """Hand lines on until there are no more; ``path``: a file to write each to, or nothing."""
    page = bytes(4096)
    kept = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if path else -1
    while line := os.read(source, len(LINE)):
        if kept >= 0:
            os.write(kept, page)
            os.fsync(kept)
        os.write(sink, line)


@contextlib.contextmanager
def relays(folder: Path) -> Iterator[socket.socket]:
    """Start the processes; what is written to the socket comes back on it when it has passed them all."""
    pairs = [socket.socketpair() for _ in WRITES[1:]]
    ours, last = socket.socketpair()
    sources = [last, *(pair[1] for pair in pairs)]
    sinks = [*(pair[0] for pair in pairs), last]
    processes = []
    for number, (source, sink, writes) in enumerate(zip(sources, sinks, WRITES, strict=True)):
        words = [str(source.fileno()), str(sink.fileno()), str(folder / f"relay-{number}") if writes else ""]
        processes.append(
            subprocess.Popen([sys.executable, "-I", __file__, *words], pass_fds=(source.fileno(), sink.fileno()))
        )
    for one in (last, *(end for pair in pairs for end in pair)):
        one.close()
    try:
        yield ours
    finally:
        ours.close()
        for process in processes:
            process.wait(10)


def pass_once(ours: socket.socket) -> None:
    """Send a line through, and wait until it is back."""
    ours.sendall(LINE)
    left = len(LINE)
    while left:
        received = len(ours.recv(left))
        if not received:
            raise ConnectionError("a relay has ended")
        left -= received


if __name__ == "__main__":
    relay(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
