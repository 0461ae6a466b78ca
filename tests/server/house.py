"""A real server on a free port of this machine; a courier and a viewer that speak through real websockets."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from spiral_core.wire import codec
from spiral_core.wire.limits import MAX_PACKET_BYTES, PROTOCOL
from spiral_core.wire.messages import (
    AnyMessage,
    EngineHello,
    EngineWelcome,
    Message,
    Ping,
    Pong,
    ViewHello,
    ViewWelcome,
    Visibility,
)
from spiral_server.app import Server, create_app, uvicorn_config
from spiral_server.settings import Settings

TOKEN = "correct-horse"
PATIENCE = 5.0


class House:
    """A server that runs in a thread of this process."""

    def __init__(self, settings: Settings) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.settings = settings = replace(settings, port=self.port)
        self.url = f"http://127.0.0.1:{self.port}"
        self.app = create_app(settings)
        self._server = Server(uvicorn_config(self.app, settings))
        self._thread = Thread(target=self._server.run, kwargs={"sockets": [self._listener]})
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.005)

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.settings.token}"}

    @property
    def cookie(self) -> dict[str, str]:
        return {"Cookie": f"spiral_{self.settings.instance}={self.settings.token}"}

    def http(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, **{"headers": self.bearer, **options})

    def ask_to_end(self) -> None:
        self._server.should_exit = True

    def end(self) -> None:
        self.ask_to_end()
        self._thread.join(10)
        self._listener.close()
        assert not self._thread.is_alive()


class Peer:
    """One end of a websocket, in messages instead of bytes."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.seen: list[AnyMessage] = []
        self._unread: deque[AnyMessage] = deque()

    async def say(self, *messages: Message) -> None:
        await self.socket.send(codec.encode_packet(messages))

    async def packet(self) -> list[AnyMessage]:
        async with asyncio.timeout(PATIENCE):
            data = await self.socket.recv()
        assert isinstance(data, bytes)
        messages = codec.decode_packet(data)
        self.seen += messages
        self._unread.extend(messages)
        for message in messages:
            if isinstance(message, Ping):
                await self.say(Pong(time=message.time))
        return messages

    async def until(self, fits: Callable[[AnyMessage], bool]) -> AnyMessage:
        """Read on until a message fits."""
        while True:
            while self._unread:
                message = self._unread.popleft()
                if fits(message):
                    return message
            await self.packet()

    async def next_of(self, kind: type[Any], fits: Callable[[Any], bool] = lambda _: True) -> Any:
        return await self.until(lambda message: isinstance(message, kind) and fits(message))

    async def closed(self) -> int | None:
        """Read on until the other side closes; give its code."""
        async with asyncio.timeout(PATIENCE):
            with suppress(ConnectionClosed):
                while True:
                    await self.socket.recv()
            await self.socket.wait_closed()
        return self.socket.close_code


@asynccontextmanager
async def courier(house: House, run: str = "r1", incarnation: int = 0) -> AsyncIterator[Peer]:
    """Connect as the courier of a run; its welcome is the first message seen."""
    async with dial(house, "engine") as peer:
        await peer.say(EngineHello(protocol=PROTOCOL, run=run, incarnation=incarnation))
        assert isinstance((await peer.packet())[0], EngineWelcome)
        yield peer


@asynccontextmanager
async def viewer(house: House) -> AsyncIterator[Peer]:
    """Connect as a page, with the cookie and the Origin that a browser sends."""
    async with dial(house, "view", {**house.cookie, "Origin": house.url}) as peer:
        await peer.say(ViewHello(protocol=PROTOCOL))
        assert isinstance((await peer.packet())[0], ViewWelcome)
        yield peer


@asynccontextmanager
async def dial(
    house: House, road: str, headers: dict[str, str] | None = None, name: str = "127.0.0.1"
) -> AsyncIterator[Peer]:
    """Open a websocket without saying anything."""
    address = f"ws://{name}:{house.port}/ws/{road}"
    sent = house.bearer if headers is None else headers
    async with connect(
        address,
        host="127.0.0.1",
        additional_headers=sent,
        max_size=MAX_PACKET_BYTES,
        compression=None,
        proxy=None,
        close_timeout=1,
        ping_interval=None,  # a peer that a test lets sleep is to be closed by the server alone
    ) as socket:
        yield Peer(socket)


@contextmanager
def serving(logdir: Path, **options: Any) -> Iterator[House]:
    """Run a server on a directory."""
    house = House(Settings(logdir=logdir, token=TOKEN, **options))
    try:
        yield house
    finally:
        house.end()


def page(parent: Path) -> Path:
    """Write a page as the front end's build leaves it."""
    assets = parent / "page" / "assets"
    assets.mkdir(parents=True)
    (parent / "page" / "index.html").write_text("<!doctype html><title>Spiral</title>the page")
    (assets / "index-Abc12345.js").write_text("// code\n" * 1000)
    (parent / "secret").write_text("secret")
    return parent / "page"


async def hide(house: House, page: Peer) -> None:
    """Say that nobody looks at a page, which is the only one of which that is said, and wait until it is heeded."""
    await page.say(Visibility(visible=False))

    async def heeded() -> bool:
        return any(not viewer.visible for viewer in list(house.app.state.hub.audience.viewers))

    await eventually(heeded)


async def eventually(question: Callable[[], Awaitable[bool]]) -> None:
    """Ask until the answer is yes."""
    async with asyncio.timeout(PATIENCE):
        while not await question():
            await asyncio.sleep(0.01)
