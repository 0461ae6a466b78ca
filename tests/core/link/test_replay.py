"""A run that was steered is the same run when it is trained again from its journal alone."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from spiral_core.engine.config import RunConfig, Steer, changed, for_data
from spiral_core.errors import ConfigError, RunLogError
from spiral_core.link import applied, hashes, resume, rundir, runner
from spiral_core.link.applied import Entry
from spiral_core.link.chain import ChainWriter
from spiral_core.link.planning import as_config, planned
from spiral_core.link.replay import plan, replay
from spiral_core.link.rundir import RunDir
from spiral_core.link.runlog import RunLogReader
from spiral_core.wire import codec
from spiral_core.wire.messages import Ack
from spiral_core.wire.parts import Setting
from steered_engine import EVERY_KIND, Plan, steered

CONFIG = for_data("fashion", batch_size=16, steps=100, evaluate_every=25, xai_every=0, optimizer="sgd")
SMALL = for_data("digits", batch_size=8, steps=60, evaluate_every=0)


def made(result: runner.Result) -> RunDir:
    return RunDir(path=result.path, id=result.run)


def last_tensors(directory: RunDir) -> dict[str, str]:
    return hashes.read(directory.hashes, applied.read(directory.applied))[-1].tensors


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run that was steered in every way: 28 times, through the real inbox."""
    return made(steered(tmp_path_factory.mktemp("runs"), CONFIG, EVERY_KIND, hash_every=10))


@pytest.fixture
def copy(run: RunDir, tmp_path: Path) -> RunDir:
    return RunDir(path=Path(shutil.copytree(run.path, tmp_path / run.id)), id=run.id)


def test_the_plan_of_these_tests_steers_in_every_way_and_nothing_of_it_is_refused(run: RunDir) -> None:
    entries = applied.read(run.applied).entries
    assert len(entries) == len(EVERY_KIND) == 28
    said = [codec.decode(record.data) for record in RunLogReader(run.frames).records()]
    assert [one.state for one in said if isinstance(one, Ack)] == ["applied"] * 28
    assert {entry.verb for entry in entries} == {"set", "pause", "resume"}
    values = {change.knob: [change.old] for entry in reversed(entries) for change in entry.changes}
    for entry in entries:
        for change in entry.changes:
            values[change.knob].append(change.in_force)
    assert values["amp.precision"] == ["float32", "float16", "float32", "bfloat16"]
    assert values["optim.mode"] == ["euclidean", "realgrad", "riemannian", "hypergrad", "euclidean"]
    assert values["data.batch_size"] == [16, 12, 24]
    assert values["freeze.conv1"] == [False, True, False]
    assert {"optim.lr", "zspace.gain", "zspace.auto_gain", "zspace.curvature"} <= set(values)
    assert all(before != after for told in values.values() for before, after in pairwise(told))


@pytest.mark.parametrize("threads_used", [1, 2])
def test_a_replay_is_identical_with_any_number_of_threads(run: RunDir, threads: None, threads_used: int) -> None:
    from spiral_core import kernels

    kernels.set_num_threads(threads_used)
    told: list[tuple[int, int]] = []
    script = plan(run)
    assert (script.steps, script.commands, script.states) == (100, 28, 10)
    done = replay(script, lambda number, total: told.append((number, total)))
    assert (done.difference, done.compared, done.same_until) == (None, 10, 100)
    assert told == [(number, 100) for number in range(1, 101)]


def test_a_run_that_was_resumed_twice_replays_along_the_path_that_is_left(tmp_path: Path) -> None:
    first = steered(tmp_path, CONFIG, (*EVERY_KIND[:14], (50, "stop", {})), checkpoint_every=20, hash_every=10)
    steered(tmp_path, CONFIG, EVERY_KIND[:18], f"{first.run}@40", checkpoint_every=20, hash_every=10)
    (made(first).checkpoints / "step-00000100.safetensors").unlink()
    steered(tmp_path, CONFIG, EVERY_KIND, first.run, checkpoint_every=20, hash_every=10)
    script = plan(made(first))
    assert len(applied.read(made(first).applied).resumptions) == 2
    assert script.steps == 100
    done = replay(script)
    assert (done.difference, done.compared) == (None, script.states)
    again = made(steered(tmp_path / "again", planned(script.config, applied.read(made(first).applied)), ()))
    assert last_tensors(again) == last_tensors(made(first))


