"""The training loop: what belongs to which update."""

from __future__ import annotations

import itertools
import os
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from engine_runs import digest
from spiral_core import kernels
from spiral_core.data import Batch
from spiral_core.engine.config import for_data
from spiral_core.engine.state import RunState, initial_state
from spiral_core.errors import RunLogError
from spiral_core.link import recorder
from spiral_core.link.answered import Answered, answered
from spiral_core.link.applied import AppliedLog, Origin, read
from spiral_core.link.inbox import Inbox
from spiral_core.link.patientlog import PatientLog
from spiral_core.link.recorder import Recorder
from spiral_core.link.resume import begin_in
from spiral_core.link.rundir import RunDir
from spiral_core.link.runlog import RunLogReader, RunLogWriter
from spiral_core.link.runner import CLOSE_STEPS, Options, _Loop
from spiral_core.link.spawn import Line
from spiral_core.link.steering import Steering
from spiral_core.link.triggers import FileTriggers
from spiral_core.wire import codec
from spiral_core.wire.messages import Ack, Command, Frame, KnobsMoved, SeriesDeclared, StatusChanged
from spiral_core.wire.parts import Setting, Verb


def give(inbox: Inbox, number: int, verb: Verb, sets: dict[str, float] | None = None, **more: Any) -> None:
    settings = [Setting(knob=knob, value=value) for knob, value in (sets or {}).items()]
    who = {"id": f"c{number}", "actor": "", "source": "ui"}
    data = codec.encode(Command(run="r", number=number, verb=verb, sets=settings, time=0.0, **who, **more))
    os.write(inbox.write_end, struct.pack("<I", len(data)) + data)


def steer(inbox: Inbox, gain: float) -> None:
    give(inbox, 1, "set", {"zspace.gain": gain})


def trained(state: RunState, inbox: Inbox, rundir: RunDir, *, dump_every: int) -> list[object]:
    """Run the real loop without a server; give the messages of its log."""
    rundir.path.mkdir(exist_ok=True)
    rundir.config.write_bytes(msgspec.json.encode(state.config))
    start = begin_in(rundir, state.config, "a run")
    log = RunLogWriter(rundir.frames, run="r", incarnation=0, clock=time.time)
    applied = AppliedLog(rundir.applied)
    line = Line(rundir, incarnation=0, server=None, token="", inbox=inbox)
    options = Options(logdir=rundir.path, dump_every=dump_every)
    patient = PatientLog(log, rundir.reserve)
    _Loop(start, state, options, inbox, line, Recorder(patient, state), applied, patient, None).run("a run")
    patient.close()
    log.close()
    applied.close()
    start.release()
    return [codec.decode(record.data) for record in RunLogReader(rundir.frames).records()]


def test_what_is_steered_during_an_evaluation_belongs_to_the_next_update(tmp_path: Path) -> None:
    """The dump of the steered update is that of the update which used the new value, and so is its frame."""
    state = initial_state(for_data("needle", batch_size=8, steps=3, evaluate_every=1, xai_every=0))
    inbox = Inbox()
    held_out = state.dataset.test_batches

    def steered_once() -> Iterator[Batch]:
        if state.step == 1:
            steer(inbox, 0.25)
        return held_out()

    state.dataset.test_batches = steered_once  # type: ignore[method-assign]
    rundir = RunDir(path=tmp_path, id="r")
    said = trained(state, inbox, rundir, dump_every=1000)

    (ack,) = [message for message in said if isinstance(message, Ack)]
    assert (ack.state, ack.step) == ("applied", 2)
    assert [path.name for path in rundir.dumps.iterdir()] == ["step-00000002.npz"]
    with np.load(rundir.dumps / "step-00000002.npz") as held:
        assert float(held["gain/zbn1"]) == 0.25
        assert float(held["weights/zbn1.projector_gain"]) == 0.25
    assert [message.step for message in said if isinstance(message, Frame)] == [1, 2, 3]


def run_config(tmp_path: Path, **changes: object) -> list[object]:
    state = initial_state(for_data("needle", batch_size=8, evaluate_every=0, **changes))
    return trained(state, Inbox(), RunDir(path=tmp_path, id="r"), dump_every=0)


def observed_steps(said: list[object]) -> list[int]:
    declared = next(message for message in said if isinstance(message, SeriesDeclared))
    (wanted,) = [spec.index for spec in declared.series if spec.name == "zspace/zbn1/radius_mean"]
    return [one.step for one in said if isinstance(one, Frame) and wanted in one.index.numpy()]


