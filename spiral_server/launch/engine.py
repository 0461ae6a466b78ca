"""An engine process: started as ``python -m spiral_core.cli train``, ended in order."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence

REFUSED = 2
"""Exit status of an engine whose options cannot be used."""

END_SECONDS = 1.3
"""An engine that was asked to stop says so to its server and leaves; after this long it is killed."""


class EngineProcess:
    """A training process that lives no longer than we do.

    It runs in a session of its own, so that Ctrl-C in our terminal reaches only us and we end it in order. It holds the
    reading end of a pipe whose writing end is ours: should we be killed, the pipe closes and the engine stops.

    Parameters
    ----------
    arguments : sequence of str
        Options of ``spiral train``.
    server : str
        Address of the server that the run is shown on.
    token : str
        Of that server; handed over in the environment, since arguments are visible to all users.
    report : int, optional
        Writing end of a pipe that is told the id of the run, or why there is none.
    """

    def __init__(self, arguments: Sequence[str], *, server: str, token: str, report: int | None = None) -> None:
        read_end, self._lifeline = os.pipe()
        words = [sys.executable, "-m", "spiral_core.cli", "train", "--server", server, "--lifeline", str(read_end)]
        words += [] if report is None else ["--report", str(report)]
        try:
            self._process = subprocess.Popen(
                [*words, *arguments],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=(read_end,) if report is None else (read_end, report),
                env={**surroundings(), "SPIRAL_TOKEN": token},
            )
        finally:
            os.close(read_end)

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def terminate(self) -> None:
        """Ask the engine to stop after its present step."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.poll() is not None

    @property
    def status(self) -> int | None:
        """Exit status; None while it runs, negative for a signal."""
        return self._process.poll()

    @property
    def refused(self) -> bool:
        """Whether the engine did not take its options."""
        return self._process.poll() == REFUSED

    def wait(self, seconds: float) -> int | None:
        """Wait until the engine ends by itself, at most for a time; give its exit status, None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        return None

    def finish(self, seconds: float = END_SECONDS) -> None:
        """Wait for the engine to end, at most for a time, then kill it."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with contextlib.suppress(OSError):
            os.close(self._lifeline)


def surroundings() -> dict[str, str]:
    """Give our environment without options of our own: the engine is told what it needs by its arguments."""
    kept = ("SPIRAL_CACHE_DIR", "SPIRAL_THREADS")
    return {name: value for name, value in os.environ.items() if not name.startswith("SPIRAL_") or name in kept}
