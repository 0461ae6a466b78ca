"""Commands by file: what is taken, what is refused, and that nothing is done twice, whatever is torn or killed."""

from __future__ import annotations

import getpass
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spiral_core.engine.config import for_data
from spiral_core.engine.state import RunState, initial_state
from spiral_core.errors import RunLogError
from spiral_core.link import applied as applied_log
from spiral_core.link.answered import Answered, answered
from spiral_core.link.applied import AppliedLog, Origin
from spiral_core.link.inbox import Inbox
from spiral_core.link.recorder import Recorder
from spiral_core.link.rundir import RunDir, find
from spiral_core.link.runlog import RunLogReader, RunLogWriter
from spiral_core.link.runner import Options, train
from spiral_core.link.steering import Steering
from spiral_core.link.triggers import LOOK_SECONDS, MOST_LINES, READ_BYTES, FileTriggers, Found
from spiral_core.wire import codec
from spiral_core.wire.messages import Ack, Command
from spiral_core.wire.parts import Setting
from spiral_core.wire.requests import EXPIRED, MAX_REQUEST_BYTES

ME = getpass.getuser()


def line(identity: str, verb: str = "set", gain: float | None = None, **more: Any) -> bytes:
    """Write a command as one line of JSON."""
    sets = [] if gain is None else [{"knob": "zspace.gain", "value": gain}]
    return json.dumps({"id": identity, "verb": verb, "sets": sets, **more}).encode() + b"\n"


@pytest.fixture
def here(tmp_path: Path) -> RunDir:
    return RunDir(path=tmp_path, id="r")


def append(here: RunDir, content: bytes) -> None:
    with (here.path / "commands.jsonl").open("ab") as file:
        file.write(content)


def look(files: FileTriggers) -> list[Found]:
    return files.look(0.0, at_once=True)


def ids(found: list[Found]) -> list[str]:
    return [one.request.id for one in found]


# Looking.


def test_a_touched_file_is_one_command_and_is_removed_when_that_is_answered(here: RunDir) -> None:
    files = FileTriggers(here, ())
    assert look(files) == []
    (here.path / "stop").touch()
    (here.path / "checkpoint").write_text("what is in it does not matter")
    found = look(files)
    assert [(one.request.verb, one.actor, one.reason) for one in found] == [
        ("stop", ME, None),
        ("checkpoint", ME, None),
    ]
    assert look(files) == [], "it lies there still, and is the same"
    files.clear()
    assert list(here.path.iterdir()) == []
    (here.path / "checkpoint").touch()
    (again,) = look(files)
    assert again.request.id != found[1].request.id


def test_a_touched_file_that_a_killed_engine_had_answered_means_nothing_to_the_next(here: RunDir) -> None:
    (here.path / "stop").touch()
    (found,) = look(FileTriggers(here, ()))
    files = FileTriggers(here, [ack_of(found.request.id)])
    assert look(files) == []
    files.clear()
    assert not (here.path / "stop").exists()


def ack_of(identity: str, source: str = "file") -> Ack:
    head = {"run": "r", "incarnation": 0, "seq": 0, "step": 1, "time": 0.0}
    told: dict[str, Any] = {"verb": "stop", "state": "applied", "changes": [], "reason": "", "rev": 1, "actor": ""}
    return Ack(**head, number=-1, id=identity, source=source, **told)


def test_what_is_no_file_of_its_own_is_no_command_and_does_not_hold_the_loop_up(here: RunDir) -> None:
    (here.path / "stop").mkdir()
    os.mkfifo(here.path / "checkpoint")
    os.mkfifo(here.path / "commands.jsonl")
    files = FileTriggers(here, ())
    assert look(files) == []
    files.clear()
    assert len(list(here.path.iterdir())) == 3


def test_lines_are_taken_in_order_once_and_a_torn_one_waits_for_its_end(here: RunDir) -> None:
    files = FileTriggers(here, ())
    whole = line("a", gain=0.5) + b"\r\n\n" + line("b", "pause") + line("c", "resume")
    for cut in range(0, len(whole), 7):
        append(here, whole[cut : cut + 7])
        found = look(files)
        assert all(one.reason is None and one.actor == ME for one in found)
        assert set(ids(found)) <= {"a", "b", "c"}
    assert ids(look(FileTriggers(here, ()))) == ["a", "b", "c"]
    assert look(files) == []
    append(here, line("d", "stop"))
    assert ids(look(files)) == ["d"]


