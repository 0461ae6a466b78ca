"""How the server writes its log: one line an event, for people or for programs, and never a token."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Sequence
from typing import Any, Literal, TextIO, TypeAlias

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

Format: TypeAlias = Literal["console", "json"]

_SHOWN = re.compile(r"((?:token=|bearer\s+|spiral_[0-9a-f]+=)\s*)[^\s&;\"',]+", re.IGNORECASE)
"""Where a token stands in an address, a header or a cookie."""
HIDDEN = "[hidden]"


class Hide:
    """Takes tokens out of whatever is about to be written.

    Parameters
    ----------
    secrets : sequence of str
        Tokens that are known, to be found wherever they stand.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = [secret for secret in secrets if secret]

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        """Hide the tokens of one event."""
        return {name: self._clean(value) for name, value in event.items()}

    def _clean(self, value: Any) -> Any:  # noqa: ANN401 - an event holds anything
        if not isinstance(value, str):
            return value
        for secret in self._secrets:
            value = value.replace(secret, HIDDEN)
        return _SHOWN.sub(rf"\1{HIDDEN}", value)


def configure(kind: Format = "console", level: str = "info", secrets: Sequence[str] = ()) -> None:
    """Write to standard error, which leaves standard output to the address of the page.

    The loggers of libraries write through the same door.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    render: list[Processor]
    if kind == "json":
        render = [structlog.processors.format_exc_info, Hide(secrets), structlog.processors.JSONRenderer()]
    else:
        console = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        render = [structlog.processors.format_exc_info, Hide(secrets), console]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = _StandardError()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    least = logging.getLevelNamesMapping()[level.upper()]
    # What libraries tell of themselves at each connection is theirs to read.
    for name, floor in (("spiral_server", least), *((one, max(logging.WARNING, least)) for one in _LIBRARIES)):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(floor)


_LIBRARIES = ("uvicorn", "asyncio", "websockets")


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to whatever standard error is at the moment."""

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, _: TextIO) -> None:
        """Stay with standard error."""
