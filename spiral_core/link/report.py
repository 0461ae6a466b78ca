"""What an engine tells the process that started it: the id of its run, or why there is none.

One line of JSON on a pipe, written once it is known. Whoever only wants to watch needs none of it.
"""

from __future__ import annotations

import contextlib
import json
import os

from spiral_core.errors import SpiralError


def started(pipe: int | None, run: str) -> None:
    """Tell which run is being trained."""
    _say(pipe, {"run": run})


def refused(pipe: int | None, error: SpiralError) -> None:
    """Tell why none is, and which field of what was asked for is to blame, where it is one."""
    _say(pipe, {"error": str(error), "field": getattr(error, "field", "")})


def _say(pipe: int | None, told: dict[str, str]) -> None:
    if pipe is not None:
        # Who asked may be gone; the run does not depend on it.
        with contextlib.suppress(OSError):
            os.write(pipe, json.dumps(told).encode() + b"\n")
