"""The life of a command under retries, duplicates, reordering, lost answers, pauses and the death of any process.

Every rule here is the real one: the server's ledger, view and judgement, the engine's queue, controls and steering,
the courier's last word. Only pipes, sockets, disks and processes are lists. Each schedule is drawn from its number.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from spiral_core.engine import controls, knobs
from spiral_core.engine.config import for_data
from spiral_core.engine.controls import Outcome
from spiral_core.engine.state import RunState, initial_state
from spiral_core.link.answered import answered
from spiral_core.link.applied import Entry
from spiral_core.link.lastword import LastWord
from spiral_core.link.rundir import RunDir
from spiral_core.link.steering import Steering
from spiral_core.link.triggers import FileTriggers
from spiral_core.wire import codec
from spiral_core.wire.messages import Ack, Command, CommandRecord, CommandRequest, KnobsDeclared, Logged, StatusChanged
from spiral_core.wire.parts import Setting
from spiral_core.wire.requests import malformed
from spiral_server.live.commands import StaleError, check_revision, command_of, judge
from spiral_server.live.run_view import RunView
from spiral_server.store.protocol import History
from spiral_server.store.rebuild import view_of

SCHEDULES = 2400
MOMENTS = 70
RUN = "r"
NOWHERE = RunDir(path=Path("nowhere"), id=RUN)


class KilledError(Exception):
    """The engine dies here."""


STATE = initial_state(for_data("needle", batch_size=8, evaluate_every=0, xai_every=0))
FIRST = knobs.in_force(STATE)


def write(values: dict[str, Any]) -> None:
    table = knobs.table(STATE)
    for name, value in values.items():
        if value is not None:
            table[name].write(STATE, value)


def fresh(entries: list[Entry]) -> RunState:
    """Give the state that a run has behind everything in its applied log; one object, for making it takes long."""
    STATE.step, STATE.rev, STATE.phase, STATE.pause_at = 0, 0, "training", None
    STATE.since.clear()
    STATE.wanted.clear()
    write(FIRST)
    for entry in entries:
        write({change.knob: change.in_force for change in entry.changes})
        STATE.rev = entry.rev
    STATE.phase = "training"
    return STATE


@dataclass
class Engine:
    """An engine, its run log and its end of the command pipe: what the steering needs of the world."""

    world: World
    incarnation: int
    step: int
    log: list[Logged] = field(default_factory=list)
    pipe: list[Command] = field(default_factory=list)
    alive: bool = True
    dies_in: int = -1
    """Writes until it is killed; below 0 it is not."""

    def __post_init__(self) -> None:
        self.state = fresh(self.world.applied)
        self.state.step = self.step
        said = [one for engine in self.world.engines for one in engine.log if isinstance(one, Ack)]
        earlier = answered(RUN, self.world.applied, said)
        files = FileTriggers(NOWHERE, earlier.acks)
        self.steering = Steering(self.state, self, files, self, self, earlier.numbers)  # type: ignore[arg-type]
        head = {"run": RUN, "incarnation": self.incarnation}
        self.log += [replace(ack, seq=seq, **head) for seq, ack in enumerate(earlier.acks)]
        self.say(KnobsDeclared, 0, knobs=knobs.declare(self.state), rev=self.state.rev)
        self.steering.say()

    def say(self, kind: Any, step: int, **fields: Any) -> None:
        head = {"run": RUN, "incarnation": self.incarnation, "seq": len(self.log), "step": step, "time": 0.0}
        self.log.append(kind(**head, **fields))

    def drain(self) -> list[Command]:
        arrived, self.pipe = self.pipe, []
        return arrived

    def append(self, entry: Entry) -> None:
        self._live_on()
        self.world.applied.append(entry)

    def room(self) -> bool:
        return True

    def ack(self, command: Command, outcome: Outcome) -> None:
        self._live_on()
        told = {"number": command.number, "id": command.id, "verb": command.verb, "actor": "", "source": "api"}
        told |= {"changes": outcome.changes, "reason": outcome.reason, "rev": outcome.rev}
        self.say(Ack, outcome.step, state=outcome.state, by=outcome.by, **told)

    def status(self, status: Any, detail: str = "") -> None:
        self.say(StatusChanged, self.state.step, status=status, done=0, total=0, detail=detail)

    def _live_on(self) -> None:
        if self.dies_in == 0:
            raise KilledError
        self.dies_in -= 1

    def boundary(self, *, update: bool) -> None:
        """Do an update, unless the run pauses, and what the boundary behind it asks for."""
        if update and self.state.phase == "training":
            self.state.step += 1
            controls.arrive(self.state)
        self.step = self.state.step
        try:
            self.steering.drain()
        except KilledError:
            self.alive = False
            return
        self.world.check_values()
        self.steering.tell()
        if self.state.phase in ("finished", "stopped"):
            self.status(self.state.phase)
            self.alive = False


class World:
    """Server, courier and engine of one run, and a person who asks."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.applied: list[Entry] = []
        self.engines: list[Engine] = []
        self.asked: list[CommandRequest] = []
        self.numbers: dict[str, int] = {}
        self.told: dict[str, CommandRecord] = {}
        """Final answers that a person has seen."""
        self.journal: dict[int, CommandRecord] = {}
        self.stored: list[Logged] = []
        self.view = RunView(RUN)
        self.shown: list[Logged] = []
        """Folded, not yet on disk."""
        self.journaling: list[CommandRecord] = []
        self.courier = True
        self.connected = False
        self.sent_up = 0
        self.sent_down = 0
        self.last_word = LastWord(RUN, 0)
        self.resume()

    @property
    def engine(self) -> Engine:
        return self.engines[-1]

    # --- the server

    def ask(self) -> None:
        """Give a new command, or one that was given before once more."""
        random = self.random
        if self.asked and random.random() < 0.25:
            request = random.choice(self.asked)
        else:
            request = self.wish()
            self.asked.append(request)
        known = self.view.ledger.find(request.id)
        if known is not None:
            assert known.number == self.numbers[request.id]
            return
        if any(record.id == request.id for record in self.journaling) or self.view.ended or malformed(request):
            return
        try:
            check_revision(request, rev=self.view.rev, knobs=self.view.knobs)
        except StaleError:
            return
        record = judge(
            request,
            run=RUN,
            incarnation=self.view.incarnation,
            number=self.view.ledger.reserve(),
            knobs=self.view.knobs,
            time=0.0,
        )
        self.journaling.append(record)

    def wish(self) -> CommandRequest:
        random = self.random
        name = f"c{len(self.asked)}"
        verb = random.choice(["set"] * 8 + ["pause", "resume", "step", "evaluate", "checkpoint"])
        later = random.random()
        at_step = None if later < 0.7 else self.engine.step + random.randint(-2, 6)
        more: dict[str, Any] = {"at_step": None if at_step is None else max(0, at_step)}
        if random.random() < 0.2:
            more["expected_rev"] = max(0, self.view.rev + random.randint(-1, 2))
        if verb == "step":
            more["steps"] = random.randint(1, 3)
        if verb != "set":
            if random.random() < 0.04:
                verb = "stop"
                more.pop("steps", None)
            return CommandRequest(id=name, verb=verb, **more)  # type: ignore[arg-type]
        values = {
            "optim.lr": random.choice([0.1, 0.2, 0.3]),
            "zspace.gain": random.choice([0.0, 0.25, 0.5, 0.75, 2.0]),
            "zspace.zbn1.gain": random.choice([0.25, 0.75]),
            "zspace.auto_gain": random.choice([0.0, 0.0, 0.7]),
            "run.steps": float(random.choice([0, 0, 0, 0, self.engine.step + 3, max(1, self.engine.step - 1)])),
        }
        names = random.choices(sorted(values), [6, 2, 2, 1, 1], k=random.choice([1, 1, 2]))
        names = sorted(set(names))
        sets = [Setting(knob=knob, value=values[knob]) for knob in names]
        return CommandRequest(id=name, verb="set", sets=sets, supersede=random.random() < 0.5, **more)

    def journal_one(self) -> None:
        if self.journaling:
            record = self.journaling.pop(0)
            self.journal[record.number] = record
            self.view.ledger.add(record)
            self.numbers[record.id] = record.number
            self.view.expire()

    def store(self, *, everything: bool = False) -> None:
        """Let some of what is shown reach the disk."""
        count = len(self.shown) if everything else self.random.randint(0, len(self.shown))
        self.stored += self.shown[:count]
        del self.shown[:count]
        if self.stored:
            self.view.kept(self.stored[-1].incarnation, self.stored[-1].seq)

    def restart_server(self) -> None:
        self.connected = False
        self.journaling.clear()
        self.shown.clear()
        last = self.stored[-1] if self.stored else None
        history = History(messages=list(self.stored), commands=[self.journal[n] for n in sorted(self.journal)])  # type: ignore[arg-type]
        if last is not None:
            history.incarnation, history.seq = last.incarnation, last.seq
        self.view = view_of(RUN, history)

    # --- the courier

    def connect(self) -> None:
        if not self.courier:
            return
        # The server asks its store how far it is, and so waits for what is on its way to the disk, or lost.
        if self.random.random() < 0.1:
            self.shown.clear()
        self.store(everything=True)
        self.connected = True
        mine = [one.seq for one in self.stored if one.incarnation == self.engine.incarnation]
        self.sent_up = (mine[-1] if mine else -1) + 1
        self.sent_down = 0

    def upload(self, most: int = 3) -> None:
        if not self.connected:
            return
        for message in self.engine.log[self.sent_up :][: self.random.randint(0, most)]:
            self.sent_up += 1
            if self.view.admits(message):
                self.view.fold(message)
            if message not in self.stored and message not in self.shown:
                self.shown.append(message)

    def hand_down(self) -> None:
        """Bring some of what the engine has not answered, in order; the pipe may hold it twice and shuffled."""
        if not self.connected:
            return
        for record in self.view.ledger.unsettled(after=self.sent_down)[: self.random.randint(1, 4)]:
            self.sent_down = record.number
            if self.engine.alive:
                self.engine.pipe.append(command_of(record))
        if self.random.random() < 0.3:
            self.engine.pipe += self.engine.pipe[:2]
            self.random.shuffle(self.engine.pipe)

    def conclude(self) -> None:
        """Speak for an engine that has died."""
        if self.courier and not self.engine.alive:
            follower = LastWord(RUN, self.engine.incarnation)
            for message in self.engine.log:
                follower.follow(message.seq, codec.encode(message))
            self.engine.log += follower.missing(self.applied, time=0.0)

    def kill_courier(self) -> None:
        self.courier = self.connected = False
        self.engine.pipe.clear()

    def start_courier(self) -> None:
        """A living engine starts another one."""
        if self.engine.alive:
            self.courier = True

    # --- the engine

    def resume(self) -> None:
        if self.engines and self.engine.alive:
            return
        incarnation = len(self.engines)
        self.engines.append(Engine(self, incarnation, self.engine.step if self.engines else 0))
        self.courier, self.connected = True, False

    def boundary(self) -> None:
        if self.engine.alive:
            self.engine.boundary(update=self.random.random() < 0.7)

    def kill_engine(self) -> None:
        """Now, or in the middle of what it writes next."""
        if self.random.random() < 0.5:
            self.engine.alive = False
        elif self.engine.alive:
            self.engine.dies_in = self.random.randint(0, 3)

    # --- laws

    def folded(self) -> dict[str, Any]:
        """Give the values in force as the applied log has them."""
        folded = dict(FIRST)
        for entry in self.applied:
            folded |= {change.knob: change.in_force for change in entry.changes}
        return folded

    def check_values(self) -> None:
        assert knobs.in_force(STATE) == self.folded()
        assert self.applied[-1].rev == STATE.rev if self.applied else STATE.rev == 0

    def check_records(self) -> None:
        for record in self.view.ledger.records():
            if record.state != "accepted":
                first = self.told.setdefault(record.id, record)
                assert (record.state, record.step, record.by) == (first.state, first.step, first.by), (first, record)

    def settle(self) -> None:
        """Let everything that was asked come to its end."""
        self.random = Random(1)
        self.resume()
        self.courier = True
        self.engine.dies_in = -1
        while self.journaling:
            self.journal_one()
        for _ in range(12):
            self.connect()
            for _ in range(3):
                self.upload(10**6)
                self.hand_down()
            if self.engine.alive:
                self.engine.state.phase = "training"
                self.engine.boundary(update=True)
        self.engine.alive = False
        self.conclude()
        self.random = Random(1)
        self.connect()
        while self.sent_up < len(self.engine.log):
            self.upload(10**6)
        self.store(everything=True)
        self.check_records()


