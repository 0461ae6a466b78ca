"""The tokens of a running server: followed on disk, so that one that is taken back opens nothing from then on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog

from spiral_core.errors import ConfigError
from spiral_server.launch import tokens
from spiral_server.live.tokens import Holder, TokenBook, TokenRecord

log = structlog.get_logger(__name__)

LOOK_SECONDS = 0.2
"""Between two looks at the file by a server that nobody asks anything: at most this long an open connection outlives
its token."""


class Doorkeeper:
    """Who may come in now: the owner's token and the file's, always as they are at this moment.

    Parameters
    ----------
    logdir : Path
    owner : str
        The server's own token.
    """

    def __init__(self, logdir: Path, owner: str) -> None:
        self._logdir = logdir
        self._file = logdir / tokens.FILE
        self._owner = owner
        self._stamp: tuple[int, int, int] | None = None
        self._book = TokenBook(owner)
        self._turned = asyncio.Event()
        self.look()

    def look(self, *, again: bool = False) -> TokenBook:
        """Give the tokens of this moment; ``again`` reads the file also when it looks unchanged.

        While the file is damaged nobody comes in with a named token.
        """
        stamp = self._stamp_now()
        if stamp == self._stamp and not again:
            return self._book
        self._stamp = stamp
        records: list[TokenRecord] = []
        try:
            records = tokens.read(self._logdir)
        except ConfigError as error:
            log.error("no named token is accepted", reason=str(error))
        self._book = TokenBook(self._owner, records)
        turned, self._turned = self._turned, asyncio.Event()
        turned.set()
        return self._book

    def _stamp_now(self) -> tuple[int, int, int] | None:
        with suppress(OSError):
            status = self._file.stat()
            return (status.st_mtime_ns, status.st_size, status.st_ino)
        return None

    async def until_revoked(self, token: str, holder: Holder) -> None:
        """Wait until a token no longer stands for its holder."""
        while self.look().holder(token) == holder:
            await self._turned.wait()

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Look at the file a few times a second for as long as this is open."""
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()
