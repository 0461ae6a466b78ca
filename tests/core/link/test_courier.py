"""A real courier process against a real websocket server that comes late, breaks off and comes back."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve

from spiral_core.errors import ArgumentError
from spiral_core.link.applied import AppliedLog, Entry, Origin, Resumed
from spiral_core.link.inbox import Inbox
from spiral_core.link.lastword import DETAIL
from spiral_core.link.rundir import RunDir
from spiral_core.link.runlog import RunLogReader, RunLogWriter
from spiral_core.link.spawn import CourierProcess, engine_socket, start
from spiral_core.wire import codec, limits
from spiral_core.wire.limits import PROTOCOL
from spiral_core.wire.messages import Ack, Command, EngineHello, EngineWelcome, Logged, StatusChanged, Stored
from spiral_core.wire.parts import Change
from spiral_core.wire.records import MAGIC
from spiral_core.wire.session import Role, Session
from spiral_server.transport import stop_accepting


@dataclass
class Engine:
    """What the training loop holds: a log to append to, an inbox, a courier."""

    log: RunLogWriter
    inbox: Inbox
    courier: CourierProcess

    def say(self, count: int) -> None:
        for _ in range(count):
            self.log.append(StatusChanged, 0, status="training", done=0, total=0, detail="")

    def end(self, seconds: float) -> bool:
        """Say the last word and let the courier deliver it."""
        self.log.append(StatusChanged, 0, status="finished", done=0, total=0, detail="")
        return self.courier.finish(seconds)


@dataclass
class Peer:
    """A server that stores in memory, and can be told to break off after some messages."""

    stored: list[int] = field(default_factory=list)
    """Sequence numbers of the first incarnation."""
    later: list[tuple[int, int]] = field(default_factory=list)
    """Incarnations and sequence numbers of later ones."""
    tokens: list[str | None] = field(default_factory=list)
    break_after: int | None = None
    silent: bool = False
    commands: list[Command] = field(default_factory=list)
    """Given to each courier that comes."""
    give: Callable[..., Awaitable[None]] | None = None
    """Gives more of them to the one that is there."""

    async def talk(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.tokens.append(socket.request.headers.get("Authorization"))
        session = Session(Role.INGEST, now=0.0)
        hello: EngineHello | None = None
        async for packet in socket:
            assert isinstance(packet, bytes)
            for message in session.receive(packet, now=0.0):
                if isinstance(message, EngineHello):
                    hello = message
                    welcome = EngineWelcome(protocol=PROTOCOL, stored=self.last(hello.incarnation))
                    await socket.send(session.send([welcome]))
                    self.give = lambda *commands: socket.send(session.send(commands))
                    if self.commands:
                        await self.give(*self.commands)
                elif isinstance(message, Logged) and message.incarnation:
                    self.later.append((message.incarnation, message.seq))
                elif isinstance(message, Logged):
                    self.stored.append(message.seq)
                    if self.break_after is not None and len(self.stored) >= self.break_after:
                        self.break_after = None
                        socket.transport.abort()
                        return
            if not self.silent and hello is not None and self.last(hello.incarnation) >= 0:
                await socket.send(session.send([Stored(seq=self.last(hello.incarnation))]))

    def last(self, incarnation: int) -> int:
        if incarnation == 0:
            return self.stored[-1] if self.stored else -1
        return max((seq for number, seq in self.later if number == incarnation), default=-1)


async def until(what: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.005)


def with_engine(tmp_path: Path, port: int) -> Engine:
    inbox = Inbox()
    rundir = RunDir(path=tmp_path, id="r")
    log = RunLogWriter(rundir.frames, run="r", incarnation=0, clock=time.time)
    courier = start(rundir, incarnation=0, server=f"http://127.0.0.1:{port}", token="secret", inbox=inbox)
    log.on_append = courier.doorbell.ring
    return Engine(log, inbox, courier)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Callable[[Callable[[Engine, int], Awaitable[None]]], Engine]]:
    """Run a story with an engine whose server address is reserved but not yet served; the courier always ends."""
    engines: list[Engine] = []

    def play(story: Callable[[Engine, int], Awaitable[None]]) -> Engine:
        import socket

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        engine = with_engine(tmp_path, port)
        engines.append(engine)
        asyncio.run(asyncio.wait_for(story(engine, port), 40))
        return engine

    yield play
    for engine in engines:
        if engine.courier.process.poll() is None:
            engine.courier.process.kill()
            engine.courier.process.wait()


async def served(peer: Peer, port: int) -> Server:
    return await serve(peer.talk, "127.0.0.1", port, max_size=None)


async def shut(server: Server) -> None:
    """Close a server, to which a courier may be connecting at this moment."""
    await stop_accepting(server.sockets)
    server.close()
    await server.wait_closed()


Play = Callable[[Callable[[Engine, int], Awaitable[None]]], Engine]


def test_a_server_that_comes_late_gets_everything_from_the_start(scene: Play) -> None:
    peer = Peer()

    async def story(engine: Engine, port: int) -> None:
        engine.say(100)
        await asyncio.sleep(0.6)
        server = await served(peer, port)
        engine.say(100)
        await until(lambda: len(peer.stored) == 200)
        assert await asyncio.to_thread(engine.end, 5.0)
        await shut(server)

    scene(story)
    assert peer.stored == list(range(201))
    assert peer.tokens == ["Bearer secret"]


def test_a_connection_that_breaks_is_resumed_behind_what_was_stored(scene: Play) -> None:
    peer = Peer(break_after=50)

    async def story(engine: Engine, port: int) -> None:
        server = await served(peer, port)
        engine.say(120)
        await until(lambda: len(peer.stored) >= 120)
        engine.say(5)
        assert await asyncio.to_thread(engine.end, 5.0)
        await shut(server)

    scene(story)
    assert peer.stored == list(range(126))
    assert len(peer.tokens) == 2


def test_a_resumed_run_brings_what_its_older_logs_still_hold_before_its_own(tmp_path: Path) -> None:
    """The server has 30 records of the first one; the second is damaged in the middle, the third was never begun."""
    rundir = RunDir(path=tmp_path, id="r")
    numbers = (0, 1, 3)
    logs = [RunLogWriter(rundir.frames_of(number), run="r", incarnation=number, clock=time.time) for number in numbers]
    rundir.frames_of(2).touch()
    for log in logs[:2]:
        for _ in range(50):
            log.append(StatusChanged, 0, status="training", done=0, total=0, detail="")
    data = bytearray(rundir.frames_of(1).read_bytes())
    data[len(data) // 2] ^= 1
    rundir.frames_of(1).write_bytes(data)
    peer = Peer(stored=list(range(30)))

    async def story() -> None:
        server = await serve(peer.talk, "127.0.0.1", 0, max_size=None)
        port = server.sockets[0].getsockname()[1]
        inbox = Inbox()
        courier = start(rundir, incarnation=3, server=f"http://127.0.0.1:{port}", token="", inbox=inbox)
        engine = Engine(logs[2], inbox, courier)
        logs[2].on_append = courier.doorbell.ring
        engine.say(20)
        await until(lambda: (3, 19) in peer.later)
        engine.say(5)
        assert await asyncio.to_thread(engine.end, 5.0)
        await shut(server)

    asyncio.run(asyncio.wait_for(story(), 40))
    assert peer.stored == list(range(50))
    whole = [seq for number, seq in peer.later if number == 1]
    assert whole == list(range(len(whole)))
    assert 20 < len(whole) < 30
    assert [one for one in peer.later if one[0] != 1] == [(3, seq) for seq in range(26)]


def test_a_server_that_has_lost_what_it_had_is_given_everything_again(scene: Play) -> None:
    peer = Peer()

    async def story(engine: Engine, port: int) -> None:
        server = await served(peer, port)
        engine.say(60)
        await until(lambda: len(peer.stored) == 60)
        await shut(server)
        peer.stored.clear()
        server = await served(peer, port)
        engine.say(40)
        await until(lambda: len(peer.stored) >= 100)
        assert await asyncio.to_thread(engine.end, 5.0)
        await shut(server)

    scene(story)
    assert peer.stored == list(range(101))


def test_commands_reach_the_inbox_and_records_leave_when_the_bell_rings(scene: Play) -> None:
    told = [
        Command(run="r", number=number, id=str(number), verb="pause", sets=[], actor="", source="ui", time=0.0)
        for number in (1, 2)
    ]
    peer = Peer(commands=told)

    async def story(engine: Engine, port: int) -> None:
        server = await served(peer, port)
        taken: list[Command] = []
        while len(taken) < len(told):
            await asyncio.to_thread(engine.inbox.wait, 10.0)
            taken += engine.inbox.drain()
        assert taken == told
        for _ in range(40):
            engine.say(1)
            await asyncio.sleep(0.01)
        await until(lambda: len(peer.stored) == 40)
        assert await asyncio.to_thread(engine.end, 5.0)
        await shut(server)

    scene(story)
    # That they arrived is the doorbell's doing: a courier that is never rung looks at its log only when it connects.


def orders(*numbers: int, chars: int = 1) -> list[Command]:
    return [
        Command(run="r", number=one, id=str(one), verb="pause", sets=[], actor="a" * chars, source="ui", time=0.0)
        for one in numbers
    ]


def test_frames_that_wait_leave_with_a_command_and_not_with_its_answer(scene: Play) -> None:
    peer = Peer()

    async def story(engine: Engine, port: int) -> None:
        server = await served(peer, port)
        engine.say(1)
        await until(lambda: peer.stored == [0])
        # Added while the bell is quiet, as most frames are.
        engine.log.on_append = lambda _at_once: None
        await asyncio.sleep(0.2)
        engine.say(3)
        await asyncio.sleep(0.2)
        assert peer.stored == [0]
        assert peer.give is not None
        await peer.give(*orders(1))
        await until(lambda: peer.stored == [0, 1, 2, 3])
        assert await asyncio.to_thread(engine.end, 5.0)
        await shut(server)

    scene(story)


def test_an_engine_that_does_not_read_its_commands_holds_nothing_up(scene: Play) -> None:
    """A thousand commands are more than a pipe holds; the run's last word must arrive all the same."""
    told = orders(*range(1, 1001), chars=200)
    peer = Peer(commands=told)

    async def story(engine: Engine, port: int) -> None:
        server = await served(peer, port)
        await asyncio.to_thread(engine.inbox.wait, 10.0)
        engine.say(20)
        await until(lambda: len(peer.stored) == 20)
        arrived: list[Command] = []
        while len(arrived) < len(told):
            await asyncio.to_thread(engine.inbox.wait, 10.0)
            arrived += engine.inbox.drain()
        assert arrived == told
        assert await asyncio.to_thread(engine.end, 5.0)
        await shut(server)

    scene(story)
    assert peer.stored == list(range(21))


