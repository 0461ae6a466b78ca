"""The courier: the process that carries a run's logs to the server and commands back.

A run that was resumed has one log for each incarnation: what the earlier ones could not bring home goes first. The
courier tails the newest log, owns the websocket, reconnects with jitter, and resumes behind the last record that the
server has on disk. The training loop never waits for it: they share a file, a doorbell pipe and a command pipe.

The engine rings the doorbell when it has added records; end of file on it means that the engine is done or dead.
The courier then completes a log that ends without a last word (`lastword`), and leaves once the server has everything,
or when its time is over.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import random
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from spiral_core import hugepages, scheduling
from spiral_core.errors import DecodeError, LocalError, RemoteError, RunLogError
from spiral_core.link import applied
from spiral_core.link.commandpipe import CommandPipe
from spiral_core.link.doorbell import Doorbell
from spiral_core.link.lastword import LastWord
from spiral_core.link.rundir import RunDir
from spiral_core.link.runlog import Position, RunLogReader, bequeath, part_path
from spiral_core.wire import codec, limits
from spiral_core.wire.limits import COURIER_PACKET_BYTES, MAX_PACKET_BYTES, PROTOCOL
from spiral_core.wire.messages import Command, EngineHello, EngineWelcome, Stored
from spiral_core.wire.session import Role, Session

FIRST_RETRY_SECONDS = 0.05
"""A server that is just starting is found again at once."""
LAST_RETRY_SECONDS = 5.0
"""Retries slow down to this, so that a server that is gone costs nothing."""
STARTING_SECONDS = 2.0
"""A server may need this long to start before it is said to be missing."""
FINISH_SECONDS = 10.0
"""After the run's end, the server gets this long to take in the rest; the log stays on disk in any case."""


