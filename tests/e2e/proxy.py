"""A small reverse proxy, as people put one in front: it serves another server below a path, websockets included.

It can also be as unkind as real ones are: refuse websockets and streams, or swallow them, and break everything off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Literal

from spiral_server.transport import stop_accepting

Manner = Literal["pass", "refuse", "swallow"]
"""Refused requests are answered with 403, swallowed ones never."""


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with suppress(OSError):
        writer.close()


class Proxy:
    """Takes ``prefix`` off each path and hands one request per connection on, with Host kept and the caller named."""

    def __init__(self, target: int, prefix: str, websockets: Manner, streams: Manner) -> None:
        self.target = target
        self.prefix = prefix
        self._websockets: Manner = websockets
        self._streams: Manner = streams
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.port = 0
        self.paths: list[str] = []

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Noted at once: a task that is cancelled before it has begun closes nothing.
        self._open.add(writer)
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head[:-4].split("\r\n")
            method, path, version = first.split(" ")
            self.paths.append(path)
            if not path.startswith(self.prefix):
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                await writer.drain()
                return
            upgrade = any(line.lower().startswith("upgrade:") for line in lines)
            manner = self._websockets if upgrade else self._streams if path.endswith("/events") else "pass"
            if manner == "refuse":
                writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                await writer.drain()
                return
            if manner == "swallow":
                await reader.read()
                return
            if not upgrade:
                lines = [line for line in lines if not line.lower().startswith("connection:")] + ["Connection: close"]
            lines += ["X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https"]
            inner, outer = await asyncio.open_connection("127.0.0.1", self.target)
            ends.append(outer)
            self._open.add(outer)
            path = path[len(self.prefix) :] or "/"
            outer.write("\r\n".join([f"{method} {path} {version}", *lines, "", ""]).encode("latin-1"))
            await asyncio.gather(_pump(reader, outer), _pump(inner, writer))
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            for end in ends:
                end.close()
            for end in ends:
                with suppress(OSError):
                    await end.wait_closed()
            self._open.difference_update(ends)

    def cut(self) -> None:
        """Break off every connection that is open now."""
        assert self._loop is not None

        def abort() -> None:
            for writer in list(self._open):
                writer.transport.abort()

        self._loop.call_soon_threadsafe(abort)

    async def run(self, started: asyncio.Event, stop: asyncio.Event) -> None:
        server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._loop = asyncio.get_running_loop()
        started.set()
        await stop.wait()
        await stop_accepting(server.sockets)
        server.close()
        # A task that is cancelled may have one thing more to wait for.
        for _ in range(5):
            await asyncio.sleep(0.01)
            # What a browser that is gone will never read must not be waited for.
            for writer in list(self._open):
                writer.transport.abort()
            ours = list(self._tasks)
            for task in ours:
                task.cancel()
            await asyncio.gather(*ours, return_exceptions=True)
        # An aborted connection is closed in a later turn.
        await asyncio.sleep(0.05)


@contextmanager
def proxying(
    target: int, prefix: str = "", *, websockets: Manner = "pass", streams: Manner = "pass"
) -> Iterator[Proxy]:
    """Run a proxy in a thread."""
    proxy = Proxy(target, prefix, websockets, streams)
    loop = asyncio.new_event_loop()
    started, stop = asyncio.Event(), asyncio.Event()

    def work() -> None:
        loop.run_until_complete(proxy.run(started, stop))
        loop.close()

    thread = Thread(target=work)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(started.wait(), loop).result(10)
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