def test_commands_are_not_handed_down_while_an_older_log_is_carried(tmp_path: Path) -> None:
    """Its end, which lets them expire, may be on its way; with the newest log they are given again."""
    rundir = RunDir(path=tmp_path, id="r")
    logs = [RunLogWriter(rundir.frames_of(number), run="r", incarnation=number, clock=time.time) for number in (0, 1)]
    for log in logs:
        log.append(StatusChanged, 0, status="training", done=0, total=0, detail="")
    peer = Peer(commands=orders(1), silent=True)

    async def story() -> None:
        server = await serve(peer.talk, "127.0.0.1", 0, max_size=None)
        port = server.sockets[0].getsockname()[1]
        inbox = Inbox()
        courier = start(rundir, incarnation=1, server=f"http://127.0.0.1:{port}", token="", inbox=inbox)
        # The older log is sent and not confirmed: it is being carried until the connection breaks.
        await until(lambda: peer.stored == [0])
        await asyncio.to_thread(inbox.wait, 0.3)
        early = inbox.drain()
        peer.silent = False
        await shut(server)
        peer.commands = orders(1, 2)
        again = await serve(peer.talk, "127.0.0.1", port, max_size=None)
        await until(lambda: (1, 0) in peer.later)
        later: list[Command] = []
        # They come down one behind the other.
        while len(later) < 2:
            await asyncio.to_thread(inbox.wait, 10.0)
            later += inbox.drain()
        await shut(again)
        courier.process.kill()
        courier.process.wait()
        assert (early, later) == ([], orders(1, 2))

    asyncio.run(asyncio.wait_for(story(), 40))