def test_the_same_id_is_the_same_command_in_one_file_in_another_and_in_the_journal(here: RunDir) -> None:
    files = FileTriggers(here, [ack_of("before", source="ui")])
    asked = {"verb": "pause", "sets": [], "actor": "", "source": "ui", "run": "r", "time": 0.0}
    assert files.admits(Command(id="by-http", number=1, **asked))
    append(here, line("a", "pause") + line("a", "stop") + line("before", "stop") + line("by-http", "stop"))
    assert ids(look(files)) == ["a"]
    assert not files.admits(Command(id="a", number=2, **asked))
    assert files.admits(Command(id="by-http", number=1, **asked)), "sent again: the queue knows its number"
    # An editor writes a new file in the place of the old one.
    (here.path / "new").write_bytes(line("a", "pause") + line("b", "pause"))
    (here.path / "new").replace(here.path / "commands.jsonl")
    assert ids(look(files)) == ["b"]
    (here.path / "commands.jsonl").write_bytes(line("c", "pause"))
    assert ids(look(files)) == ["c"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"stop please\n", "not a command: JSON is malformed"),
        (b"\xff\xfe\n", "not a command"),
        (b'{"verb": "stop"}\n', "missing required field `id`"),
        (line("a", "explode"), "Invalid enum value 'explode'"),
        (line("a", "stop", urgent=True), "unknown field `urgent`"),
        (line("", "stop"), "id takes 1 to 64 characters"),
        (line("a" * 65, "stop"), "id takes 1 to 64 characters"),
        (line("a", "step", steps=2**53), "whole numbers must be smaller"),
        (b"[" * 20_000 + b"\n", "not a command"),
        (b"x" * (MAX_REQUEST_BYTES + 1) + b"\n", "at most 65536 bytes"),
    ],
)
def test_garbage_is_refused_with_its_place_and_what_follows_is_taken(here: RunDir, content: bytes, said: str) -> None:
    append(here, line("first", "pause") + content + line("last", "pause"))
    first, garbage, last = look(FileTriggers(here, ()))
    assert (first.request.id, last.request.id) == ("first", "last")
    assert garbage.reason is not None
    assert said in garbage.reason
    assert f"the line at byte {len(line('first', 'pause'))}:" in garbage.reason
    assert len(garbage.request.id) <= 64
    (_, again, _) = look(FileTriggers(here, ()))
    assert again == garbage, "a later engine knows it again"


def test_a_line_without_an_end_is_refused_once_and_skipped_in_pieces(here: RunDir) -> None:
    files = FileTriggers(here, ())
    found: list[Found] = []
    for _ in range(5):
        append(here, b"x" * READ_BYTES)
        found += look(files)
    (only,) = found
    assert only.reason is not None
    assert "at most 65536 bytes" in only.reason
    append(here, b"x\n" + line("a", "pause"))
    assert ids(look(files) + look(files)) == ["a"]


def test_a_flood_of_lines_is_taken_a_hundred_at_a_time(here: RunDir) -> None:
    append(here, b"".join(line(str(number), "evaluate") for number in range(250)))
    files = FileTriggers(here, ())
    taken = [ids(look(files)) for _ in range(4)]
    assert [len(part) for part in taken] == [MOST_LINES, MOST_LINES, 50, 0]
    assert [one for part in taken for one in part] == [str(number) for number in range(250)]


def test_files_are_looked_at_a_few_times_a_second(here: RunDir) -> None:
    files = FileTriggers(here, ())
    assert files.look(10.0) == []
    append(here, line("a", "pause"))
    assert files.look(10.0 + 0.9 * LOOK_SECONDS) == []
    assert ids(files.look(10.0 + LOOK_SECONDS)) == ["a"]


# Steering.

STATE = initial_state(for_data("needle", batch_size=8))


class Life:
    """One engine on a run directory, as far as commands go: the real steering, applied log and run log."""

    def __init__(self, here: RunDir, state: RunState, incarnation: int) -> None:
        self.state = state
        earlier = Answered()
        if incarnation:
            said = [one for before in range(incarnation) for one in acks(here, before)]
            earlier = answered(here.id, applied_log.read(here.applied).written, said)
        state.own_entries = max(state.own_entries, earlier.own)
        self.applied = AppliedLog(here.applied)
        if not incarnation:
            self.applied.begin(Origin(run=here.id, name="", config=""))
        self.log = RunLogWriter(here.frames_of(incarnation), run=here.id, incarnation=incarnation, clock=time.time)
        recorder = Recorder(self.log, state, earlier.acks)
        self.files = FileTriggers(here, earlier.acks)
        self.steering = Steering(state, Inbox(), self.files, self.applied, recorder, earlier.numbers)
        recorder.started("", {})

    def drain(self) -> None:
        self.files._next_look = 0.0
        self.steering.drain()

    def end(self) -> None:
        self.applied.close()
        self.log.close()