def test_the_budget_decides_which_steps_are_observed_and_every_step_has_its_other_numbers(tmp_path: Path) -> None:
    seen = {}
    for percent in (0.0, 0.01, 100.0):
        said = run_config(tmp_path / f"{percent}", steps=60, xai_every=0, telemetry_budget=percent)
        assert [one.step for one in said if isinstance(one, Frame)] == list(range(1, 61))
        seen[percent] = observed_steps(said)
    assert seen[0.0] == []
    assert seen[100.0] == list(range(1, 61))
    # The first step has no price yet, and the last one is looked at in any case.
    assert len(seen[0.01]) < 10
    assert {1, 60} <= set(seen[0.01])


def test_steps_from_a_steer_on_and_steps_with_a_probe_are_observed_whatever_it_takes(tmp_path: Path) -> None:
    state = initial_state(
        for_data("needle", batch_size=8, evaluate_every=10, xai_every=16, telemetry_budget=1e-6, steps=50)
    )
    inbox = Inbox()
    held_out = state.dataset.test_batches

    def steered_once() -> Iterator[Batch]:
        if state.step == 30:
            steer(inbox, 0.25)
        return held_out()

    state.dataset.test_batches = steered_once  # type: ignore[method-assign]
    said = trained(state, inbox, RunDir(path=tmp_path, id="r"), dump_every=0)
    assert set(observed_steps(said)) >= {16, 32, 48, *range(31, 31 + CLOSE_STEPS), 50}
    assert not {*range(20, 30), *range(40, 48)} & set(observed_steps(said))


def weights_of(tmp_path: Path, percent: float) -> str:
    state = initial_state(for_data("fashion", batch_size=8, evaluate_every=0, xai_every=0, steps=40, auto_gain=0.7))
    state.telemetry_budget = percent
    trained(state, Inbox(), RunDir(path=tmp_path / f"{percent}", id="r"), dump_every=0)
    return digest(state)


def test_the_weights_are_the_same_bits_whatever_the_budget_with_auto_gain_on(tmp_path: Path) -> None:
    assert len({weights_of(tmp_path, percent) for percent in (0.0, 0.5, 100.0)}) == 1


def test_a_divergence_is_one_status_with_step_and_layer_and_the_run_goes_on(tmp_path: Path) -> None:
    state = initial_state(for_data("needle", batch_size=8, evaluate_every=0, steps=12, mode="riemannian", guards=[]))
    drawn = state.dataset.train_batch

    def bad_for_a_while(index: int, into: Batch | None = None) -> Batch:
        batch = drawn(index, into)
        if 4 <= index < 7:
            batch.images[0] = np.inf
        return batch

    state.dataset.train_batch = bad_for_a_while  # type: ignore[method-assign]
    said = trained(state, Inbox(), RunDir(path=tmp_path, id="r"), dump_every=0)
    told = [one for one in said if isinstance(one, StatusChanged) and one.status == "training"]
    assert [(one.step, one.detail[:30]) for one in told] == [(0, ""), (5, "not finite at step 5: the batc"), (8, "")]
    losses = [float(one.values.numpy()[0]) for one in said if isinstance(one, Frame)]
    assert [k + 1 for k, loss in enumerate(losses) if not np.isfinite(loss)] == [5, 6, 7]
    assert [one.status for one in said if isinstance(one, StatusChanged)][-1] == "finished"


def test_knobs_that_a_schedule_or_auto_gain_moves_are_said_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "MOVED_SECONDS", 0.0)
    said = run_config(tmp_path, steps=6, schedule="warmup-cosine", warmup_steps=2, lr=1e-3, auto_gain=0.7)
    moved = [one for one in said if isinstance(one, KnobsMoved)]
    rates = {one.step: change.in_force for one in moved for change in one.changes if change.knob == "optim.lr"}
    frames = {
        one.step: float(one.values.numpy()[list(one.index.numpy()).index(4)]) for one in said if isinstance(one, Frame)
    }
    assert {number: rates[number] for number in range(2, 7)} == {number: frames[number] for number in range(2, 7)}
    gains = [change for one in moved for change in one.changes if change.knob == "zspace.zbn1.gain"]
    assert gains[0].old == 1.0
    assert all(one.in_force == other.old for one, other in itertools.pairwise(gains))


