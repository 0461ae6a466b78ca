"""A client that steers one run: gives commands, and hears of them over the websocket of a viewer."""

from __future__ import annotations

import re
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

from benchmarks._viewers import BareSocket
from e2e.cockpit import Cockpit
from spiral_core import scheduling
from spiral_core.wire import codec
from spiral_core.wire.limits import PROTOCOL
from spiral_core.wire.messages import Ack, CommandRequest, Frame, Ping, Pong, Steer, Steered, ViewHello, Watch
from spiral_core.wire.parts import Setting

SO_TIMESTAMPNS = 35
"""Of Linux, socket(7): the kernel says when it has put bytes into a socket, in seconds and nanoseconds of its clock."""
_STAMP = struct.Struct("@qq")


class Heard(NamedTuple):
    """How a command has been answered, in milliseconds since the moment before it was packed."""

    arrived: float
    """Until the acknowledgement was in the client's socket."""
    read: float
    """Until the client had decoded it, for which it needs a core."""
    step: int
    """The first update under the new value."""


class StampedSocket(BareSocket):
    """A websocket that knows when what was read last had come, whenever that was read."""

    def __init__(self, port: int, token: str, road: str) -> None:
        super().__init__(port, token, road)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.arrived = 0.0
        """Of the last byte that was read, by `time.time`; where the kernel does not say, when that was read."""

    def _receive(self) -> bytes:
        data, told, *_ = self.socket.recvmsg(1 << 18, socket.CMSG_SPACE(_STAMP.size))
        self.arrived = time.time()
        for level, kind, stamp in told:
            if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
                seconds, nanoseconds = _STAMP.unpack(stamp)
                self.arrived = seconds + nanoseconds * 1e-9
        return data


class Client:
    """Gives commands and hears of them over a websocket; beside it, one connection for requests is kept.

    Parameters
    ----------
    server : Cockpit
    run : str
    road : str
        On which commands are given: websocket or http.
    """

    def __init__(self, server: Cockpit, run: str, road: str) -> None:
        place = urlsplit(server.url)
        assert place.hostname
        assert place.port
        self._run = run
        self._road = road
        self._head = f"HTTP/1.1\r\nHost: {place.netloc}\r\nAuthorization: Bearer {server.token}\r\n"
        self._http = socket.create_connection((place.hostname, place.port))
        self._http.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answer = b""
        self._view = StampedSocket(place.port, server.token, "view")
        self._view.say(ViewHello(protocol=PROTOCOL), Watch(run=run, width=800))
        # What is measured is not how long the client itself waits for a core that the engine computes on.
        scheduling.short_turns()
        self._poll = select.poll()
        for one in (self._http, self._view.socket):
            self._poll.register(one, select.POLLIN)
        self.acks: dict[str, tuple[float, float, int]] = {}
        """When each acknowledgement came and when it had been decoded, by `time.time`, and its step."""
        self.stamps: dict[int, float] = {}
        """When the engine wrote down each step."""

    def close(self) -> None:
        """Leave."""
        self._http.close()
        self._view.socket.close()

    def listen(self, until: float, done: Callable[[], bool] = lambda: False) -> bool:
        """Take what comes until a time or until something has come; tell whether it has."""
        while not done():
            left = until - time.perf_counter()
            if left <= 0:
                return False
            for descriptor, _ in self._poll.poll(left * 1e3):
                if descriptor == self._http.fileno():
                    self._answer += self._http.recv(65536)
                else:
                    self._hear()
        return True

    def _hear(self) -> None:
        for packet in self._view.read():
            for message in codec.decode_packet(packet):
                match message:
                    case Steered():
                        assert message.status == 202, message.reason
                    case Ack():
                        assert message.state == "applied", message.reason
                        self.acks[message.id] = self._view.arrived, time.time(), message.step
                    case Frame():
                        self.stamps[message.step] = message.time
                    case Ping():
                        self._view.say(Pong(time=message.time))

    def _answered(self) -> bool:
        head, end, body = self._answer.partition(b"\r\n\r\n")
        sizes = re.findall(rb"content-length: (\d+)", head.lower())
        return bool(end) and len(body) >= int(sizes[0])

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Give the status and the body of an answer."""
        length = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self._answer = b""
        self._http.sendall(f"{method} {path} {self._head}{length}".encode() + body)
        assert self.listen(time.perf_counter() + 20, self._answered), f"no answer to {method} {path}"
        head, _, body = self._answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body

    def give(self, number: int) -> Heard:
        """Set the gain, and wait for the acknowledgement."""
        identity = f"b{number}"
        value = 0.2 + 0.001 * (number % 100)
        request = CommandRequest(id=identity, verb="set", sets=[Setting(knob="zspace.gain", value=value)])
        begun = time.time()
        if self._road == "websocket":
            self._view.say(Steer(run=self._run, request=request))
        else:
            status, answer = self.ask("POST", f"/api/runs/{self._run}/commands", codec.to_json(request))
            assert status == 202, answer
        limit = time.perf_counter() + 20
        assert self.listen(limit, lambda: identity in self.acks), f"no acknowledgement of {identity}"
        arrived, read, step = self.acks[identity]
        return Heard((arrived - begun) * 1e3, (read - begun) * 1e3, step)
