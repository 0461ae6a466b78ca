"""What a request for a command must be like to be recorded at all; asked wherever one comes in, by HTTP or by file."""

from __future__ import annotations

from spiral_core.wire.messages import CommandRequest

MAX_REQUEST_BYTES = 64 * 1024
"""Of a request as JSON: 256 settings with long names fit."""
MAX_ID_CHARS = 64
MAX_ACTOR_CHARS = 120
"""A name and an address fit; a page of text does not."""
MAX_SETS = 256
"""More than any run has knobs."""
MAX_WAITING = 1000
"""Commands that may wait for an engine; a person clicks no faster than this in a lost hour."""
EXPIRED = "the run ended before this command was applied"
LARGEST = 2**53
"""Numbers beyond are no longer exact in a browser."""


def malformed(request: CommandRequest) -> str | None:
    """Tell why a request cannot even be recorded; None when it can."""
    if not 1 <= len(request.id) <= MAX_ID_CHARS:
        return f"id takes 1 to {MAX_ID_CHARS} characters; choose a new one for each command"
    if len(request.actor) > MAX_ACTOR_CHARS:
        return f"actor takes at most {MAX_ACTOR_CHARS} characters"
    if len(request.sets) > MAX_SETS:
        return f"one command sets at most {MAX_SETS} knobs"
    numbers = [request.steps, request.at_step, request.expected_rev, *(setting.value for setting in request.sets)]
    if any(isinstance(number, int) and abs(number) >= LARGEST for number in numbers):
        return f"whole numbers must be smaller than {LARGEST}: beyond, they are no longer exact everywhere"
    return None
