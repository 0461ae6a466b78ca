"""One fault at a time, with real processes: a full disk, a clock that jumps, a full queue, a half-written record."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from faults import verdict
from faults.people import People
from faults.plan import CIRCUMSTANCES, COMMON, DIGITS, draw
from faults.schedule import Schedule, begin, run_out, settled, telling
from faults.smalldisk import small_disk
from faults.world import FINAL, World, wait_for
from spiral_core.link.chain import ROOM_BYTES
from spiral_core.link.runlog import RunLogReader
from spiral_core.wire.messages import Frame
from spiral_core.wire.records import MAGIC
from spiral_core.wire.requests import MAX_WAITING

STEPS = 20
"""Steps that are enough to say that a run trains on."""
QUIET = (*DIGITS, *COMMON, "--no-guards")


def set_gain(identity: str, gain: float) -> dict[str, object]:
    return {"id": identity, "verb": "set", "sets": [{"knob": "zspace.gain", "value": gain}]}


def step_of(world: World) -> int:
    assert world.logs is not None
    return world.logs.step


def trained(world: World, steps: int = STEPS) -> None:
    begun = step_of(world)
    wait_for(lambda: step_of(world) >= begun + steps, "the run to train on")


def state_of(people: People, identity: str) -> str:
    with suppress(OSError):
        people.look()
    return str(people.seen.get(identity, {"state": ""})["state"])


def by_file(world: World) -> list[dict[str, Any]]:
    records = world.get(f"/api/runs/{world.run}/commands")["commands"]
    return [one for one in records if one["source"] == "file"]


def used_up(applied: Path) -> bool:
    """Tell whether the disk holds no room for another command behind those of an applied log."""
    held = applied.stat()
    return held.st_blocks * 512 - held.st_size < ROOM_BYTES


def test_a_full_disk_under_the_engine_costs_frames_and_no_run(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk:
        world = World(tmp_path, QUIET, CIRCUMSTANCES, apart=disk.path)
        people = People(world)
        with telling(world, people, "full disk under the engine"):
            begin(world)
            disk.writers = lambda: [world.engine.pid] if world.engine is not None else []
            trained(world)
            assert world.post(set_gain("before", 0.4))[0] == 202
            wait_for(lambda: state_of(people, "before") == "applied", "the command to be applied")
            disk.fill()
            detail = wait_for(
                lambda: (said := world.summary().get("detail", "")) and "are not recorded" in said and said,
                "the page to say that the disk is full",
            )
            assert "free some space" in detail
            last = step_of(world)
            # Now what was kept for this word is full as well. Some commands have room that is held for them; what
            # cannot be put down is refused, and is not done.
            disk.fill()
            posted = [f"full{number}" for number in range(150)]
            assert {world.post(set_gain(identity, 0.5))[0] for identity in posted} == {202}
            wait_for(lambda: used_up(world.directory.applied), "the room that is held to be used up")
            asked = world.directory.path / "checkpoint"
            asked.touch()
            wait_for(lambda: not asked.exists(), "the engine to answer what was asked for by file")
            disk.empty()
            refused = wait_for(lambda: by_file(world), "the answer to be told")
            assert [(one["state"], "is full" in one["reason"]) for one in refused] == [("rejected", True)]
            wait_for(lambda: all(state_of(people, one) in FINAL for one in posted), "the answers to be told")
            states = [state_of(people, one) for one in posted]
            # At one boundary they could all be taken at once: what is held is enough for them.
            done = states.index("rejected") if "rejected" in states else len(states)
            assert done > 0
            # Where the way to the engine is slow, the last ones come there when there is room again, and not before.
            late = len(posted) - done - states[done:].count("rejected")
            assert states[done:] == ["rejected"] * (len(posted) - done - late) + ["applied"] * late
            steps = [people.seen[one]["step"] for one in posted]
            assert all(step > steps[done - 1] for step in steps[len(posted) - late :])
            wait_for(
                lambda: "were not recorded" in world.summary().get("detail", ""), "the page to say what is missing"
            )
            assert world.post(set_gain("after", 0.6))[0] == 202
            wait_for(lambda: state_of(people, "after") == "applied", "the command to be applied")
            run_out(world, people)
            assert world.logs is not None
            frames = [one.step for one in world.logs.newest if isinstance(one, Frame)]
            first = next(step for step in frames if step > last)
            assert first > last + 1, "it trained on while nothing could be written"
            verdict.judge(world, people, replayed=True, gaps=True)


def test_a_full_disk_under_the_server_costs_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk:
        world = World(tmp_path, QUIET, CIRCUMSTANCES, apart=tmp_path / "engine")
        world.logdir.rmdir()
        world.logdir = disk.path
        people = People(world)
        with telling(world, people, "full disk under the server"):
            begin(world)
            disk.writers = lambda: [world.server.pid] if world.server is not None else []
            trained(world)
            assert world.post(set_gain("before", 0.4))[0] == 202
            wait_for(lambda: state_of(people, "before") == "applied", "the command to be applied")
            disk.fill()
            number = count()
            _, answer = wait_for(
                lambda: (told := world.post(set_gain(f"full{next(number)}", 0.9)))[0] == 503 and told,
                "the journal to be full",
            )
            assert "cannot be written" in answer["error"]
            trained(world, 200)
            disk.empty()
            wait_for(lambda: world.post(set_gain("after", 0.7))[0] in (200, 202), "the journal to take a command")
            wait_for(lambda: state_of(people, "after") == "applied", "the command to be applied")
            run_out(world, people)
            verdict.judge(world, people, replayed=False)


CLOCK = """
import random, time
real, begun, chance = time.time, time.monotonic(), random.Random(1)
jumps = [chance.choice((-4e8, -3600.0, -1.0, 0.0, 86400.0, 3e8)) for _ in range(1000)]
time.time = lambda: real() + jumps[int((time.monotonic() - begun) * 5) % len(jumps)]
"""


def test_clocks_that_jump_by_years_lose_nothing(tmp_path: Path) -> None:
    """Five times a second the wall clock of engine, courier and server jumps, to and fro; their processes are real."""
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(CLOCK)
    paths = (str(tmp_path / "clock"), os.environ.get("PYTHONPATH", ""))
    Schedule(draw(3), tmp_path, {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}).run()


def test_a_full_queue_refuses_the_next_and_loses_none(tmp_path: Path) -> None:
    world = World(tmp_path, QUIET, CIRCUMSTANCES)
    people = People(world, every=5.0)
    with telling(world, people, "full queue"):
        begin(world)
        wait_for(lambda: world.summary()["status"] == "training", "the run to train")
        bodies = [{**set_gain(f"q{place}", 0.5), "at_step": 900_000} for place in range(MAX_WAITING)]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda body: world.post(body)[0], bodies))
        assert answers == [202] * MAX_WAITING
        status, answer = world.post(set_gain("more", 0.5))
        assert (status, "wait for the engine" in answer["error"]) == (429, True)
        # All of it is handed to the next engine again, and does not hold its way to the server up.
        world.kill(["engine", "courier"])
        world.start_engine()
        wait_for(lambda: world.summary()["connected"], "the next engine")
        trained(world)
        assert world.engine is not None
        world.engine.terminate()
        assert world.engine.wait(30) == 0
        wait_for(lambda: world.summary()["status"] == "stopped", "the server to know the end")
        wait_for(lambda: settled(world, people), "every command to have a final state")
        people.look()
        assert {people.seen[body["id"]]["state"] for body in bodies} == {"expired"}
        world.kill(["server"])
        verdict.judge(world, people, replayed=False)


def test_a_half_written_record_is_passed_over(tmp_path: Path) -> None:
    """The engine is killed with its courier in the middle of a record, and the next life brings the log home."""
    world = World(tmp_path, QUIET, CIRCUMSTANCES)
    people = People(world)
    with telling(world, people, "half-written record"):
        begin(world)
        trained(world)
        world.kill(["engine", "courier"])
        log = world.directory.frames
        whole = sum(1 for _ in RunLogReader(log).records())
        with log.open("ab") as file:
            file.write(log.read_bytes()[len(MAGIC) :][:13])
        world.start_engine()
        wait_for(lambda: world.directory.frames_of(1).exists(), "the next life")
        trained(world)
        run_out(world, people)
        assert sum(1 for _ in RunLogReader(log).records()) == whole
        verdict.judge(world, people, replayed=False)