def test_a_run_that_nothing_moves_says_nothing_of_its_knobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "MOVED_SECONDS", 0.0)
    assert not [one for one in run_config(tmp_path, steps=4) if isinstance(one, KnobsMoved)]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_run_can_go_over_to_narrow_numbers_and_one_that_has_shows_its_scale(
    tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    warmed: list[str] = []
    warm = kernels.warm

    def listen(names: Sequence[str], *rest: Any) -> None:
        warmed.extend(names)
        warm(names, *rest)

    monkeypatch.setattr(kernels, "warm", listen)
    steps = 30
    config = for_data("needle", batch_size=8, steps=steps, evaluate_every=0, xai_every=0, precision=precision)
    state = initial_state(config)
    said = trained(state, Inbox(), RunDir(path=tmp_path, id="r"), dump_every=0)

    assert sorted(warmed) == sorted(set(state.kernels)), "a person may switch to narrow numbers at any step"
    first = set(initial_state(config).first_kernels)
    assert set(warmed[: len(first)]) == first, "what an update runs comes before the first one"
    (declared,) = [message.series for message in said if isinstance(message, SeriesDeclared)]
    index = {spec.name: spec.index for spec in declared if spec.name.startswith("amp/")}
    assert sorted(index) == ["amp/scale", "amp/skipped"]
    shown = []
    for frame in (message for message in said if isinstance(message, Frame)):
        indices, packed = (np.frombuffer(array.data, array.dtype) for array in (frame.index, frame.values))
        values = dict(zip(indices.tolist(), packed.tolist(), strict=True))
        shown.append([values.get(index[name]) for name in sorted(index)])
    assert shown == [[65536.0, 0.0] if precision != "float32" else [None, None]] * steps


def statuses(said: list[object]) -> list[tuple[str, int]]:
    return [(one.status, one.step) for one in said if isinstance(one, StatusChanged) and one.status != "compiling"]


def test_a_run_that_starts_paused_takes_commands_and_steps_before_it_trains_on(tmp_path: Path) -> None:
    """Everything is said while it pauses; what is held comes at its boundary, and nothing twice."""
    config = for_data("needle", batch_size=8, steps=0, evaluate_every=0, xai_every=0)
    state = initial_state(config)
    state.phase = "paused"
    inbox = Inbox()
    frames = tmp_path / "frames.log"

    def once_paused_at(step: int) -> None:
        said: list[object] = []
        while ("paused", step) not in statuses(said):
            time.sleep(0.01)
            # Until the loop has begun to write it there is no log.
            with suppress(RunLogError):
                said = [codec.decode(record.data) for record in RunLogReader(frames).records()]

    def play() -> None:
        once_paused_at(0)
        give(inbox, 1, "set", {"optim.lr": 0.5})
        give(inbox, 2, "step", steps=2)
        once_paused_at(2)
        give(inbox, 3, "set", {"zspace.gain": 0.25}, at_step=5)
        give(inbox, 4, "evaluate")
        for number in (3, 1):
            give(inbox, number, "stop")
        give(inbox, 5, "set", {"run.steps": 6})
        give(inbox, 6, "set", {"optim.lr": 0.1}, at_step=100)
        give(inbox, 7, "resume")

    person = threading.Thread(target=play, daemon=True)
    person.start()
    said = trained(state, inbox, RunDir(path=tmp_path, id="r"), dump_every=0)
    person.join()

    assert statuses(said) == [("paused", 0), ("training", 0), ("paused", 2), ("training", 2), ("finished", 6)]
    acks = [(one.number, one.state, one.step) for one in said if isinstance(one, Ack)]
    assert acks == [
        (1, "applied", 1),
        (2, "applied", 1),
        (4, "applied", 3),
        (5, "applied", 3),
        (7, "applied", 3),
        (3, "applied", 5),
    ]
    assert [entry.number for entry in read(tmp_path / "applied.log").written] == [number for number, _, _ in acks]
    assert [one.step for one in said if isinstance(one, Frame)] == [1, 2, 2, 3, 4, 5, 6]
    ended = [one for one in said if isinstance(one, StatusChanged)][-1]
    assert (ended.done, ended.total) == (6, 6)


def test_a_run_that_a_command_ends_is_evaluated_at_its_last_step(tmp_path: Path) -> None:
    state = initial_state(for_data("needle", batch_size=8, steps=0, evaluate_every=100, xai_every=0))
    inbox = Inbox()
    drawn = state.dataset.train_batch

    def shortened(index: int, into: Batch | None = None) -> Batch:
        if index == 2:
            give(inbox, 1, "set", {"run.steps": 1})
        return drawn(index, into)

    state.dataset.train_batch = shortened  # type: ignore[method-assign]
    said = trained(state, inbox, RunDir(path=tmp_path, id="r"), dump_every=0)
    assert [one.step for one in said if isinstance(one, Frame)] == [1, 2, 3, 3]
    assert statuses(said)[-1] == ("finished", 3)


def test_a_resumed_run_says_again_what_was_answered_before_and_takes_none_of_it_once_more(tmp_path: Path) -> None:
    """A command that gave way is not taken again either, though only the applied log knows of it."""
    state = initial_state(for_data("needle", batch_size=8))
    applied = AppliedLog(tmp_path / "applied.log")
    applied.begin(Origin(run="r", name="a run", config=""))
    inbox = Inbox()

    def drained(incarnation: int, earlier: Answered) -> list[object]:
        path = tmp_path / f"frames-{incarnation}.log"
        log = RunLogWriter(path, run="r", incarnation=incarnation, clock=time.time)
        recorder = Recorder(log, state, earlier.acks)
        recorder.started("a run", {})
        files = FileTriggers(RunDir(path=tmp_path, id="r"), earlier.acks)
        Steering(state, inbox, files, applied, recorder, earlier.numbers).drain()
        log.close()
        return [codec.decode(record.data) for record in RunLogReader(path).records()]

    def answers(said: list[object]) -> list[tuple[int, str, int, int]]:
        return [(one.number, one.state, one.step, one.rev) for one in said if isinstance(one, Ack)]

    for number in (1, 2):
        give(inbox, number, "set", {"zspace.gain": number / 4}, supersede=True)
    give(inbox, 3, "set", {"zspace.gain": 7.0})
    first = drained(0, Answered())
    assert answers(first) == [(2, "applied", 1, 1), (1, "superseded", 1, 1), (3, "rejected", 1, 1)]
    state.step = 10
    for number in (1, 2):
        give(inbox, number, "set", {"zspace.gain": number / 4}, supersede=True)
    give(inbox, 4, "pause")
    # The run log has lost its end: what was applied is known all the same.
    again = drained(1, answered("r", read(tmp_path / "applied.log").written, []))
    assert answers(again) == [(2, "applied", 1, 1), (4, "applied", 11, 2)]
    kinds = [type(one).__name__ for one in again]
    assert kinds.index("Ack") < kinds.index("KnobsDeclared")
    said = [one for one in first if isinstance(one, Ack)]
    assert [ack.number for ack in answered("r", read(tmp_path / "applied.log").written, said).acks] == [2, 1, 3, 4]
    applied.close()


def test_a_rate_of_a_thousand_leads_to_alarm_rollback_and_cut_in_log_and_journal(tmp_path: Path) -> None:
    state = initial_state(for_data("fashion", batch_size=32, steps=120, evaluate_every=60, xai_every=0))
    inbox = Inbox()
    held_out = state.dataset.test_batches

    def steered_once() -> Iterator[Batch]:
        if state.step == 60:
            give(inbox, 1, "set", {"optim.lr": 1000.0})
        return held_out()

    state.dataset.test_batches = steered_once  # type: ignore[method-assign]
    rundir = RunDir(path=tmp_path, id="r")
    said = trained(state, inbox, rundir, dump_every=0)

    told = read(rundir.applied).entries
    assert [(one.number, one.verb, one.step, one.rev, one.actor) for one in told] == [
        (1, "set", 61, 1, ""),
        (-1, "rollback", 63, 2, "guard"),
        (-2, "mark", 62, 2, "guard"),
    ]
    back = told[1]
    assert (back.id, back.to_step, back.source) == ("guard-62-explosion", 50, "guard")
    assert "back to the weights of step 50, try 1 of 3" in back.reason
    assert [change.knob for change in back.changes] == ["optim.lr"]
    old, cut = float(back.changes[0].old or 0), float(back.changes[0].in_force or 0)
    assert old > 900
    assert cut < 0.02
    acks = [one for one in said if isinstance(one, Ack)]
    assert [(ack.number, ack.verb, ack.reason) for ack in acks] == [(one.number, one.verb, one.reason) for one in told]

    frames = [one for one in said if isinstance(one, Frame)]
    assert [one.step for one in frames] == list(range(1, 121)), "the count of steps goes on"
    losses = {one.step: float(one.values.numpy()[0]) for one in frames}
    rates = {one.step: float(one.values.numpy()[list(one.index.numpy()).index(4)]) for one in frames}
    assert losses[62] > 1000
    assert rates[61] == 1000.0
    assert rates[63] == cut
    assert np.mean([losses[step] for step in range(111, 121)]) < np.mean([losses[step] for step in range(51, 61)])
    details = [one.detail for one in said if isinstance(one, StatusChanged) and one.status == "training"]
    assert any(detail.startswith("guard explosion: train.loss_over_chance = ") for detail in details)


def test_guards_do_the_same_whatever_is_observed(tmp_path: Path) -> None:
    ends, logs = set(), set()
    for percent in (0.0, 100.0):
        lines = ["when zspace.*.saturation > 0.001 for 3 set zspace.*.gain = 0.5", "when train.loss > 1 mark"]
        config = for_data(
            "needle", batch_size=8, evaluate_every=0, xai_every=0, steps=20, telemetry_budget=percent, guards=lines
        )
        state = initial_state(config)
        rundir = RunDir(path=tmp_path / f"{percent}", id="r")
        trained(state, Inbox(), rundir, dump_every=0)
        ends.add(digest(state))
        logs.add(codec.to_json(read(rundir.applied).entries))
    assert len(ends) == 1
    (told,) = logs
    assert told.count(b'"id"') >= 2
