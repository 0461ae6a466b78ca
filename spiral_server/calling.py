"""The way back from threads to the event loop: what they finish in one moment wakes the loop once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

Answer = Callable[[BaseException | None], None]


class Calling:
    """Makes callbacks for futures of threads that call back on the event loop, in the order in which these are done.

    A commit ends a handful of jobs; to wake the loop for each of them costs it as many turns and calls of the system.
    """

    def __init__(self) -> None:
        self._done: deque[tuple[Answer, BaseException | None]] = deque()
        self._woken = False

    def back(self, answer: Answer) -> Callable[[Future[Any]], None]:
        """Make a callback that gives ``answer`` the error of a future, or None, on the loop that runs now."""
        loop = asyncio.get_running_loop()

        def call(future: Future[Any]) -> None:
            self._done.append((answer, future.exception()))
            if not self._woken:
                self._woken = True
                loop.call_soon_threadsafe(self._answer_all)

        return call

    def _answer_all(self) -> None:
        # Cleared before the first look: what is added behind the last one wakes the loop again.
        self._woken = False
        try:
            while self._done:
                answer, error = self._done.popleft()
                answer(error)
        finally:
            # One that fails must not keep the others waiting.
            if self._done:
                asyncio.get_running_loop().call_soon(self._answer_all)
