"""The store of a server, with a clock beside it: how long writing takes, and whether it works."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from spiral_core.wire.limits import COURIER_PACKET_BYTES
from spiral_core.wire.messages import CommandRecord
from spiral_server.metrics import Metrics
from spiral_server.store.protocol import Entry
from spiral_server.store.sqlite_store import SqliteStore

PROBE = "server.probe"


class MeasuredStore(SqliteStore):
    """`SqliteStore` that counts.

    Parameters
    ----------
    logdir : Path
    metrics : Metrics
    """

    def __init__(self, logdir: Path, metrics: Metrics) -> None:
        super().__init__(logdir)
        self._probe = logdir / PROBE
        self._metrics = metrics

    def append(self, run: str, entries: Sequence[Entry]) -> Future[None]:
        """Keep messages; the future is resolved when they are on disk."""
        begun = time.monotonic()
        future = super().append(run, entries)
        self._metrics.messages.inc(len(entries))
        self._metrics.bytes.inc(sum(len(entry.data) for entry in entries))
        if entries:
            self._metrics.lag.observe(max(0.0, time.time() - entries[-1].message.time))
        return self._timed("append", future, begun)

    def journal(self, record: CommandRecord, *, at_once: bool = False) -> Future[None]:
        """Keep a command; the future is resolved when it is on disk."""
        begun = time.monotonic()
        return self._timed("journal", super().journal(record, at_once=at_once), begun)

    def _timed(self, work: str, future: Future[None], begun: float) -> Future[None]:
        def done(written: Future[Any]) -> None:
            if written.exception() is None:
                self._metrics.store.labels(work).observe(time.monotonic() - begun)
            else:
                self._metrics.failures.labels(work).inc()

        future.add_done_callback(done)
        return future

    def trouble(self) -> str | None:
        """Tell why nothing can be written now; None when it can.

        Writes a file as large as what a courier brings at once, because a disk that is full or mounted read-only says
        so only then. What failed before says nothing of now; a run that alone cannot be written says so in its line.
        """
        try:
            file = os.open(self._probe, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                left = COURIER_PACKET_BYTES
                while left > 0:
                    left -= os.write(file, bytes(left))
                os.fsync(file)
            finally:
                os.close(file)
                self._probe.unlink(missing_ok=True)
        except OSError as error:
            return f"{self._probe.parent} cannot be written: {error.strerror}"
        return None