def test_an_exported_configuration_trains_the_same_run_with_no_one_steering(run: RunDir, tmp_path: Path) -> None:
    path = tmp_path / "again.json"
    path.write_text(as_config(run, applied.read(run.applied)))
    config = resume.config_from(path)
    assert sum(len(steer.sets) for steer in config.steering) == sum(len(sets) for _, _, sets in EVERY_KIND)
    again = made(steered(tmp_path / "runs", config, (), hash_every=10))
    assert [one.tensors for one in hashes.read(again.hashes, applied.read(again.applied))] == [
        one.tensors for one in hashes.read(run.hashes, applied.read(run.applied))
    ]
    entries = applied.read(again.applied).entries
    assert {(entry.source, entry.number < 0) for entry in entries} == {("config", True)}
    assert len({entry.number for entry in entries}) == len(entries)
    assert replay(plan(again)).difference is None
    # What was exported can be exported again.
    assert planned(config, applied.read(again.applied)) == config


def test_a_planned_run_is_resumed_without_setting_anything_twice(tmp_path: Path) -> None:
    config = planned_config((21, {"optim.lr": 0.01}), (21, {"zspace.gain": 0.4}), (45, {"optim.lr": 0.002}))
    whole = made(steered(tmp_path / "whole", config, (), hash_every=10))
    first = steered(tmp_path, config, ((50, "stop", {}),), checkpoint_every=20, hash_every=10)
    for step in (40, 50):
        (first.path / "checkpoints" / f"step-{step:08d}.safetensors").unlink()
    done = steered(tmp_path, config, (), first.run, hash_every=10)
    assert (done.status, done.step) == ("finished", 60)
    assert last_tensors(made(first)) == last_tensors(whole)
    ids = [entry.id for entry in applied.read(made(first).applied).entries if entry.source == "config"]
    assert ids == ["config:0", "config:1", "config:2"]
    # Given up and planned: it comes again.
    steered(tmp_path, config, (), f"{first.run}@20", hash_every=10)
    history = applied.read(made(first).applied)
    assert [entry.id for entry in history.entries] == ids
    assert len(history.written) == 3 + 1 + 3
    assert last_tensors(made(first)) == last_tensors(whole)


