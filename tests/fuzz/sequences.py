"""What is said at a door in one visit, drawn at random: greetings, messages, nonsense, and how the visitor leaves."""

from __future__ import annotations

import asyncio
import struct
from contextlib import suppress
from random import Random
from typing import get_args

import httpx
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from spiral_core.wire import codec
from spiral_core.wire.limits import PROTOCOL
from spiral_core.wire.messages import (
    Compare,
    EngineHello,
    Message,
    Ping,
    Pong,
    RunMessage,
    ViewHello,
    Visibility,
    Watch,
)

from . import noise
from .besieged import DOCUMENTED, PATIENCE, STEADY, Besieged

RUNS = ("fz0", "fz1", "fz2", "fz3")
ASKS = (Watch, Compare, Visibility, Ping, Pong)
LOGGED = get_args(RunMessage)
FIT = DOCUMENTED - {1011, 1013}
"""Codes for what a visitor says; the others mean that the server has failed, or its disk."""
LAST = 1e9 + 0.5
"""Time of the heartbeat that a visitor waits for in the end."""
NO_FRAMES = (b"\xf2\x80\0\0\0\0", b"\x8b\x80\0\0\0\0", b"\x82\x01x", b"\x88\x81\0\0\0\0x")


class Visit:
    """One connection, from its handshake to its end.

    Parameters
    ----------
    random : Random
        Draws everything.
    server : Besieged
    door : str
        ``"engine"``, ``"view"``, or ``"http"`` for the same as the second over plain HTTP.
    """

    def __init__(self, random: Random, server: Besieged, door: str) -> None:
        self._random = random
        self._server = server
        self._door = door
        self._role = random.choice(("owner",) * 25 + ("viewer", "operator", "engine", "wrong", "none"))
        self._run = random.choice(RUNS)
        self._incarnation = random.randrange(3)
        self._mischief = random.choice((0.01, 0.05, 0.5))
        """Share of packets that are not what they should be."""
        self._seq = random.choice((-1, -1, 0, random.randrange(50)))
        self._said: list[bytes] = []
        self.packets = 0
        """Sent."""
        self.code: int | None = None
        """With which the connection was closed; None where the visitor has cut it."""
        self._answered = asyncio.Event()

    # --- what is said

    def hello(self) -> Message:
        """Draw a greeting, mostly the right one."""
        random = self._random
        protocol = PROTOCOL if random.random() > self._mischief / 10 else random.choice(noise.NUMBERS)
        if (self._door == "engine") is (random.random() > self._mischief / 10):
            run = self._run if random.random() > self._mischief / 10 else random.choice(noise.TEXTS)
            return EngineHello(protocol=protocol, run=run, incarnation=self._incarnation)
        return ViewHello(protocol=protocol)

    def next_message(self) -> Message:
        """Draw what may be said next at this door, or now and then at another."""
        random = self._random
        if random.random() < self._mischief / 4:
            return noise.message(random)
        if self._door == "engine":
            self._seq += random.choice((0, 1, 1, 1, 5))
            which = {"run": self._run, "incarnation": self._incarnation, "seq": max(0, self._seq)}
            return noise.as_of(random, noise.message(random, LOGGED), self._mischief / 4, **which)
        drawn = noise.message(random, ASKS)
        runs = [*RUNS, STEADY, "", "none"]
        if isinstance(drawn, Watch):
            since = random.choice((None, 0, drawn.since))
            return Watch(run=random.choice(runs), width=drawn.width, epoch=drawn.epoch, since=since)
        if isinstance(drawn, Compare):
            return Compare(runs=random.sample(runs, 2), series=["train/s0", "train/s1"], width=drawn.width)
        return drawn

    def packet(self) -> bytes:
        """Draw a packet, right or not."""
        random = self._random
        if random.random() > self._mischief:
            return codec.encode_packet([self.next_message() for _ in range(random.randint(1, 4))])
        match random.randrange(6):
            case 0 if self._said:
                return random.choice(self._said)
            case 1:
                return noise.garbage(random)
            case 2:
                return codec.join([noise.nearly(random, self.next_message())])
            case 3:
                return noise.damaged(random, codec.encode_packet([self.next_message()]))
            case 4:
                return codec.encode_packet([self.hello()])
            case _:
                return codec.encode_packet([noise.message(random)])

    # --- how it is said

    async def pay(self) -> None:
        """Visit; what the server does must be documented, and must be done in time."""
        async with asyncio.timeout(PATIENCE):
            if self._door == "http":
                await self._over_http()
            else:
                await self._over_websocket()

    async def _over_websocket(self) -> None:
        socket = await self._server.dial(self._door, self._role)
        heard = asyncio.create_task(self._listen(socket))
        left = False
        with suppress(ConnectionClosed):
            if self._random.random() > self._mischief / 5:
                await self._send(socket, codec.encode_packet([self.hello()]))
            for _ in range(self._random.randrange(30)):
                await self._send(socket, self.packet())
            left = await self._leave(socket)
        if not left:
            await self._answered.wait()
            await socket.close()
        await socket.wait_closed()
        await heard
        if not left:
            self.code = socket.close_code
            assert self.code in FIT, f"closed with {self.code} ({socket.close_reason})"

    async def _listen(self, socket: ClientConnection) -> None:
        """Read everything; take note of the answer to the last heartbeat, or of the end."""
        with suppress(ConnectionClosed):
            async for data in socket:
                assert isinstance(data, bytes)
                if Pong(time=LAST) in codec.decode_packet(data):
                    self._answered.set()
        self._answered.set()

    async def _send(self, socket: ClientConnection, packet: bytes) -> None:
        self.packets += 1
        self._said.append(packet)
        if self._random.random() < self._mischief / 10:
            await socket.send(packet.decode("latin-1"))
        elif self._random.random() < self._mischief / 10:
            await socket.send(packet, text=True)
        elif self._random.random() < 0.1:
            at = self._random.randrange(len(packet) + 1)
            await socket.send([packet[:at], packet[at:]])
        else:
            await socket.send(packet)

    async def _leave(self, socket: ClientConnection) -> bool:
        """Leave in one of several ways; tell whether it was the visitor who ended the connection.

        Where it was not, a server that is well closes, or has closed already, or answers a heartbeat.
        """
        which = self._random.randrange(8)
        if which == 0:
            socket.transport.abort()
        elif which == 1:
            # The beginning of a frame of which no more comes.
            socket.transport.write(b"\x82\xfe" + struct.pack(">H", 1000) + self._random.randbytes(20))
            socket.transport.write_eof()
        elif which == 2:
            # No frames: reserved bits, an unknown opcode, one that is not masked, a close frame of one byte.
            socket.transport.write(self._random.choice(NO_FRAMES))
        elif which == 3:
            await socket.send(b"\x01")
        else:
            await socket.send(codec.encode_packet([self.hello()] if not self._said else []))
            await socket.send(codec.encode_packet([Ping(time=LAST)]))
        return which < 2

    async def _over_http(self) -> None:
        random = self._random
        async with httpx.AsyncClient(
            base_url=self._server.url, headers=self._server.headers(self._role), timeout=PATIENCE, verify=False
        ) as http:
            first = codec.encode_packet([self.hello()]) if random.random() > self._mischief / 5 else self.packet()
            begun = await http.post("/http/view", content=first)
            self._look(begun, {201, 400, 401, 403, 410, 413})
            name = begun.json().get("view", "none")
            for _ in range(random.randrange(8)):
                packet = self.packet()
                match random.randrange(8):
                    case 0:
                        # An answer waits until there is something; a visitor does not.
                        with suppress(TimeoutError):
                            async with asyncio.timeout(0.05):
                                answer = await http.get(f"/http/view/{name}/poll")
                                self._look(answer, {200, 401, 403, 404, 410})
                    case 1:
                        with suppress(TimeoutError):
                            async with asyncio.timeout(0.05), http.stream("GET", f"/http/view/{name}/events") as told:
                                await anext(told.aiter_bytes(), None)
                    case _:
                        self.packets += 1
                        answer = await http.post(f"/http/view/{name}", content=packet)
                        self._look(answer, {204, 401, 403, 404, 410, 413})
            # What is no packet at any time ends the conversation.
            self._look(await http.post(f"/http/view/{name}", content=b"\x01"), {401, 403, 404, 410})

    def _look(self, answer: httpx.Response, allowed: set[int]) -> None:
        assert answer.status_code in allowed, (answer.request, answer.status_code, answer.text)
        if answer.status_code == 410:
            self.code = answer.json()["code"]
            assert self.code in FIT, answer.text
