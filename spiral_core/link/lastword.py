"""What a courier says for an engine that has died without a last word.

The engine is the only one that appends to its run log while it lives. Once it is gone, its courier completes the log:
first the acknowledgement of a command that is in the applied log and that the engine did not live to acknowledge, then
the status ``failed``. So whoever reads the log to its end knows of every command that was applied, and that no more
will be.
"""

from __future__ import annotations

from collections.abc import Sequence

from spiral_core.link.applied import Entry
from spiral_core.wire import codec
from spiral_core.wire.messages import Ack, AnyMessage, KnobsDeclared, Logged, StatusChanged
from spiral_core.wire.parts import FINAL_STATUSES

DETAIL = "the engine has ended without a last word; it may have been killed"


class LastWord:
    """Follows a run log and knows what its end lacks.

    Parameters
    ----------
    run, incarnation
        Of the log.
    """

    def __init__(self, run: str, incarnation: int) -> None:
        self._run = run
        self._incarnation = incarnation
        self._seq = -1
        self._rev = 0
        self._last = b""

    def follow(self, seq: int, data: bytes) -> None:
        """Take note of a record of the log; one that was noted before changes nothing."""
        if seq <= self._seq:
            return
        self._seq = seq
        self._last = data
        if b"rev" in data:
            message = codec.decode(data)
            if isinstance(message, (Ack, KnobsDeclared)):
                self._rev = max(self._rev, message.rev)

    def missing(self, applied: Sequence[Entry], *, time: float, torn: int = 0) -> list[Logged]:
        """Give what has to be appended to a log that nobody writes any more; empty when its end was said.

        Parameters
        ----------
        applied : sequence of Entry
            Everything in the applied log.
        time : float
            Wall time, seconds since 1970.
        torn : int
            Bytes of a half-written record at the end, which is going to be cut off.
        """
        last = codec.decode(self._last) if self._last else None
        if isinstance(last, StatusChanged) and last.status in FINAL_STATUSES:
            return []
        said: list[Logged] = []
        for entry in applied:
            if entry.rev > self._rev:
                seq = self._seq + 1 + len(said)
                said.append(entry.ack(run=self._run, incarnation=self._incarnation, seq=seq, time=time))
        step = last.step if isinstance(last, Logged) else 0
        said.append(
            StatusChanged(
                run=self._run,
                incarnation=self._incarnation,
                seq=self._seq + 1 + len(said),
                step=_updates_done(last, step),
                time=time,
                status="failed",
                done=_updates_done(last, step),
                total=0,
                detail=f"{DETAIL}; {torn} bytes of a half-written record were cut off its log" if torn else DETAIL,
            )
        )
        return said


def _updates_done(last: AnyMessage | None, step: int) -> int:
    """Give the updates that were done; an acknowledgement speaks of the one to come."""
    return step - 1 if isinstance(last, Ack) else step