MOVES = [
    (World.ask, 24),
    (World.journal_one, 20),
    (World.store, 8),
    (World.upload, 14),
    (World.hand_down, 14),
    (World.connect, 6),
    (World.boundary, 9),
    (World.restart_server, 2),
    (World.conclude, 4),
    (World.kill_courier, 1),
    (World.start_courier, 3),
    (World.kill_engine, 1),
    (World.resume, 2),
]


def played(seed: int) -> World:
    world = World(seed)
    moves, weights = zip(*MOVES, strict=True)
    for move in Random(~seed).choices(moves, weights, k=MOMENTS):
        move(world)
        world.check_records()
    world.settle()
    return world


def check_end(world: World) -> None:
    records = world.view.ledger.records()
    assert all(record.state != "accepted" for record in records)
    assert {record.number for record in records} == set(world.journal)
    assert {name: spec.value for name, spec in world.view.knobs.items()} == world.folded()
    numbers = [entry.number for entry in world.applied]
    assert len(numbers) == len(set(numbers)), "applied once"
    assert {record.number for record in records if record.state == "applied"} == set(numbers)
    order = [(entry.step, entry.number) for entry in world.applied]
    assert order == sorted(order)
    assert [entry.rev for entry in world.applied] == list(range(1, len(numbers) + 1))
    place = {entry.number: entry for entry in world.applied}
    knobs_of = {record.number: {setting.knob for setting in record.sets} for record in records}
    for record in records:
        if record.state == "applied":
            entry = place[record.number]
            assert (record.step, record.rev, record.changes) == (entry.step, entry.rev, entry.changes)
            assert record.at_step is None or entry.step >= record.at_step
            assert record.expected_rev in (None, entry.rev - 1)
        elif record.state == "superseded":
            assert record.by is not None
            assert record.by > record.number
            assert knobs_of[record.number] <= knobs_of[record.by]
            assert record.number in place[record.by].instead_of


@pytest.mark.parametrize("part", range(4))
def test_every_command_ends_in_one_final_state_and_values_and_order_are_those_of_the_applied_log(part: int) -> None:
    ends: dict[str, int] = {}
    for seed in range(part, SCHEDULES, 4):
        try:
            world = played(seed)
            check_end(world)
        except AssertionError as error:
            raise AssertionError(f"schedule {seed}: {error}") from error
        for record in world.view.ledger.records():
            ends[record.state] = ends.get(record.state, 0) + 1
    # The schedules reach every end of a command, and often.
    assert all(ends.get(state, 0) > 50 for state in ("applied", "rejected", "superseded", "expired")), ends
