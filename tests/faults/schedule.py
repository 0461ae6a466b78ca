"""Runs one schedule: starts the world, lets everything happen that was drawn, lets it run out, and judges."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from faults import verdict
from faults.people import People
from faults.plan import Event, Plan
from faults.world import World, wait_for

GOES_ON_STEPS = 5
GOES_ON_SECONDS = 15.0
"""For so many steps, of milliseconds each: a step that waited for a time-out of the network would take 5 s."""


@contextmanager
def telling(world: World, people: People, name: str) -> Iterator[None]:
    """Add to what fails everything that has happened; end every process."""
    try:
        yield
    except BaseException as error:
        told = "\n".join(f"--- {role}\n{world.said(role)[-3000:]}" for role in ("server", "engine"))
        raise AssertionError(f"{name}: {type(error).__name__}: {error}\n{world.timeline}\n{told}") from error
    finally:
        people.leave()
        world.close()


def begin(world: World) -> None:
    """Start server and engine, and wait until they know each other."""
    world.start_server()
    world.start_engine()
    world.server_ready()
    world.begun()
    wait_for(world.summary, "the server to know the run")


def run_out(world: World, people: People) -> None:
    """Let the run go on to an end that is asked for, and everything be delivered."""
    people.answered()
    count = 0

    def over() -> bool:
        nonlocal count
        assert world.engine is not None
        if world.engine.poll() is not None:
            return True
        status = world.summary().get("status")
        # An end that was accepted may expire with an incarnation whose last word comes late, and so may a pause.
        if status == "paused" or (status == "training" and not _pending(people, f"end{count}")):
            count += 1
            last = world.logs.step + 30 if world.logs else 0
            end = {"verb": "set", "sets": [{"knob": "run.steps", "value": last}]}
            for body in ({"id": f"end{count}", **end}, {"id": f"go{count}", "verb": "resume"}):
                people.give({"body": body, "ahead": None, "expect": None, "again": 0})
            people.answered()
            time.sleep(0.2)
        return False

    wait_for(over, "the run to end")
    assert world.engine is not None
    assert world.engine.returncode == 0, f"the engine ended with status {world.engine.returncode}"
    people.answered()
    wait_for(lambda: world.summary().get("status") == "finished", "the server to know the end")
    wait_for(lambda: not world.summary()["connected"], "the courier to leave")
    wait_for(lambda: settled(world, people), "every command to have a final state")
    assert world.server is not None
    world.kill(["server"])


def _pending(people: People, identity: str) -> bool:
    """Tell whether a command was accepted and has not failed since."""
    accepted = any(status in (200, 202) for status, _ in people.answers.get(identity, ()))
    return accepted and people.seen.get(identity, {"state": "applied"})["state"] == "applied"


def settled(world: World, people: People) -> bool:
    """Tell whether every command has a final state."""
    people.look()
    commands = world.get(f"/api/runs/{world.run}/commands")["commands"]
    return all(one["state"] != "accepted" for one in commands)


class Schedule:
    """One schedule under way."""

    def __init__(self, plan: Plan, folder: Path, environment: dict[str, str] | None = None) -> None:
        self._plan = plan
        self.world = World(folder, plan.train, plan.circumstances)
        self.world.environment = dict.fromkeys(("server", "engine"), environment or {})
        self.people = People(self.world)
        self.kills = 0

    def run(self) -> None:
        """Do everything that was drawn, and judge it.

        Raises
        ------
        AssertionError
            Says what is wrong, and all that has happened.
        """
        plan, world = self._plan, self.world
        with telling(world, self.people, f"schedule {plan.seed} ({' '.join(plan.train)})"):
            begin(world)
            for event in plan.events:
                time.sleep(event.after)
                self._happen(event)
            run_out(world, self.people)
            verdict.judge(world, self.people, replayed=plan.replayed)

    # --- what happens

    def _happen(self, event: Event) -> None:
        match event.kind:
            case "command":
                self.people.give(event.what)
            case "line":
                self._append(event.what)
            case "touch":
                (self.world.directory.path / event.what).touch()
            case "kill":
                self._kill(**event.what)
            case "network":
                self._disturb(**event.what)

    def _append(self, what: dict[str, Any]) -> None:
        body = what["body"]
        if body is not None and what["ahead"] is not None and self.world.logs is not None:
            body = {**body, "at_step": self.world.logs.step + what["ahead"]}
        line = b"garbage" if body is None else json.dumps(body).encode()
        file = os.open(self.world.directory.path / "commands.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(file, line + b"\n")
        os.close(file)
        self.world.timeline.note(f"line {line.decode()}")

    def _kill(self, victims: list[str], down: float) -> None:
        world = self.world
        world.kill(victims)
        self.kills += len(victims)
        if "server" in victims:
            verdict.check_promises(world)
            if "engine" not in victims:
                self._trains_on("the server is dead")
        time.sleep(down)
        if "engine" in victims:
            world.start_engine()
        if "server" in victims:
            world.start_server()
            world.server_ready()

    def _disturb(self, how: str, rate: int, seconds: float) -> None:
        world = self.world
        world.timeline.note(f"network: {how}")
        if how == "cut":
            world.proxy.cut()
        elif how == "stall":
            world.proxy.stall()
        else:
            world.proxy.throttle(rate)
        if how != "throttle":
            self._trains_on(f"the network is {how}")
        time.sleep(seconds)
        world.proxy.mend()
        world.timeline.note("network: mended")

    def _trains_on(self, why: str) -> None:
        """See that the steps go on at once; a run that has been paused or stopped has none."""
        world = self.world
        assert world.logs is not None
        begun, since = world.logs.step, time.monotonic()

        def goes_on() -> bool:
            assert world.logs is not None
            assert world.engine is not None
            gone = world.engine.poll() is not None
            if world.logs.status != "training" or world.logs.step >= begun + GOES_ON_STEPS:
                return True
            assert not gone, f"the engine has ended while {why}"
            return False

        wait_for(goes_on, f"the run to train on while {why}")
        taken = time.monotonic() - since
        assert taken < GOES_ON_SECONDS, f"{GOES_ON_STEPS} steps took {taken:.0f} s while {why}"
