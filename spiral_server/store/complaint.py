"""How a store says what went wrong beside the work that somebody waits for."""

from __future__ import annotations

from contextlib import suppress

import structlog

log = structlog.get_logger(__name__)


def complain(event: str, **details: str) -> None:
    """Say what went wrong, where that can be written: the log may lie on the very disk that is full."""
    with suppress(OSError):
        log.error(event, **details)