def acks(here: RunDir, incarnation: int) -> list[Ack]:
    records = RunLogReader(here.frames_of(incarnation)).records()
    return [one for one in map(codec.decode, (record.data for record in records)) if isinstance(one, Ack)]


def anew(state: RunState = STATE) -> RunState:
    state.step, state.rev, state.phase, state.own_entries = 0, 0, "training", 0
    state.wanted.clear()
    return state


def test_what_files_ask_for_is_validated_numbered_applied_and_answered_like_any_other(here: RunDir) -> None:
    life = Life(here, anew(), 0)
    append(here, line("one", gain=0.5, actor="Eve", source="ui") + line("two", gain=7.0) + line("three", "mark"))
    append(here, line("four", gain=0.25, at_step=5) + line("five", gain=0.1, expected_rev=0) + b"stop\n")
    append(here, line("six", gain=0.4, at_step=5, supersede=True))
    (here.path / "checkpoint").touch()
    life.drain()
    assert life.state.wanted == {"checkpoint"}
    assert not (here.path / "checkpoint").exists()
    life.state.step = 4
    life.drain()
    life.end()
    told = {one.id: one for one in acks(here, 0)}
    states = [(one.state, one.number, one.step, one.rev) for one in told.values()]
    assert states[:6] == [
        ("rejected", -3, 1, 0),
        ("rejected", -4, 1, 0),
        ("rejected", -7, 1, 0),
        ("applied", -1, 1, 1),
        ("applied", -2, 1, 2),
        ("rejected", -6, 1, 2),
    ]
    assert states[6:] == [("applied", -8, 5, 3), ("superseded", -5, 5, 3)]
    assert {(one.actor, one.source) for one in told.values()} == {(ME, "file")}
    assert "zspace.gain = 7 is out of bounds" in told["two"].reason
    assert "mark is for the guards" in told["three"].reason
    assert "expected revision 0, but revision 2" in told["five"].reason
    entries = applied_log.read(here.applied).written
    assert [one.number for one in entries] == [-1, -2, -8]
    assert entries[-1].sets == [Setting(knob="zspace.gain", value=0.4)]


def test_a_run_that_ends_answers_what_did_not_get_its_turn(here: RunDir) -> None:
    life = Life(here, anew(), 0)
    append(here, line("later", gain=0.5, at_step=1000))
    life.drain()
    append(here, line("unread", "pause"))
    (here.path / "stop").touch()
    life.steering.finish()
    life.end()
    told = [(one.id, one.state, one.reason) for one in acks(here, 0)]
    assert told[-1] == ("later", "rejected", EXPIRED)
    assert [state for _, state, _ in told] == ["rejected"] * 3
    assert list(here.path.glob("stop")) == []
    next_life = Life(here, anew(), 1)
    next_life.drain()
    next_life.end()
    assert len(acks(here, 1)) == 3, "said again, and nothing else"
    assert next_life.state.own_entries == 3


class Killed(Exception):
    """The engine dies here."""


@pytest.mark.parametrize("seed", range(25))
def test_whatever_is_torn_repeated_or_killed_each_command_is_answered_once_and_applied_at_most_once(
    here: RunDir, seed: int
) -> None:
    """An engine dies before or after it writes to either log; the next goes on with what is on disk."""
    chance = random.Random(seed)
    state = anew()
    rest = b""
    given: set[str] = set()
    incarnation = 0
    life = Life(here, state, 0)
    for turn in range(120):
        act = chance.choice(["append", "append", "touch", "again", "tear", "step", "step", "die"])
        if act in ("append", "again", "tear"):
            identity = f"c{turn}" if act != "again" or not given else chance.choice(sorted(given))
            at_step = chance.choice([None, None, state.step + chance.randrange(6)])
            gain = chance.choice([0.1, 0.2, 0.3, 9.0])
            text = rest + line(identity, gain=gain, at_step=at_step, supersede=chance.random() < 0.3)
            rest = b""
            if act == "tear":
                cut = chance.randrange(len(text))
                text, rest = text[:cut], text[cut:]
            append(here, text)
            given.add(identity)
        elif act == "touch":
            (here.path / "checkpoint").touch()
        elif act == "step":
            life.drain()
            state.step += 1
        else:
            if chance.random() < 0.7:
                _die_while_writing(life, chance)
            life.end()
            incarnation += 1
            entries = applied_log.read(here.applied).written
            state.rev = entries[-1].rev if entries else 0
            life = Life(here, state, incarnation)
    append(here, rest)
    state.step += 1000
    for _ in range(5):
        life.drain()
    life.end()
    entries = applied_log.read(here.applied).written
    assert len({one.id for one in entries}) == len(entries), "applied at most once"
    assert [one.rev for one in entries] == list(range(1, len(entries) + 1))
    finals: dict[str, str] = {}
    numbers: dict[str, int] = {}
    for number in range(incarnation + 1):
        for ack in acks(here, number):
            assert finals.setdefault(ack.id, ack.state) == ack.state, "one final state, whatever is said again"
            assert numbers.setdefault(ack.id, ack.number) == ack.number
    assert given <= set(finals), "each is answered"
    assert {one.id for one in entries} == {name for name, final in finals.items() if final == "applied"}
    assert len(set(numbers.values())) == len(numbers), "no number twice"