def planned_config(*plan: tuple[int, dict[str, Any]]) -> RunConfig:
    steering = [
        Steer(step=step, sets=tuple(Setting(knob=knob, value=value) for knob, value in sets.items()))
        for step, sets in plan
    ]
    return changed(SMALL, steering=codec.plain(steering))


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (((5, {"optim.speed": 1.0}),), "steering at step 5: .*optim.speed"),
        (((5, {"optim.lr": 1e9}),), "steering at step 5: optim.lr = 1000000000 is out of bounds"),
        (((5, {"zspace.auto_gain": 0.7}), (9, {"zspace.gain": 0.1})), "steering at step 9: zspace.gain cannot be set"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused_before_anything_is_made(
    tmp_path: Path, plan: tuple[tuple[int, dict[str, Any]], ...], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        runner.train(planned_config(*plan), runner.Options(logdir=tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("steering", "said"),
    [
        ([{"step": 5, "sets": [{"knob": "optim.lr", "value": 0.1}]}, {"step": 4, "sets": []}], "after step 5"),
        ([{"step": 0, "sets": [{"knob": "optim.lr", "value": 0.1}]}], "from 1 on"),
        ([{"step": 5, "sets": []}], "sets nothing"),
        ([{"step": 5}], "sets"),
    ],
)
def test_a_plan_of_the_wrong_form_is_refused(steering: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        changed(SMALL, steering=steering)


def test_a_run_that_was_stopped_by_hand_is_exported_with_its_length_and_the_length_of_its_schedule(
    tmp_path: Path,
) -> None:
    config = changed(SMALL, schedule="warmup-cosine", warmup_steps=5, steps=60)
    first = made(steered(tmp_path, config, ((20, "set", {"optim.lr": 0.01}), (30, "stop", {}))))
    again = planned(config, applied.read(first.applied))
    assert (again.steps, again.schedule_steps) == (30, 60)
    assert last_tensors(made(steered(tmp_path / "again", again, ()))) == last_tensors(first)


HARMED: Plan = ((60, "set", {"optim.lr": 1000.0}), (80, "set", {"guard.spike": 20.0}))


def guarded(tmp_path: Path, plan: Plan, run: str | None = None) -> runner.Result:
    config = for_data("fashion", batch_size=32, steps=120, evaluate_every=60, xai_every=0)
    return steered(tmp_path, config, plan, run, checkpoint_every=20, keep=9, hash_every=10)


@pytest.fixture(scope="module")
def rolled_back(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run that a rate of 1000 has harmed, and a guard has brought back."""
    return made(guarded(tmp_path_factory.mktemp("runs"), HARMED))


def test_what_a_guard_has_done_is_done_again_in_a_replay_that_decides_nothing(rolled_back: RunDir) -> None:
    verbs = [(entry.verb, entry.actor) for entry in applied.read(rolled_back.applied).entries]
    assert verbs == [("set", "me"), ("rollback", "guard"), ("mark", "guard"), ("set", "me")]
    done = replay(plan(rolled_back))
    assert (done.difference, done.same_until) == (None, 120)


@pytest.mark.parametrize("kept", [40, 60, 80])
def test_a_resumed_run_does_what_its_guards_did_once(tmp_path: Path, rolled_back: RunDir, kept: int) -> None:
    """From before the harm, from the step of it, and from behind the rollback."""
    first = guarded(tmp_path, (*HARMED, (100, "stop", {})))
    for path in (first.path / "checkpoints").iterdir():
        if int(path.stem.split("-")[1]) > kept:
            path.unlink()
    done = guarded(tmp_path, HARMED, first.run)
    assert (done.status, done.step) == ("finished", 120)
    assert last_tensors(made(first)) == last_tensors(rolled_back)
    told = [entry for entry in applied.read(made(first).applied).entries if entry.verb != "stop"]
    assert told == applied.read(rolled_back.applied).entries
    assert replay(plan(made(first))).difference is None


def test_going_back_lets_guards_decide_anew(tmp_path: Path) -> None:
    first = guarded(tmp_path, HARMED)
    harm = (62, "set", {"optim.lr": 1000.0})
    again = guarded(tmp_path, (harm,), f"{first.run}@60")
    entries = applied.read(made(again).applied).entries
    assert entries == [], "the command with this number is not taken again, so nothing is there to guard against"
    third = guarded(tmp_path, ((3, "set", {}), (4, "set", {}), harm), f"{first.run}@60")
    assert [entry.verb for entry in applied.read(made(third).applied).entries] == ["set", "rollback", "mark"]
    assert replay(plan(made(third))).difference is None


def test_a_rollback_cannot_be_planned_and_that_is_said(rolled_back: RunDir) -> None:
    with pytest.raises(ConfigError, match="at step 63 a guard went back to the weights of step 50"):
        as_config(rolled_back, applied.read(rolled_back.applied))


def test_what_guards_have_set_is_planned_and_the_new_run_has_none(tmp_path: Path) -> None:
    rules = ("low: when train.loss < 2 set zspace.zbn1.gain = 0.5",)
    config = for_data("fashion", batch_size=16, steps=60, evaluate_every=0, xai_every=0, guards=rules)
    first = made(steered(tmp_path, config, ((50, "set", {"guard.low.on": False}),)))
    history = applied.read(first.applied)
    assert [entry.actor for entry in history.entries] == ["guard", "me"]
    again = planned(config, history)
    assert (again.guards, len(again.steering)) == ((), 1)
    assert last_tensors(made(steered(tmp_path / "again", again, ()))) == last_tensors(first)


def rewritten(copy: RunDir, change: Any) -> None:
    """Write an applied log anew, with sound seals, and one of its commands changed."""
    history = applied.read(copy.applied)
    copy.applied.unlink()
    log = applied.AppliedLog(copy.applied)
    log.begin(history.origin)
    for entry in history.entries:
        log.append(change(entry))
    log.close()


def test_a_replay_finds_the_first_step_and_tensor_that_differ(copy: RunDir) -> None:
    """The rate was set to 0.02 before update 4; somebody has made 0.0200001 of it, everywhere where it is told."""

    def change(entry: Entry) -> Entry:
        told = json.dumps(codec.plain(entry)).replace("0.02,", "0.0200001,").replace("0.02}", "0.0200001}")
        return codec.from_json(told.encode(), Entry)

    rewritten(copy, change)
    done = replay(plan(copy))
    assert done.difference is not None
    assert (done.difference.step, done.difference.same_until) == (10, 0)
    assert done.difference.what == "conv1.weight"
    assert done.explanations == []


def test_a_value_that_a_command_found_is_compared_too(copy: RunDir) -> None:
    def change(entry: Entry) -> Entry:
        told = json.dumps(codec.plain(entry)).replace('"old": -2.0', '"old": -3.0')
        return codec.from_json(told.encode(), Entry)

    rewritten(copy, change)
    done = replay(plan(copy))
    assert done.difference is not None
    assert (done.difference.step, done.difference.same_until) == (91, 90)
    assert done.difference.what == "zspace.curvature by command 27: -3.0 to -0.5 then, -2.0 to -0.5 now"


def test_where_the_runs_differ_the_environments_are_compared(copy: RunDir) -> None:
    rewritten_hashes = hashes.read(copy.hashes, applied.read(copy.applied))
    copy.hashes.unlink()
    log = ChainWriter(copy.hashes, sync=False)
    for one in rewritten_hashes:
        told = codec.plain(one)
        if one.step >= 50:
            told["tensors"]["head.bias"] = "0" * 16
        log.append(told)
    log.close()
    there = json.loads(copy.environment_of(0).read_text())
    there |= {"numpy": "1.0", "threads": "7", "features": there["features"] + " avx4096"}
    copy.environment_of(0).write_text(json.dumps(there))
    done = replay(plan(copy))
    assert done.difference is not None
    assert (done.difference.step, done.difference.what, done.difference.same_until) == (50, "head.bias", 40)
    assert done.explanations[0] == "features: avx4096 then, nothing now"
    assert [line.split(":")[0] for line in done.explanations] == ["features", "numpy", "threads"]


@pytest.mark.parametrize("name", ["applied.log", "hashes.log", "config.json"])
def test_a_flipped_bit_in_any_of_its_files_is_found_before_anything_is_trained(copy: RunDir, name: str) -> None:
    path = copy.path / name
    data = path.read_bytes()
    for place in range(0, 8 * len(data), 101):
        spoilt = bytearray(data)
        spoilt[place // 8] ^= 1 << place % 8
        path.write_bytes(spoilt)
        with pytest.raises(RunLogError, match=r"damaged|not what the run was started with"):
            plan(copy)
    path.write_bytes(data)
    plan(copy)


def test_logs_that_are_not_of_one_run_are_told_apart(copy: RunDir, tmp_path: Path) -> None:
    """The commands of another run: at a step where this one has a digest, the revision is another."""
    other = made(steered(tmp_path / "other", CONFIG, EVERY_KIND[:3], hash_every=10))
    shutil.copy(other.applied, copy.applied)
    with pytest.raises(RunLogError, match="does not lead there"):
        replay(plan(copy))


def test_a_run_without_digests_says_so(tmp_path: Path) -> None:
    start = resume.begin(tmp_path, SMALL, "")
    start.release()
    with pytest.raises(RunLogError, match=r"cannot read .*hashes\.log"):
        plan(start.directory)
    hashes.HashLog(start.directory.hashes).close()
    with pytest.raises(RunLogError, match="holds no digest yet"):
        plan(start.directory)
    with pytest.raises(RunLogError, match="there is no run"):
        rundir.find(tmp_path, "nowhere")