class Courier:
    """Carries the logs of one run to one server until the run is over.

    Parameters
    ----------
    rundir : RunDir
        Of the run; the newest of its logs is being written by the engine.
    incarnation : int
        Of that log.
    url : str
        ``ws://host:port/ws/engine``.
    token : str
        Sent as a bearer token.
    doorbell : sequence of int
        Reading end of the engine's doorbell pipe, and its eventfd, if there is one.
    commands : int
        Writing end of the engine's command pipe.
    listen : callable, optional
        Told the incarnation and the last sequence number that is on the server's disk, whenever it moves.
    """

    def __init__(
        self,
        rundir: RunDir,
        *,
        incarnation: int,
        url: str,
        token: str,
        doorbell: Sequence[int],
        commands: int,
        listen: Callable[[int, int], None] = lambda _incarnation, _seq: None,
    ) -> None:
        self._rundir = rundir
        self._run = rundir.id
        self._segments = deque(rundir.segments(incarnation))
        self._url = url
        self._token = token
        self._bell = Doorbell(*doorbell)
        self._commands = CommandPipe(commands)
        self._replaced = False
        self._refused = False
        self._listen = listen
        self._told: str | None = None
        self._begun = 0.0
        self._files = contextlib.ExitStack()
        if not self._next_segment():
            raise RunLogError(f"there is no run log in {rundir.path} that can be read")

    def _next_segment(self) -> bool:
        """Take up the oldest log that is left; tell whether there was one."""
        while self._segments:
            self._incarnation, self._log = self._segments.popleft()
            self._files.close()
            try:
                self._reader = self._files.enter_context(RunLogReader(self._log))
            except RunLogError as error:
                self._tell(str(error))
                continue
            self._last_word = LastWord(self._run, self._incarnation)
            self._delivered = False
            self._stored = -1
            self._stored_end = self._reader.start
            self._last_sent = False
            """Whether all that is waited for is the server's word that it has everything."""
            self._unstored: deque[tuple[int, Position]] = deque()
            """Sequence number and end of each record that was sent and is not yet known to be on the server's disk."""
            return True
        return False

    async def run(self) -> int:
        """Carry until the run is over; give the exit status: 0 when the server has everything, else 1."""
        with self._files:
            return await self._deliver()

    async def _deliver(self) -> int:
        loop = asyncio.get_running_loop()
        self._begun = loop.time()
        self._bell.listen()
        delay = FIRST_RETRY_SECONDS
        deadline: float | None = None
        while True:
            before = (self._incarnation, self._stored)
            try:
                await self._converse()
            except (RunLogError, DecodeError) as error:
                self._tell(str(error))
                # What an older log has lost must not keep back the newer ones.
                if self._next_segment():
                    continue
                return 1
            if self._delivered:
                if self._next_segment():
                    continue
                return 0
            if (self._incarnation, self._stored) != before:
                # A server that takes us in and then fails, for its disk is full, is not asked again at once.
                delay, deadline = FIRST_RETRY_SECONDS, None
            if self._bell.over.is_set() and (self._replaced or self._refused):
                # The run has been resumed: its new courier carries our log, too.
                return 1
            if self._bell.over.is_set():
                deadline = loop.time() + FINISH_SECONDS if deadline is None else deadline
                if loop.time() > deadline:
                    return 1
                await asyncio.sleep(delay)
            else:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._bell.over.wait(), delay * random.uniform(0.5, 1.0))
            delay = min(delay * 1.7, LAST_RETRY_SECONDS)

    def _tell(self, sentence: str) -> None:
        """Say a thing once on standard error, not at every retry."""
        if sentence != self._told:
            self._told = sentence
            print(f"spiral courier: {sentence}", file=sys.stderr, flush=True)  # noqa: T201 - a process's own voice

    async def _converse(self) -> None:
        """Hold one connection until it ends."""
        opened = False
        try:
            async with connect(
                self._url,
                additional_headers={"Authorization": f"Bearer {self._token}"},
                max_size=MAX_PACKET_BYTES,
                compression=None,
                ping_interval=None,
                open_timeout=5,
                close_timeout=1,
                proxy=None,
            ) as socket:
                session = Session(Role.COURIER, now=asyncio.get_running_loop().time())
                hello = EngineHello(protocol=PROTOCOL, run=self._run, incarnation=self._incarnation)
                await socket.send(session.send([hello]))
                await self._greeted(socket, session)
                opened = True
                self._replaced = self._refused = False
                await self._carry(socket, session)
        except RunLogError:
            # An OSError too, but no connection mends it.
            raise
        except InvalidStatus as error:
            status = error.response.status_code
            self._refused = True
            remedy = "check the token (SPIRAL_TOKEN or --token)" if status in (401, 403) else "check the URL"
            self._tell(f"the server at {self._url} refused the connection with HTTP {status}: {remedy}")
        except ConnectionClosed as error:
            if error.rcvd is not None:
                self._turned_away(error.rcvd.code, error.rcvd.reason)
        except (OSError, WebSocketException, TimeoutError):
            # A server that starts beside us is not missed before it has had its time.
            if not opened and asyncio.get_running_loop().time() - self._begun > STARTING_SECONDS:
                self._tell(f"no server answers at {self._url}; training goes on and the log is kept")
        except (RemoteError, LocalError) as error:
            self._tell(str(error))

    def _turned_away(self, code: int, reason: str) -> None:
        """Say why the server has ended the connection, unless it just went away."""
        server = f"the server at {self._url}"
        match code:
            case limits.CLOSE_NORMAL | limits.CLOSE_GOING_AWAY:
                pass
            case limits.CLOSE_UNAUTHORIZED | limits.CLOSE_FORBIDDEN:
                self._refused = True
                self._tell(f"{server} refused the token: check SPIRAL_TOKEN or --token")
            case limits.CLOSE_REPLACED:
                self._replaced = True
                self._tell("another courier has taken over this run")
            case limits.CLOSE_TRY_AGAIN:
                self._tell(f"{server} cannot write now; training goes on and the log is kept")
            case limits.CLOSE_PROTOCOL:
                self._refused = True
                remedy = "if server and engine are of different versions, update the older one"
                self._tell(f"{server} closed the connection with code {code}: {reason}; {remedy}")
            case _:
                why = reason or "it gave no reason"
                self._tell(f"{server} closed the connection with code {code}: {why}; its log may say more")

    async def _greeted(self, socket: ClientConnection, session: Session) -> None:
        async with asyncio.timeout(5):
            packet = await socket.recv()
        for message in session.receive(_binary(packet), now=asyncio.get_running_loop().time()):
            if isinstance(message, EngineWelcome):
                self._resume(message.stored)
            else:
                self._take(message)

    async def _carry(self, socket: ClientConnection, session: Session) -> None:
        """Send and receive side by side; the first to end ends the other."""
        work = (self._send(socket, session), self._receive(socket, session), self._beat(socket, session))
        tasks = [asyncio.ensure_future(one) for one in work]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _resume(self, stored: int) -> None:
        """Go on behind what the server has; where it has lost what it once had, begin anew."""
        if stored < self._stored:
            self._stored_end = self._reader.start
        self._stored = min(stored, self._stored)
        self._settle(stored)
        self._unstored.clear()
        self._reader.seek(self._stored_end)

    def _settle(self, stored: int) -> None:
        while self._unstored and self._unstored[0][0] <= stored:
            self._stored_end = self._unstored.popleft()[1]
        if stored > self._stored:
            self._stored = stored
            self._listen(self._incarnation, stored)

    async def _send(self, socket: ClientConnection, session: Session) -> None:
        """Send what the log holds and what is added to it, until the run is over and the server has everything."""
        while True:
            # Looked up before the log is read: nothing is appended after the run is over, nor to an older log.
            over = self._bell.over.is_set() or bool(self._segments)
            damage = await self._send_records(socket, session)
            if over and damage is None and self._conclude():
                continue
            if (over or damage is not None) and not self._unstored:
                if damage is not None:
                    raise damage
                self._delivered = True
                return
            self._last_sent = over or damage is not None
            await self._bell.wait()

    async def _send_records(self, socket: ClientConnection, session: Session) -> RunLogError | None:
        """Send what the log holds beyond what was sent; give the damage that it ends in, if any."""
        batch: list[bytes] = []
        size = 0
        damage: RunLogError | None = None
        try:
            for record in self._reader.records():
                seq = codec.sequence_number(record.data)
                self._last_word.follow(seq, record.data)
                if seq <= self._stored:
                    continue
                self._unstored.append((seq, record.end))
                batch.append(record.data)
                size += len(record.data)
                if size >= COURIER_PACKET_BYTES:
                    await socket.send(session.forward(batch))
                    batch, size = [], 0
        except RunLogError as error:
            # What stands before the damage is sound.
            damage = error
        if batch:
            await socket.send(session.forward(batch))
        return damage

    def _conclude(self) -> bool:
        """Append to the log what its end lacks, once nobody else writes it; tell whether anything was lacking.

        An older log needs no last word: the run has been resumed.
        """
        if self._segments:
            return False
        entries: list[applied.Entry] = []
        try:
            if self._rundir.applied.exists():
                history = applied.read(self._rundir.applied)
                if history.incarnation > self._incarnation:
                    return False
                entries = history.entries
        except RunLogError as error:
            self._tell(str(error))
        torn = part_path(self._log, self._reader.position.part).stat().st_size - self._reader.position.offset
        said = self._last_word.missing(entries, time=time.time(), torn=torn)
        if said:
            bequeath(self._log, self._reader.position, said)
            if torn:
                self._tell(f"{torn} bytes of a record that was never finished were cut off {self._log}")
            # What lay behind the last whole record is gone.
            self._reader.seek(self._reader.position)
        return bool(said)

    async def _receive(self, socket: ClientConnection, session: Session) -> None:
        async for packet in socket:
            for message in session.receive(_binary(packet), now=asyncio.get_running_loop().time()):
                self._take(message)
            for answer in session.data_to_send():
                await socket.send(answer)

    def _take(self, message: object) -> None:
        if isinstance(message, Stored):
            self._settle(message.seq)
            if self._last_sent:
                self._bell.nudge(at_once=True)
        elif isinstance(message, Command) and not self._segments:
            # With an older log the end of its engine may be on its way, with which the command expires; where it does
            # not, it is given again to the connection that carries the newest log.
            self._commands.put(codec.encode(message))
            # Frames that wait leave before the answer comes: what it is carried by is then found in the caches.
            self._bell.nudge(at_once=True)

    async def _beat(self, socket: ClientConnection, session: Session) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(max(0.1, session.next_tick() - loop.time()))
            session.tick(now=loop.time())
            for packet in session.data_to_send():
                await socket.send(packet)


def _binary(packet: str | bytes) -> bytes:
    if isinstance(packet, str):
        raise RemoteError(limits.CLOSE_BAD_DATA, "the server sent text; this protocol is binary")
    return packet


def main(argv: Sequence[str] | None = None) -> int:
    """Run a courier; started by the engine, not by people."""
    parser = argparse.ArgumentParser(prog="spiral-courier", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--incarnation", type=int, required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--doorbell", type=int, nargs="+", required=True)
    parser.add_argument("--commands", type=int, required=True)
    options = parser.parse_args(argv)
    # Ctrl-C in a terminal reaches the whole group; the courier leaves when the engine closes the doorbell.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What was imported stays; to search it for garbage takes 10 ms, in which no command arrives.
    gc.freeze()
    hugepages.collapse()
    scheduling.short_turns()
    return asyncio.run(_main(options))


async def _main(options: argparse.Namespace) -> int:
    courier = Courier(
        RunDir(path=options.folder, id=options.run),
        incarnation=options.incarnation,
        url=options.url,
        token=os.environ.get("SPIRAL_TOKEN", ""),
        doorbell=options.doorbell,
        commands=options.commands,
    )
    return await courier.run()


if __name__ == "__main__":
    sys.exit(main())