def test_a_courier_whose_run_was_resumed_says_no_last_word(scene: Play, tmp_path: Path) -> None:
    """The engine has died, and another one goes on with the run, before the server is there to be told."""
    peer = Peer()

    async def story(engine: Engine, port: int) -> None:
        engine.say(3)
        log = AppliedLog(tmp_path / "applied.log")
        log.begin(Origin(run="r", name="a run", config=""))
        log.resume(Resumed(resumed=0, rev=0, kept=0, incarnation=1))
        log.close()
        engine.courier.doorbell.close()
        server = await served(peer, port)
        await until(lambda: len(peer.stored) == 3)
        assert await asyncio.to_thread(engine.courier.process.wait, 10) == 0
        await shut(server)

    scene(story)
    assert peer.stored == [0, 1, 2]


def test_a_courier_that_was_replaced_once_and_came_back_still_delivers_the_end(scene: Play) -> None:
    """Its line breaks while the last word is under way: it tries again, as if it had never been replaced."""
    peer = Peer()
    replaced: list[bool] = []

    async def replacing(socket: ServerConnection) -> None:
        if not replaced:
            replaced.append(True)
            await socket.close(4009, "a newer connection of this run has taken over")
            return
        await peer.talk(socket)

    async def story(engine: Engine, port: int) -> None:
        server = await serve(replacing, "127.0.0.1", port, max_size=None)
        engine.say(5)
        await until(lambda: len(peer.stored) == 5)
        peer.break_after = 6
        assert await asyncio.to_thread(engine.end, 8.0)
        await shut(server)

    scene(story)
    assert peer.stored == list(range(6))


