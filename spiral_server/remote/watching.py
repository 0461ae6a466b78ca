"""Following a run in a terminal: its status, its loss, and what becomes of commands, until it ends."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from spiral_core.errors import RemoteError
from spiral_core.wire import codec
from spiral_core.wire.limits import CLOSE_UNAUTHORIZED, MAX_PACKET_BYTES, PROTOCOL
from spiral_core.wire.messages import (
    AnyMessage,
    CheckpointSaved,
    CommandRecord,
    Frame,
    RunChanged,
    SeriesDeclared,
    Snapshot,
    StatusChanged,
    ViewHello,
    Watch,
)
from spiral_core.wire.parts import FINAL_STATUSES
from spiral_core.wire.session import Role, Session
from spiral_server.remote import telling
from spiral_server.remote.client import AskingError, Client

RETRY_SECONDS = 1.0
"""Between two tries to reach a server that has gone away."""
EXPIRY_SECONDS = 1.0
"""Commands that a run has left undone expire once its last word is on disk, a moment after it was said."""
SHOWN = ("train/loss", "val/accuracy", "perf/steps_per_second")
"""Series of a line for people."""

Say = Callable[[str], None]


class Follower:
    """Turns what a server shows of one run into lines.

    Parameters
    ----------
    run : str
    say : callable
        Takes each line.
    plain : bool
        JSON, one object on each line, instead of words.
    every : float
        Least seconds between two lines of numbers; 0 for each step.
    """

    def __init__(self, run: str, say: Say, *, plain: bool, every: float) -> None:
        self._run = run
        self._say = say
        self._plain = plain
        self._every = every
        self._series: dict[int, str] = {}
        self._numbers_at = -math.inf
        self._settled: dict[str, str] = {}
        self._status: tuple[str, str] | None = None
        self._saved: set[str] = set()

    @property
    def status(self) -> str:
        """What was last said of the run."""
        return "" if self._status is None else self._status[0]

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return self.status in FINAL_STATUSES

    @property
    def waiting(self) -> bool:
        """Whether a command is shown that has not come to its end."""
        return "accepted" in self._settled.values()

    def take(self, message: AnyMessage, now: float) -> None:
        """Take in what the server says; ``now`` is any monotonic time."""
        match message:
            case Snapshot():
                self._series = {spec.index: spec.name for spec in message.series}
                self.take(RunChanged(run=message.run), now)
                for record in message.commands:
                    # What was settled before one began to watch is in the journal.
                    if record.state == "accepted" or record.id in self._settled:
                        self._command(record)
            case SeriesDeclared():
                self._series = {spec.index: spec.name for spec in message.series}
            case StatusChanged():
                self._tell_status(message, message.status, message.detail, message.step)
            case RunChanged():
                self._tell_status(message, message.run.status, message.run.detail, message.run.step)
            case CommandRecord():
                self._command(message)
            case CheckpointSaved():
                if message.digest not in self._saved:
                    self._saved.add(message.digest)
                    self._out(message, f"checkpoint {message.file}, {message.size} bytes")
            case Frame():
                self._numbers(message, now)
            case _:
                pass

    def _out(self, message: object, line: str) -> None:
        self._say(json.dumps(codec.plain(message)) if self._plain else line)

    def _tell_status(self, message: object, status: str, detail: str, step: int) -> None:
        if (status, detail) != self._status:
            self._status = (status, detail)
            self._out(message, f"{status}, {step} steps done{f': {detail}' if detail else ''}")

    def _command(self, record: CommandRecord) -> None:
        if self._settled.get(record.id) != record.state:
            self._settled[record.id] = record.state
            who = f"{record.actor} ({record.source})" if record.actor else record.source
            lines = telling.outcome(record)
            self._out(record, "\n".join(f"command {record.number}, {record.verb} by {who}: {line}" for line in lines))

    def _numbers(self, frame: Frame, now: float) -> None:
        if now - self._numbers_at < self._every:
            return
        pairs = zip(frame.index.numpy().tolist(), frame.values.numpy().tolist(), strict=True)
        numbers = {self._series[index]: value for index, value in pairs if index in self._series}
        if "train/loss" not in numbers and not self._plain:
            return
        self._numbers_at = now
        shown = "  ".join(f"{name} {numbers[name]:.4g}" for name in SHOWN if name in numbers)
        told = {"type": "step", "run": self._run, "step": frame.step, "time": frame.time, **numbers}
        self._out(told, f"step {frame.step}  {shown}")


async def follow(client: Client, run: str, follower: Follower, away: Say) -> None:
    """Watch a run until it ends; a server that goes away is waited for.

    Parameters
    ----------
    client : Client
        Has reached the server before.
    run : str
    follower : Follower
    away : callable
        Told once when the server goes away.

    Raises
    ------
    AskingError
        The server does not let us in, or speaks another protocol.
    """
    said = False
    while not follower.ended:
        try:
            async with connect(
                _socket(client.there.url),
                additional_headers={"Authorization": f"Bearer {client.there.token}"},
                max_size=MAX_PACKET_BYTES,
                compression=None,
                ping_interval=None,
                close_timeout=1,
                proxy=None,
                ssl=client.there.tls(),
            ) as socket:
                said = False
                await _converse(socket, run, follower)
        except ConnectionClosed as error:
            if error.rcvd is not None and error.rcvd.code == CLOSE_UNAUTHORIZED:
                raise AskingError("the server does not take this token any more") from error
        except RemoteError as error:
            raise AskingError(f"the server cannot be understood: {error}") from error
        except (OSError, WebSocketException, TimeoutError):
            pass
        if not follower.ended:
            if not said:
                away(f"the server at {client.there.url} is away; waiting for it")
                said = True
            await asyncio.sleep(RETRY_SECONDS)
            client.relocate()


async def _converse(socket: ClientConnection, run: str, follower: Follower) -> None:
    loop = asyncio.get_running_loop()
    session = Session(Role.VIEWER, now=loop.time())
    await socket.send(session.send([ViewHello(protocol=PROTOCOL)]))
    asked = False
    deadline = math.inf
    while loop.time() < deadline:
        packet: str | bytes | None = None
        # A cancelled recv() loses nothing (see the documentation of websockets).
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, min(session.next_tick(), deadline) - loop.time())):
                packet = await socket.recv()
        if packet is not None:
            data = packet.encode() if isinstance(packet, str) else packet
            for message in session.receive(data, now=loop.time()):
                follower.take(message, loop.time())
        if session.open and not asked:
            asked = True
            await socket.send(session.send([Watch(run=run, width=0)]))
        session.tick(now=loop.time())
        for answer in session.data_to_send():
            await socket.send(answer)
        if follower.ended:
            if not follower.waiting:
                return
            deadline = min(deadline, loop.time() + EXPIRY_SECONDS)


def _socket(url: str) -> str:
    parts = urlsplit(url)
    scheme = "wss" if parts.scheme == "https" else "ws"
    return urlunsplit((scheme, parts.netloc, f"{parts.path.rstrip('/')}/ws/view", "", ""))