def _die_while_writing(life: Life, chance: random.Random) -> None:
    """Kill the engine at one of its next writes: to the applied log, before or after, or to the run log."""
    left = chance.randrange(4)

    def dying(write: Callable[..., object], after: bool) -> Callable[..., object]:
        def wrapped(*given: object, **more: object) -> object:
            nonlocal left
            left -= 1
            if left < 0 and not after:
                raise Killed
            done = write(*given, **more)
            if left < 0:
                raise Killed
            return done

        return wrapped

    after = chance.random() < 0.5
    life.applied.append = dying(life.applied.append, after)  # type: ignore[method-assign, assignment]
    life.log.append = dying(life.log.append, after)  # type: ignore[method-assign, assignment]
    try:
        life.drain()
    except Killed:
        return


# The loop.


def test_a_paused_run_without_a_server_is_steered_by_files(tmp_path: Path) -> None:
    config = for_data("needle", batch_size=8, steps=30, evaluate_every=0, xai_every=0)

    def steer() -> None:
        run = begun(tmp_path)
        time.sleep(0.5)
        append(run, line("some", "step", steps=4) + line("gain", gain=0.5, at_step=3) + line("on", "resume", at_step=5))

    seen: list[tuple[int, float]] = []
    thread = threading.Thread(target=steer)
    thread.start()
    try:
        result = train(
            config,
            Options(logdir=tmp_path, start_paused=True, threads=1),
            lambda _state, report, _evaluation: seen.append((report.step, report.gain)),
        )
    finally:
        thread.join()
    assert (result.status, result.step) == ("finished", 30)
    assert [step for step, _ in seen] == list(range(1, 31))
    assert [gain for _, gain in seen] == [1.0] * 2 + [0.5] * 28
    told = acks(RunDir(path=result.path, id=result.run), 0)
    assert [(one.id, one.state, one.step) for one in told] == [
        ("some", "applied", 1),
        ("gain", "applied", 3),
        ("on", "applied", 5),
    ]


def test_a_killed_engine_that_is_resumed_does_nothing_twice_and_forgets_nothing(tmp_path: Path) -> None:
    words = ["train", "--quiet", "--data", "digits", "--steps", "400", "--rate", "100", "--checkpoint-every", "50"]
    engine = subprocess.Popen([sys.executable, "-m", "spiral_core.cli", *words, "--logdir", str(tmp_path)])
    try:
        directory = begun(tmp_path)
        append(directory, line("now", gain=0.5) + line("later", gain=0.25, at_step=300) + b"garbage\n")
        until(lambda: len(written(directory)) == 1)
        until(lambda: len(list(directory.checkpoints.glob("*.safetensors"))) >= 2)
        # Refused after the last checkpoint: no state that is gone back to knows of its number.
        append(directory, b"more garbage\n")
        until(lambda: len(refused(directory, 0)) == 2)
    finally:
        engine.kill()
        engine.wait()
    append(directory, line("fresh", gain=0.75))
    resumed = [sys.executable, "-m", "spiral_core.cli", "train", "--quiet", "--resume", directory.id]
    done = subprocess.run(
        [*resumed, "--logdir", str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    entries = written(directory)
    assert sorted(one.id for one in entries) == ["fresh", "later", "now"]
    assert next(one.step for one in entries if one.id == "later") == 300
    assert len(refused(directory, 1)) == 2, "the garbage of before, said again once"
    numbers = {(one.number, one.id) for incarnation in (0, 1) for one in acks(directory, incarnation)}
    assert len(numbers) == len({number for number, _ in numbers}) == 5, "each number is one command's for good"


def begun(logdir: Path) -> RunDir:
    """Wait for the one run there, which is one from when its configuration lies in its folder."""
    (config,) = until(lambda: list(logdir.glob("*/config.json")))
    return find(logdir, config.parent.name)


def refused(directory: RunDir, incarnation: int) -> list[Ack]:
    return [one for one in acks(directory, incarnation) if one.state == "rejected"]


def written(directory: RunDir) -> list[Any]:
    try:
        return applied_log.read(directory.applied).written
    except RunLogError:
        return []


def until(question: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := question():
            return answer
        time.sleep(0.02)
    raise AssertionError("waited in vain")