def test_without_a_server_the_courier_leaves_when_its_time_is_over_and_the_log_stays(scene: Play) -> None:
    async def story(engine: Engine, _port: int) -> None:
        engine.say(10)
        await asyncio.sleep(0.5)
        begun = time.monotonic()
        assert not await asyncio.to_thread(engine.courier.finish, 0.5)
        assert time.monotonic() - begun < 3.0

    engine = scene(story)
    assert engine.log.seq == 9


def test_a_server_that_never_confirms_is_not_taken_to_have_everything(scene: Play) -> None:
    peer = Peer(silent=True)

    async def story(engine: Engine, port: int) -> None:
        server = await served(peer, port)
        engine.say(10)
        await until(lambda: len(peer.stored) == 10)
        assert not await asyncio.to_thread(engine.courier.finish, 0.5)
        await shut(server)

    scene(story)


def test_an_engine_that_dies_is_spoken_for_by_its_courier(scene: Play, tmp_path: Path) -> None:
    """What it applied and did not live to say is said, the record that it left half written is not."""
    peer = Peer()
    told = {"id": "c1", "verb": "set", "actor": "", "source": "ui", "steps": 1, "sets": [], "instead_of": []}
    changes = [Change(knob="optim.lr", old=0.1, in_force=0.2)]

    async def story(engine: Engine, port: int) -> None:
        server = await served(peer, port)
        engine.say(10)
        log = AppliedLog(tmp_path / "applied.log")
        log.begin(Origin(run="r", name="a run", config=""))
        log.append(Entry(number=4, step=7, changes=changes, rev=1, **told))
        log.close()
        frames = tmp_path / "frames.log"
        with frames.open("ab") as torn:
            torn.write(frames.read_bytes()[len(MAGIC) :][:40])
        assert await asyncio.to_thread(engine.courier.finish, 5.0)
        await shut(server)

    scene(story)
    assert peer.stored == list(range(12))
    said = [codec.decode(record.data) for record in RunLogReader(tmp_path / "frames.log").records()]
    ack, status = said[-2:]
    assert isinstance(ack, Ack)
    assert (ack.number, ack.id, ack.step, ack.state, ack.rev, ack.changes) == (4, "c1", 7, "applied", 1, changes)
    assert isinstance(status, StatusChanged)
    assert status.status == "failed"
    assert status.detail == f"{DETAIL}; 40 bytes of a half-written record were cut off its log"


