"""A proxy between browser and server that does what real ones do to websockets and to streams."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Literal

Manner = Literal["pass", "refuse", "swallow"]


class Proxy:
    """Passes requests on to a port of this machine.

    ``websockets`` and ``streams`` say what becomes of upgrades and of server-sent events: passed, refused with 403, or
    swallowed, which is never answered.
    """

    def __init__(self, target: int, *, websockets: Manner, streams: Manner) -> None:
        self._target = target
        self._manners: dict[str, Manner] = {"websocket": websockets, "stream": streams, "plain": "pass"}
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.seen: list[str] = []
        self._thread = Thread(target=self._loop.run_forever)
        self._thread.start()
        serving = asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result(10)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            await self._answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            await self._drop(writer)
            self._tasks.discard(task)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        first, _, rest = head.partition(b"\r\n")
        upgrade = b"\r\nupgrade: websocket" in head.lower()
        kind = "websocket" if upgrade else "stream" if b"/events " in first else "plain"
        self.seen.append(f"{kind} {first.split()[1].decode().split('?')[0]}")
        manner = self._manners[kind]
        if manner == "refuse":
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
        elif manner == "swallow":
            await reader.read()
        else:
            # One request for each connection: nothing but the head has to be understood.
            lines = [line for line in rest.split(b"\r\n") if upgrade or not line.lower().startswith(b"connection:")]
            close = [] if upgrade else [b"Connection: close"]
            await self._pass(b"\r\n".join([first, *close, *lines]), reader, writer)

    async def _pass(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers.add(up_writer)
        ways = [asyncio.ensure_future(_pipe(reader, up_writer)), asyncio.ensure_future(_pipe(up_reader, writer))]
        try:
            up_writer.write(head)
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            await self._drop(up_writer)

    async def _drop(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    def cut(self) -> None:
        """Break every connection that is open now."""

        def abort() -> None:
            for writer in list(self._writers):
                writer.transport.abort()

        self._loop.call_soon_threadsafe(abort)

    def end(self) -> None:
        """Stop."""

        async def finish() -> None:
            self._server.close()
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._server.wait_closed()

        asyncio.run_coroutine_threadsafe(finish(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@contextmanager
def proxy(target: int, *, websockets: Manner = "pass", streams: Manner = "pass") -> Iterator[Proxy]:
    """Run a proxy while a test needs it."""
    running = Proxy(target, websockets=websockets, streams=streams)
    try:
        yield running
    finally:
        running.end()
