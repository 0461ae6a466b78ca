"""Which damage a reading should try to mend: not what is being mended, and not what was tried in vain.

Used by every thread that reads.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from threading import Lock

from spiral_server.store.protocol import Damage

PAUSE_SECONDS = 60.0
"""How long a run is left alone after it could not be written: a disk that is full is not waited for at each reading."""


class Attempts:
    """What has been tried."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._hopeless: dict[str, set[Damage]] = {}
        """Damage that the run log could not give back."""
        self._pending: dict[str, set[Damage]] = {}
        self._paused: dict[str, float] = {}
        """When a run is tried again."""

    def claim(self, run: str, found: Iterable[Damage]) -> set[Damage]:
        """Give what the caller should mend now; it says afterwards what became of it."""
        with self._lock:
            if time.monotonic() < self._paused.get(run, 0.0):
                return set()
            pending = self._pending.setdefault(run, set())
            claimed = set(found) - pending - self._hopeless.get(run, set())
            pending |= claimed
            return claimed

    def tried(self, run: str, claimed: set[Damage], left: Iterable[Damage]) -> None:
        """Take note of what is damaged still after mending."""
        with self._lock:
            self._pending[run] -= claimed
            self._hopeless.setdefault(run, set()).update(claimed & set(left))

    def failed(self, run: str, claimed: set[Damage]) -> None:
        """Take note that mending could not be tried: it is, some time later."""
        with self._lock:
            self._pending[run] -= claimed
            self._paused[run] = time.monotonic() + PAUSE_SECONDS

    def forget(self, run: str) -> None:
        """Try everything again."""
        with self._lock:
            self._hopeless.pop(run, None)
            self._paused.pop(run, None)