def test_a_courier_that_comes_after_the_end_adds_nothing_to_it(scene: Play, tmp_path: Path) -> None:
    peer = Peer()

    async def story(engine: Engine, port: int) -> None:
        engine.courier.process.kill()
        engine.courier.process.wait()
        engine.say(3)
        engine.log.append(StatusChanged, 0, status="stopped", done=0, total=0, detail="")
        server = await served(peer, port)
        engine.inbox.renew()
        rundir = RunDir(path=tmp_path, id="r")
        late = start(rundir, incarnation=0, server=f"http://127.0.0.1:{port}", token="secret", inbox=engine.inbox)
        assert await asyncio.to_thread(late.finish, 5.0)
        await shut(server)

    scene(story)
    assert peer.stored == list(range(4))


def said_when_turned_away(folder: Path, code: int, reason: str) -> str:
    """Let a server close each connection at once, and give what the courier says of it until its run is over."""
    knocks = 0

    async def refuse(socket: ServerConnection) -> None:
        nonlocal knocks
        knocks += 1
        await socket.close(code, reason)

    async def story() -> str:
        server = await serve(refuse, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        (folder / "frames.log").write_bytes(MAGIC)
        bell_read, bell_write = os.pipe()
        command_read, command_write = os.pipe()
        words = ["--folder", str(folder), "--run", "r", "--incarnation", "0"]
        words += ["--url", engine_socket(f"http://127.0.0.1:{port}"), "--doorbell", str(bell_read)]
        courier = subprocess.Popen(
            [sys.executable, "-m", "spiral_core.link.courier", *words, "--commands", str(command_write)],
            pass_fds=(bell_read, command_write),
            stderr=subprocess.PIPE,
            text=True,
        )
        await until(lambda: knocks >= 3)
        os.close(bell_write)
        if code not in (limits.CLOSE_UNAUTHORIZED, limits.CLOSE_PROTOCOL):
            # It would try for ten seconds more.
            courier.terminate()
        _, said = await asyncio.to_thread(courier.communicate, timeout=15)
        for end in (bell_read, command_read, command_write):
            os.close(end)
        await shut(server)
        return said

    return asyncio.run(story())


def test_a_wrong_token_is_said_once_with_the_remedy(tmp_path: Path) -> None:
    said = said_when_turned_away(tmp_path, limits.CLOSE_UNAUTHORIZED, "no token")
    assert said.count("refused the token") == 1
    assert "SPIRAL_TOKEN" in said


@pytest.mark.parametrize("code", [limits.CLOSE_PROTOCOL, limits.CLOSE_TOO_BIG, 1011])
def test_why_a_server_turns_a_courier_away_is_said_once(tmp_path: Path, code: int) -> None:
    said = said_when_turned_away(tmp_path, code, "for some reason")
    assert said.count(f"code {code}: for some reason") == 1
    assert ("update the older one" in said) == (code == limits.CLOSE_PROTOCOL)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:8787", "ftp://host", "", "http://", "http://:8787", "http://h:99999", "http://h:x"]
)
def test_an_address_that_is_none_is_refused_with_an_example(address: str) -> None:
    with pytest.raises(ArgumentError, match="http://127"):
        engine_socket(address)


def test_addresses_keep_their_path_and_their_encryption() -> None:
    assert engine_socket("http://127.0.0.1:8787/") == "ws://127.0.0.1:8787/ws/engine"
    assert engine_socket("https://host/spiral") == "wss://host/spiral/ws/engine"
