"""What must be true at the end of a schedule, read from the disks: nothing lost, nothing twice, every answer kept."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from typing import Any

import numpy as np

from faults.people import SETTLED, People
from faults.world import FINAL, World
from spiral_core.link import applied
from spiral_core.link.applied import History
from spiral_core.wire import codec
from spiral_core.wire.messages import Frame
from spiral_server.live.run_view import RunView
from spiral_server.store import redo
from spiral_server.store.protocol import SeriesQuery
from spiral_server.store.rebuild import view_of
from spiral_server.store.run_reader import RunReader
from spiral_server.store.schema import RUN_FILE, open_for_reading

ALL_POINTS = 10**7


def check_promises(world: World) -> None:
    """See that what the server has told couriers to be on its disk is there; to be asked while it is dead."""
    path = world.logdir / world.run / RUN_FILE
    if not world.proxy.promises.stored:
        return
    connection = open_for_reading(path)
    try:
        marks = dict(connection.execute("SELECT incarnation, seq FROM marks").fetchall())
    finally:
        connection.close()
    for incarnation, seq in world.proxy.promises.stored.items():
        held = marks.get(incarnation, -1)
        assert held >= seq, f"the server said that it holds {incarnation}:{seq}, and holds {held}"


def judge(world: World, people: People, *, replayed: bool, gaps: bool = False) -> None:
    """See that everything holds that was promised; ``gaps``: the logs may miss steps, since a disk was full."""
    assert not people.broken, "; ".join(people.broken)
    check_promises(world)
    history = applied.read(world.directory.applied)
    reader = RunReader(world.run, world.logdir / world.run / RUN_FILE)
    told = reader.history()
    pending = redo.read(world.logdir / world.run / redo.REDO_FILE).records
    told.commands = list({one.id: one for one in [*told.commands, *pending]}.values())
    view = view_of(world.run, told)
    _check_journal(view, history, people)
    _check_lines(view, world)
    _check_values(view, history)
    _check_frames(world, reader, gaps=gaps)
    if replayed:
        _check_replay(world)


def _check_journal(view: RunView, history: History, people: People) -> None:
    records = {record.id: record for record in view.ledger.records()}
    numbers = Counter(record.number for record in records.values())
    assert max(numbers.values()) == 1, f"numbers given twice: {[n for n, times in numbers.items() if times > 1]}"
    for record in records.values():
        assert record.state in FINAL, f"command {record.id} is {record.state} for ever"
    for identity, answers in people.answers.items():
        for status, answer in answers:
            if status in (200, 202):
                assert identity in records, f"command {identity} was accepted and is lost"
                assert answer["number"] == records[identity].number, f"command {identity} has another number"
    for identity, first in people.seen.items():
        assert identity in records, f"command {identity} was seen to be {first['state']} and is lost"
        record = codec.plain(records[identity])
        assert isinstance(record, dict)
        now = {name: record[name] for name in SETTLED}
        assert now == first, f"command {identity} was seen as {first} and is {now}"

    entries = {entry.id: entry for entry in history.written}
    for kind, times in (("id", Counter(one.id for one in history.written)), ("number", _numbers(history))):
        assert max(times.values(), default=1) == 1, f"applied twice, by {kind}: {times.most_common(3)}"
    assert history.entries == history.written
    done = {record.id for record in records.values() if record.state == "applied"}
    assert done == set(entries), f"journal and applied.log differ: {sorted(done ^ set(entries))}"
    for identity, entry in entries.items():
        record = records[identity]
        assert (record.number, record.step, record.changes, record.rev) == (
            entry.number,
            entry.step,
            entry.changes,
            entry.rev,
        ), f"command {identity}: the journal says {record}, applied.log {entry}"


def _numbers(history: History) -> Counter[int]:
    return Counter(entry.number for entry in history.written)


def _check_lines(view: RunView, world: World) -> None:
    """See that each whole line of a file has one record: its id, or that of a line that is no command."""
    path = world.directory.path / "commands.jsonl"
    lines = path.read_bytes().splitlines() if path.exists() else []
    records = [record for record in view.ledger.records() if record.source == "file"]
    lines = [line for line in lines if line.strip()]
    of_lines = [record for record in records if not record.id.startswith("checkpoint:")]
    assert len(of_lines) == len(lines), f"{len(lines)} lines were written, and {len(of_lines)} answered"
    assert not (world.directory.path / "checkpoint").exists(), "the file that was touched is still there"


def _check_values(view: RunView, history: History) -> None:
    fold: dict[str, Any] = {}
    for entry in history.entries:
        fold |= {change.knob: change.in_force for change in entry.changes}
    in_force = {name: view.knobs[name].value for name in fold}
    assert in_force == fold, f"in force are {in_force}, applied were {fold}"
    last = max((entry.rev for entry in history.entries), default=0)
    assert view.rev == last, f"revision {view.rev} is shown, {last} was applied"


def _check_frames(world: World, reader: RunReader, *, gaps: bool) -> None:
    """See that the store gives each step once, with the values of the newest incarnation."""
    assert world.logs is not None
    world.logs.look()
    truth: dict[int, dict[int, float]] = {}
    for incarnation in sorted(world.logs.messages):
        said = world.logs.messages[incarnation]
        frames = [one for one in said if isinstance(one, Frame)]
        updates = [frame.step for frame in frames if frame.step > said[0].step]
        if updates:
            truth = {step: values for step, values in truth.items() if step < updates[0]}
        for frame in frames:
            values = zip(frame.index.numpy().tolist(), frame.values.numpy().tolist(), strict=True)
            truth.setdefault(frame.step, {}).update(values)
    steps = sorted(truth)
    # There is a step 0 where an evaluation was asked for before the first update.
    assert gaps or steps == list(range(steps[0], len(steps) + steps[0])), "the run logs miss a step"
    assert steps[0] in (0, 1)
    read = reader.series(SeriesQuery(None, None, None, ALL_POINTS))
    assert read.damage == []
    held: dict[int, dict[int, float]] = {}
    for index, points in read.columns.items():
        assert np.all(np.diff(points.steps) > 0), f"series {index} has a step twice"
        for step, value in zip(points.steps.tolist(), points.values.tolist(), strict=True):
            held.setdefault(int(step), {})[index] = value
    lost = sorted(set(truth) - set(held))
    assert not lost, f"steps {lost[:5]} are not in the store"
    for step in steps:
        wrong = [index for index, value in truth[step].items() if not _same(held[step].get(index), value)]
        assert not wrong, f"step {step}, series {wrong}: {truth[step]} was logged, {held[step]} is stored"
    assert len(held) == len(truth), "the store has steps that no log has"


def _same(held: float | None, logged: float) -> bool:
    return held is not None and (held == logged or (np.isnan(held) and np.isnan(logged)))


def _check_replay(world: World) -> None:
    words = ["-m", "spiral_core.cli", "replay", world.run, "--verify", "--logdir", str(world.engine_logdir)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"the replay differs: {done.stdout}{done.stderr}"
    assert "identical" in done.stdout, done.stdout
    world.timeline.note(done.stdout.strip())
