"""Hundreds of viewers and one courier in one light process: bare sockets, one epoll, frames parsed by hand.

All viewers of a run get the same bytes, so that a packet is decoded once and recognized three hundred times. What the
client costs in spite of that is printed beside what the server costs.
"""

from __future__ import annotations

import base64
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import psutil
from websockets.frames import Frame as WebsocketFrame
from websockets.frames import Opcode

from spiral_core.wire import codec
from spiral_core.wire.limits import PROTOCOL
from spiral_core.wire.messages import (
    AnyMessage,
    EngineHello,
    Frame,
    Message,
    Ping,
    Pong,
    RunStarted,
    SeriesDeclared,
    StatusChanged,
    ViewHello,
)
from spiral_core.wire.parts import Array, SeriesSpec


class BareSocket:
    """A websocket, as far as a benchmark needs one."""

    def __init__(self, port: int, token: str, road: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET /ws/{road} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        )
        self._buffer = b""
        while b"\r\n\r\n" not in self._buffer:
            self._buffer += self.socket.recv(65536)
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        if b" 101 " not in head.split(b"\r\n", 1)[0]:
            raise ConnectionError(head.decode())
        self.received = 0

    def say(self, *messages: Message) -> None:
        """Send messages as one packet."""
        self.write(codec.encode_packet(messages))

    def write(self, packet: bytes) -> None:
        """Send a packet."""
        self.socket.sendall(WebsocketFrame(Opcode.BINARY, packet).serialize(mask=True))

    def _receive(self) -> bytes:
        return self.socket.recv(1 << 18)

    def read(self) -> list[bytes]:
        """Read what is there; give the packets that are whole."""
        data = self._receive()
        if not data:
            raise ConnectionError("the server has closed a connection")
        self.received += len(data)
        if self._buffer:
            data = self._buffer + data
        packets = []
        at = 0
        while len(data) - at >= 2:
            length, begin = data[at + 1], at + 2
            if length == 126:
                if len(data) - at < 4:
                    break
                length, begin = struct.unpack_from(">H", data, at + 2)[0], at + 4
            elif length == 127:
                if len(data) - at < 10:
                    break
                length, begin = struct.unpack_from(">Q", data, at + 2)[0], at + 10
            if begin + length > len(data):
                break
            if data[at] != 0x82:
                raise ConnectionError(f"the server has sent a frame that is no whole binary message: {data[at]:#x}")
            packets.append(data[begin : begin + length])
            at = begin + length
        self._buffer = data[at:]
        return packets


class Courier(BareSocket):
    """Feeds a run."""

    def __init__(self, port: int, token: str, run: str, series: int) -> None:
        super().__init__(port, token, "engine")
        self.run = run
        self._series = series
        self._index = Array.of(np.arange(series), "<u2")
        self.seq = -1
        self.say(EngineHello(protocol=PROTOCOL, run=run, incarnation=0))
        specs = [
            SeriesSpec(index=k, name=f"train/s{k}", unit="", group="train", scale="linear", help="")
            for k in range(series)
        ]
        self.say(
            RunStarted(
                **self.head(0),
                name=run,
                model="m",
                data="d",
                total_steps=0,
                config={},
                class_names=[],
                layers=[],
                environment={},
            ),
            SeriesDeclared(**self.head(0), series=specs),
            StatusChanged(**self.head(0), status="training", done=0, total=0, detail=""),
        )

    def head(self, step: int) -> dict[str, object]:
        """Number the next message."""
        self.seq += 1
        return {"run": self.run, "incarnation": 0, "seq": self.seq, "step": step, "time": time.time()}

    def frame(self, step: int, values: np.ndarray) -> Frame:
        """Make the frame of a step."""
        return Frame(**self.head(step), index=self._index, values=Array.of(values, "<f8"))


@dataclass
class Crowd:
    """Sockets that are read as soon as there is something, by one loop."""

    poll: select.epoll = field(default_factory=select.epoll)
    sockets: dict[int, tuple[BareSocket, Callable[[BareSocket, bytes, list[AnyMessage]], None]]] = field(
        default_factory=dict
    )
    known: dict[bytes, list[AnyMessage]] = field(default_factory=dict)

    def add(self, one: BareSocket, heard: Callable[[BareSocket, bytes, list[AnyMessage]], None]) -> None:
        """Read a socket from now on."""
        self.sockets[one.socket.fileno()] = one, heard
        self.poll.register(one.socket.fileno(), select.EPOLLIN)

    def drop(self, one: BareSocket) -> None:
        """Close a socket."""
        self.poll.unregister(one.socket.fileno())
        del self.sockets[one.socket.fileno()]
        one.socket.close()

    def run(self, until: float) -> None:
        """Read until a time."""
        while (left := until - time.monotonic()) > 0:
            for number, _ in self.poll.poll(left):
                one, heard = self.sockets[number]
                for packet in one.read():
                    messages = self.known.get(packet)
                    if messages is None:
                        if len(self.known) > 64:
                            self.known.clear()
                        messages = self.known[packet] = codec.decode_packet(packet)
                    if isinstance(messages[0], Ping):
                        one.say(Pong(time=messages[0].time))
                    else:
                        heard(one, packet, messages)

    def close(self) -> None:
        """Close everything."""
        for one, _ in self.sockets.values():
            one.socket.close()
        self.poll.close()


def viewer(port: int, token: str) -> BareSocket:
    """Connect as a page and greet."""
    one = BareSocket(port, token, "view")
    one.say(ViewHello(protocol=PROTOCOL))
    return one


def cpu(process: psutil.Process) -> float:
    """Give the processor time that a process has used, in seconds."""
    times = process.cpu_times()
    return times.user + times.system


def everyone() -> float:
    """Give the processor time that all have used."""
    times = psutil.cpu_times()
    return times.user + times.nice + times.system + getattr(times, "irq", 0.0) + getattr(times, "softirq", 0.0)


def lateness() -> float:
    """Return the p99 of how late a sleep of 10 ms ends, in seconds."""
    late = []
    for _ in range(200):
        begun = time.monotonic()
        time.sleep(0.01)
        late.append(time.monotonic() - begun - 0.01)
    return float(np.quantile(late, 0.99))
