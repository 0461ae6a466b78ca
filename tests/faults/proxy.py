"""A TCP proxy between couriers and their server: it can be cut, stalled and throttled, and reads along.

What it reads tells which records the server has said to be on its disk, whatever becomes of the two afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from websockets.exceptions import WebSocketException
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from spiral_core.errors import DecodeError
from spiral_core.wire import codec
from spiral_core.wire.messages import EngineHello, EngineWelcome, Message, Stored
from spiral_server.transport import stop_accepting

SLICE_BYTES = 2048
"""What a throttled line passes on at a time."""


class Tap:
    """Reads the messages of one direction of a websocket out of the bytes that pass."""

    def __init__(self, *, masked: bool) -> None:
        self._masked = masked
        self._head = b""
        self._opened = False
        self._bytes = StreamReader()
        self._parser: Any = None

    def feed(self, data: bytes) -> list[Message]:
        """Give the messages that these bytes complete."""
        if not self._opened:
            self._head += data
            if b"\r\n\r\n" not in self._head:
                return []
            self._opened = True
            data = self._head.partition(b"\r\n\r\n")[2]
        self._bytes.feed_data(data)
        found: list[Message] = []
        with contextlib.suppress(DecodeError, WebSocketException):
            while (frame := self._frame()) is not None:
                if frame.opcode is Opcode.BINARY:
                    found += codec.decode_packet(bytes(frame.data))
        return found

    def _frame(self) -> Frame | None:
        if self._parser is None:
            self._parser = Frame.parse(self._bytes.read_exact, mask=self._masked)
        try:
            next(self._parser)
        except StopIteration as done:
            self._parser = None
            frame: Frame = done.value
            return frame
        return None


@dataclass
class Promises:
    """For each incarnation the last sequence number that a courier was told to be on the server's disk."""

    stored: dict[int, int] = field(default_factory=dict)

    def keep(self, incarnation: int | None, message: Message) -> None:
        """Take note of what the server says."""
        if incarnation is not None and isinstance(message, (Stored, EngineWelcome)):
            seq = message.seq if isinstance(message, Stored) else message.stored
            self.stored[incarnation] = max(self.stored.get(incarnation, -1), seq)


class Proxy:
    """Listens on a port of its own and passes everything on to a port of this machine.

    Attributes
    ----------
    port : int
        Where it listens, also while the line is cut.
    promises : Promises
    """

    def __init__(self) -> None:
        self.promises = Promises()
        self.target = 0
        self._rate = 0
        """Bytes per second; 0: no limit."""
        self._cut = False
        self._lines: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._flows = asyncio.Event()
        self._server = self._call(self._listen())
        self.port: int = self._server.sockets[0].getsockname()[1]

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _listen(self) -> asyncio.Server:
        self._flows.set()
        return await asyncio.start_server(self._connected, "127.0.0.1", 0)

    def cut(self) -> None:
        """Break every connection, and refuse new ones."""
        self._call(self._set(cut=True, flows=True, rate=0))

    def stall(self) -> None:
        """Keep every connection, and pass nothing on."""
        self._call(self._set(cut=False, flows=False, rate=0))

    def throttle(self, rate: int) -> None:
        """Pass on this many bytes per second, in each direction of each connection."""
        self._call(self._set(cut=False, flows=True, rate=rate))

    def mend(self) -> None:
        """Pass everything on at once."""
        self._call(self._set(cut=False, flows=True, rate=0))

    async def _set(self, *, cut: bool, flows: bool, rate: int) -> None:
        self._cut, self._rate = cut, rate
        if flows:
            self._flows.set()
        else:
            self._flows.clear()
        if cut:
            for writer in list(self._lines):
                writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = [writer]
        self._lines.add(writer)
        try:
            if not self._cut:
                there, back = await asyncio.open_connection("127.0.0.1", self.target)
                lines.append(back)
                self._lines.add(back)
                await self._carry(reader, back, there, writer)
        except OSError:
            pass
        finally:
            for line in lines:
                self._lines.discard(line)
                line.transport.abort()

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        back: asyncio.StreamWriter,
        there: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        up, down = Tap(masked=True), Tap(masked=False)
        incarnation: int | None = None

        def note_up(data: bytes) -> None:
            nonlocal incarnation
            if incarnation is None:
                hellos = (message for message in up.feed(data) if isinstance(message, EngineHello))
                incarnation = next((hello.incarnation for hello in hellos), None)

        def note_down(data: bytes) -> None:
            for message in down.feed(data):
                self.promises.keep(incarnation, message)

        pumps = [
            asyncio.create_task(self._pump(reader, back, note_up)),
            asyncio.create_task(self._pump(there, writer, note_down)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, note: Callable[[bytes], None]
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                while data:
                    await self._flows.wait()
                    part = data[:SLICE_BYTES] if self._rate else data
                    data = data[len(part) :]
                    if self._rate:
                        await asyncio.sleep(len(part) / self._rate)
                    # Before it is on its way: what the other end may act on has been noted.
                    note(part)
                    sink.write(part)
                    await sink.drain()

    def close(self) -> None:
        """Break every connection and stop listening."""
        self._call(self._set(cut=True, flows=True, rate=0))
        self._call(self._leave())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _leave(self) -> None:
        await stop_accepting(self._server.sockets)
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # Transports that were aborted close their sockets in the next round.
        await asyncio.sleep(0)
