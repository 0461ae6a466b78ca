"""A run that goes on from a checkpoint is the run that never stopped."""

from __future__ import annotations

import os
import random
import resource
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spiral_core.engine.config import for_data
from spiral_core.engine.state import RunState
from spiral_core.errors import CheckpointError, RunLogError
from spiral_core.link import applied, hashes, resume, rundir, runner
from spiral_core.link.checkpoints import CheckpointFolder
from spiral_core.link.rundir import RunDir
from spiral_core.link.runlog import RunLogReader
from spiral_core.wire import codec
from spiral_core.wire.messages import Ack, CheckpointSaved, Frame, KnobsDeclared, RunStarted, StatusChanged
from steered_engine import EVERY_KIND, Plan, spawn, steered

CONFIG = for_data("fashion", batch_size=16, steps=100, evaluate_every=25, xai_every=0, optimizer="sgd")
SMALL = for_data("digits", batch_size=8, steps=60, evaluate_every=0, guards=())
STEERED: Plan = ((25, "set", {"optim.lr": 0.02}), (45, "set", {"zspace.gain": 0.9}))


def last_state(directory: RunDir) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Give everything that the last checkpoint holds, but who wrote it, and why."""
    folder = CheckpointFolder(directory.checkpoints)
    arrays, metadata = folder.load(folder.listed()[-1].path)
    return {name: array.tobytes() for name, array in arrays.items()}, {**metadata, "incarnation": 0, "reason": ""}


def directory_of(result: runner.Result) -> RunDir:
    return RunDir(path=result.path, id=result.run)


def said(directory: RunDir, incarnation: int) -> list[Any]:
    records = RunLogReader(directory.frames_of(incarnation)).records()
    return [codec.decode(record.data) for record in records]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return directory_of(steered(tmp_path_factory.mktemp("runs"), CONFIG, EVERY_KIND, hash_every=10))


@pytest.mark.parametrize("seed", [1, 2])
def test_an_engine_that_is_killed_twice_ends_where_one_ends_that_was_not(
    tmp_path: Path, uninterrupted: RunDir, seed: int
) -> None:
    """SIGKILL between two checkpoints, at an update of our choice or soon after it; steering flies all the while."""
    chance = random.Random(seed)
    words: list[str] = []
    for stop in (chance.randrange(22, 60), chance.randrange(61, 95)):
        with spawn(tmp_path, CONFIG, EVERY_KIND, *words) as engine:
            assert engine.stdout is not None
            assert any(int(line) == stop for line in engine.stdout)
            engine.send_signal(signal.SIGKILL)
            assert engine.wait(20) == -signal.SIGKILL
        (run,) = [path.name for path in tmp_path.iterdir() if path.is_dir()]
        words = [run]
    with spawn(tmp_path, CONFIG, EVERY_KIND, run) as engine:
        assert engine.stdout is not None
        steps = [int(line) for line in engine.stdout]
        assert engine.wait(60) == 0
    assert steps[-1] == 100

    directory = rundir.find(tmp_path, run)
    assert last_state(directory) == last_state(uninterrupted)
    history, whole = applied.read(directory.applied), applied.read(uninterrupted.applied)
    assert history.entries == whole.entries
    assert len(whole.entries) == len(history.written) == len(EVERY_KIND)
    told = {(one.step, one.rev): one.tensors for one in hashes.read(directory.hashes, history)}
    assert told == {(one.step, one.rev): one.tensors for one in hashes.read(uninterrupted.hashes, whole)}
    assert [one.incarnation for one in history.resumptions] == [1, 2]
    for number, resumed in enumerate(history.resumptions, start=1):
        frames = [one.step for one in said(directory, number) if isinstance(one, Frame)]
        assert frames == list(range(resumed.resumed + 1, resumed.resumed + 1 + len(frames)))


def test_what_was_applied_after_the_checkpoint_is_applied_and_acknowledged_again(tmp_path: Path) -> None:
    """The first process is cut off after step 50; the newest checkpoint is that of step 20."""
    first = steered(tmp_path, SMALL, (*STEERED, (50, "stop", {})), checkpoint_every=20)
    directory = directory_of(first)
    for step in (40, 50):
        CheckpointFolder(directory.checkpoints).file(step).unlink()
    done = steered(tmp_path, SMALL, STEERED, first.run, checkpoint_every=20)
    assert (done.status, done.step) == ("finished", 60)
    again = said(directory, 1)
    begun = next(place for place, one in enumerate(again) if isinstance(one, KnobsDeclared))
    assert [one.number for one in again[:begun] if isinstance(one, Ack)] == [1, 2, 3]
    acks = [one for one in again[begun:] if isinstance(one, Ack)]
    assert [(one.number, one.step, one.state) for one in acks] == [
        (1, 26, "applied"),
        (2, 46, "applied"),
        (3, 51, "applied"),
    ]
    assert {(one.number, one.changes[0].in_force) for one in acks[:2]} == {(1, 0.02), (2, 0.9)}
    waiting = next(one for one in again if isinstance(one, StatusChanged) and one.status == "training")
    assert waiting.detail == "commands wait until step 51, up to which the run had come"
    arrays, metadata = last_state(directory)
    alone, other = last_state(directory_of(steered(tmp_path / "alone", SMALL, STEERED, checkpoint_every=20)))
    assert arrays == alone
    assert metadata["values"] == {**other["values"], "rev": 3}, "the stop counts, and changes nothing else"


def test_a_run_without_a_checkpoint_goes_on_from_its_first_step(tmp_path: Path) -> None:
    """As after a kill before the first one: what was applied is applied again, and no answer is taken back."""
    first = steered(tmp_path, SMALL, (*STEERED, (50, "stop", {})))
    directory = directory_of(first)
    for path in directory.checkpoints.iterdir():
        path.unlink()
    done = steered(tmp_path, SMALL, STEERED, first.run)
    assert (done.status, done.step) == ("finished", 60)
    frames = [one.step for one in said(directory, 1) if isinstance(one, Frame)]
    assert frames == list(range(1, 61))
    assert [entry.number for entry in applied.read(directory.applied).written] == [1, 2, 3]
    alone = directory_of(steered(tmp_path / "alone", SMALL, STEERED))
    assert last_state(directory)[0] == last_state(alone)[0]


def test_a_checkpoint_that_is_taken_while_a_run_catches_up_knows_how_far_it_has_come(tmp_path: Path) -> None:
    """Resumed from step 20, when one command of two has been applied again; then resumed from step 30."""
    first = steered(tmp_path, SMALL, (*STEERED, (50, "stop", {})), checkpoint_every=20)
    directory = directory_of(first)
    folder = CheckpointFolder(directory.checkpoints)
    for step in (40, 50):
        folder.file(step).unlink()
    steered(tmp_path, SMALL, STEERED, first.run, checkpoint_every=10, keep=9)
    for step in (40, 50, 60):
        folder.file(step).unlink()
    assert [(one.step, one.position) for one in folder.listed()] == [(20, 0), (30, 1)]
    steered(tmp_path, SMALL, STEERED, first.run)
    alone = directory_of(steered(tmp_path / "alone", SMALL, STEERED))
    assert last_state(directory)[0] == last_state(alone)[0]


def test_going_back_to_a_step_gives_up_what_was_steered_after_it(tmp_path: Path) -> None:
    first = steered(tmp_path, SMALL, STEERED, checkpoint_every=20, keep=9)
    directory = directory_of(first)
    steered(tmp_path, SMALL, (), f"{first.run}@40", checkpoint_every=20, keep=9)
    history = applied.read(directory.applied)
    assert [entry.number for entry in history.entries] == [1]
    assert [entry.number for entry in history.written] == [1, 2]
    alone = directory_of(steered(tmp_path / "alone", SMALL, STEERED[:1], checkpoint_every=20, keep=9))
    assert last_state(directory) == last_state(alone)
    assert (
        hashes.read(directory.hashes, history)[-1].tensors
        == hashes.read(alone.hashes, applied.read(alone.applied))[-1].tensors
    )
    # Steered anew, then once more back behind both: all of that is given up.
    steered(tmp_path, SMALL, ((3, "set", {}), (4, "set", {}), (50, "set", {"optim.lr": 0.5})), f"{first.run}@40")
    steered(tmp_path, SMALL, (), f"{first.run}@20", checkpoint_every=20, keep=9)
    never = directory_of(steered(tmp_path / "never", SMALL, (), checkpoint_every=20, keep=9))
    assert last_state(directory)[0] == last_state(never)[0]
    history = applied.read(directory.applied)
    assert ([entry.number for entry in history.written], history.entries) == ([1, 2, 3], [])


def test_an_evaluation_before_the_first_update_of_a_resumed_run_keeps_the_curves_of_its_step(tmp_path: Path) -> None:
    """The frame of the newest incarnation counts, so that it has to have what the older one said of the step."""
    first = steered(tmp_path, SMALL, ((30, "stop", {}),))
    directory = directory_of(first)
    (directory.path / "commands.jsonl").write_text('{"id": "e", "verb": "evaluate"}\n')
    steered(tmp_path, SMALL, (), first.run)
    before = [one for one in said(directory, 0) if isinstance(one, Frame)][-1]
    again = next(one for one in said(directory, 1) if isinstance(one, Frame))
    assert before.step == again.step == 30
    old, new = (
        dict(zip(one.index.numpy().tolist(), one.values.numpy().tolist(), strict=True)) for one in (before, again)
    )
    assert old.items() < new.items()
    assert len(new) == len(old) + 2, "loss and accuracy of the evaluation"


def test_a_checkpoint_of_a_future_that_was_given_up_is_not_gone_on_from(tmp_path: Path) -> None:
    first = steered(tmp_path, SMALL, (*STEERED, (55, "stop", {})), checkpoint_every=20, keep=9)
    second = resume.reopen(tmp_path, f"{first.run}@20")
    second.release()
    with pytest.raises(CheckpointError, match=rf"given up; there are {first.run}@20$"):
        resume.reopen(tmp_path, f"{first.run}@40")
    third = resume.reopen(tmp_path, first.run)
    assert (third.state().step, third.incarnation) == (20, 2)
    third.release()


def test_a_newest_checkpoint_that_is_damaged_is_passed_over_and_said(tmp_path: Path) -> None:
    first = steered(tmp_path, SMALL, (*STEERED, (55, "stop", {})), checkpoint_every=20)
    folder = CheckpointFolder(directory_of(first).checkpoints)
    flip(folder.file(55), -5)
    with pytest.raises(CheckpointError, match=r"step-00000055.safetensors is damaged: .*older one: step-00000040"):
        resume.reopen(tmp_path, f"{first.run}@55")
    start = resume.reopen(tmp_path, first.run)
    start.release()
    assert start.state().step == 40
    assert "step-00000055.safetensors is damaged" in start.notices[0]
    for step in (20, 40):
        flip(folder.file(step), -5)
    with pytest.raises(CheckpointError, match=r"step-00000040\.safetensors is damaged"):
        resume.reopen(tmp_path, first.run)


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


def contents(path: Path) -> dict[str, bytes]:
    return {one.as_posix(): one.read_bytes() for one in sorted(path.rglob("*")) if one.is_file()}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("nothing", "there is no run 'elsewhere'"),
        ("no checkpoint", "has no checkpoint at step 30; .* alone goes on from its first step"),
        ("running", "is still being trained, by process"),
        ("finished", "is finished: all 60 steps are done; to go back to an earlier one, there are"),
        ("config", "is not what the run was started with: put back the original"),
        ("applied", r"applied\.log is damaged: line 2 "),
        ("hashes", r"hashes\.log is damaged: line 1 "),
        ("step", "has no checkpoint at step 33; there are"),
    ],
)
def test_what_cannot_be_resumed_is_refused_with_the_remedy_and_nothing_changes(
    tmp_path: Path, wrong: str, told: str
) -> None:
    stop: Plan = () if wrong == "finished" else ((30, "stop", {}),)
    first = steered(tmp_path, SMALL, stop, checkpoint_every=20)
    directory = directory_of(first)
    reference, held = first.run, -1
    match wrong:
        case "nothing":
            reference = "elsewhere"
        case "no checkpoint":
            for path in directory.checkpoints.iterdir():
                path.unlink()
            reference = f"{first.run}@30"
        case "running":
            held = directory.hold()
        case "config":
            directory.config.write_text(directory.config.read_text().replace("0.003", "0.004"))
        case "applied":
            flip(directory.applied, -10)
        case "hashes":
            flip(directory.hashes, 10)
        case "step":
            reference = f"{first.run}@33"
    before = contents(tmp_path)
    with pytest.raises((RunLogError, CheckpointError), match=told):
        resume.reopen(tmp_path, reference)
    after = contents(tmp_path)
    assert {**after, f"{directory.path.as_posix()}/lock": b""} == {**before, f"{directory.path.as_posix()}/lock": b""}
    if held >= 0:
        os.close(held)
        resume.reopen(tmp_path, reference).release()


def test_a_line_that_a_killed_engine_left_half_written_is_cut_and_said(tmp_path: Path) -> None:
    first = steered(tmp_path, SMALL, (*STEERED, (55, "stop", {})), checkpoint_every=20)
    directory = directory_of(first)
    with directory.applied.open("ab") as file:
        file.write(b'{"number":9,"id"')
    start = resume.reopen(tmp_path, first.run)
    start.release()
    assert "a half-written last line was cut off" in start.notices[0]
    assert [entry.number for entry in applied.read(directory.applied).entries] == [1, 2, 3]


def test_a_run_is_found_by_its_path_and_keeps_its_name(tmp_path: Path) -> None:
    start = resume.begin(tmp_path, SMALL, "a good name")
    runner.train_from(start, runner.Options(logdir=tmp_path, checkpoint_every=20))
    again = resume.reopen(Path("nowhere"), f"{start.directory.path}@20")
    done = runner.train_from(again, runner.Options(logdir=Path("nowhere")))
    (begun,) = [one for one in said(directory_of(done), 1) if isinstance(one, RunStarted)]
    assert (begun.name, begun.incarnation, begun.step) == ("a good name", 1, 20)
    assert begun.run == start.directory.id


def test_checkpoints_are_said_with_those_that_are_left(tmp_path: Path) -> None:
    plan: Plan = (*STEERED, (52, "checkpoint", {}))
    done = steered(tmp_path, SMALL, plan, checkpoint_every=10, keep=2, keep_on_steer=True)
    saved = [one for one in said(directory_of(done), 0) if isinstance(one, CheckpointSaved)]
    assert [(one.step, one.reason, one.rev) for one in saved] == [
        (10, "every", 0),
        (20, "every", 0),
        (25, "steer", 1),
        (30, "every", 1),
        (40, "every", 1),
        (45, "steer", 2),
        (50, "every", 2),
        (52, "asked", 3),
        (60, "every", 3),
    ]
    folder = CheckpointFolder(done.path / "checkpoints")
    assert [one.step for one in folder.listed()] == [25, 45, 52, 60]
    assert saved[-1].files == [one.path.name for one in folder.listed()]
    assert saved[-1].size == folder.file(60).stat().st_size
    again = resume.reopen(tmp_path, f"{done.run}@25")
    assert again.state().rates.at(26) == 0.02, "the checkpoint of a steer holds the values that were set"
    again.release()


def test_a_full_disk_costs_a_checkpoint_and_a_notice_but_not_the_run(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        done = steered(tmp_path, SMALL, (), checkpoint_every=20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (done.status, done.step) == ("finished", 60)
    assert "no checkpoint at step 60: the checkpoint" in done.trouble
    assert "free some space" in done.trouble
    told = [(one.step, one.detail[:25]) for one in said(directory_of(done), 0) if isinstance(one, StatusChanged)]
    assert (20, "no checkpoint at step 20:") in told
    assert told[-1] == (60, "no checkpoint at step 60:")
    assert list((done.path / "checkpoints").iterdir()) == []


def test_weights_that_are_not_finite_are_not_kept_in_place_of_good_ones(tmp_path: Path) -> None:
    start = resume.begin(tmp_path, SMALL, "")

    def spoil(state: RunState, *_rest: object) -> None:
        if state.step == 30:
            state.model.parameters()[0].value[0, 0] = np.inf

    done = runner.train_from(start, runner.Options(logdir=tmp_path, checkpoint_every=10, keep=2), spoil)
    assert "fc1.weight has a value that is not finite" in done.trouble
    assert [one.step for one in CheckpointFolder(done.path / "checkpoints").listed()] == [20, 30]
