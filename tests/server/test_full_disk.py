"""A disk without room: what was confirmed stays, nothing else is confirmed, everyone is told, and it ends by itself.

A limit on the size of files stands in for the disk: it can be set and lifted on a server that runs, and gives the same
answers to writes.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from spiral_core.link.inbox import Inbox
from spiral_core.link.rundir import RunDir
from spiral_core.link.runlog import RunLogWriter
from spiral_core.link.spawn import start
from spiral_core.wire.messages import Frame, RunChanged, StatusChanged, Watch
from spiral_core.wire.parts import Array
from spiral_server.settings import Settings

from .house import TOKEN, House, viewer
from .saying import opening
from .test_kill import Elsewhere


class Disk(Elsewhere):
    """A server whose disk can be full."""

    def __init__(self, logdir: Path) -> None:
        super().__init__(logdir)
        self.settings = Settings(logdir=logdir, token=TOKEN, instance="one")

    def asking(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=self.bearer, timeout=30)

    def limit(self, size: int) -> None:
        psutil.Process(self.process.pid).rlimit(psutil.RLIMIT_FSIZE, (size, NO_LIMIT))


NO_LIMIT = psutil.RLIM_INFINITY


class Engine:
    """A run log that grows, and a real courier that carries it."""

    def __init__(self, folder: Path, house: House) -> None:
        folder.mkdir()
        self.here = RunDir(path=folder, id="r1")
        self.log = RunLogWriter(self.here.frames, run="r1", incarnation=0, clock=time.time)
        for message in opening()[:3]:
            head = {"run", "incarnation", "seq", "step", "time"}
            rest = {name: getattr(message, name) for name in message.__struct_fields__ if name not in head}
            self.log.append(type(message), 0, **rest)
        self.log.append(StatusChanged, 0, status="training", done=0, total=0, detail="")
        self.courier = start(self.here, incarnation=0, server=house.url, token=TOKEN, inbox=Inbox())
        self.log.on_append = self.courier.doorbell.ring
        self.steps = 0

    def train(self, count: int) -> None:
        for _ in range(count):
            values = Array.of([float(self.steps), 1.0], "<f8")
            self.log.append(Frame, self.steps, index=Array.of([0, 1], "<u2"), values=values)
            self.steps += 1

    def end(self) -> bool:
        self.log.append(StatusChanged, self.steps, status="finished", done=0, total=0, detail="")
        self.log.close()
        return self.courier.finish(60)


@dataclass
class Scene:
    """A server, and an engine that trains for it."""

    folder: Path
    house: Disk
    engine: Engine

    def ask(self, path: str) -> Any:
        with self.house.asking() as http:
            return http.get(f"/api/runs{path}").json()

    @property
    def line(self) -> dict[str, Any]:
        """The run's line in the list; {} before there is one."""
        return next(iter(self.ask("")["runs"]), {})

    @property
    def steps(self) -> list[int]:
        steps: list[int] = self.ask("/r1/series?width=10000")["series"][0]["steps"]
        return steps

    def start_server_again(self) -> None:
        self.house.kill()
        self.house = Disk(self.folder / "runs")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    house = Disk(tmp_path / "runs")
    scene = Scene(tmp_path, house, Engine(tmp_path / "engine", house))
    yield scene
    scene.house.kill()
    if scene.engine.courier.process.poll() is None:
        scene.engine.courier.process.kill()
        scene.engine.courier.finish(5)


async def until(what: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.02)


def test_a_full_disk_stops_neither_training_nor_the_server_and_loses_nothing(scene: Scene) -> None:
    house, engine = scene.house, scene.engine

    async def story() -> None:
        engine.train(500)
        await until(lambda: scene.line.get("step") == 499)
        async with viewer(house) as page:
            await page.say(Watch(run="r1", width=800))
            house.limit(1)
            engine.train(500)
            await until(lambda: scene.line["trouble"])
            changed = await page.next_of(RunChanged, lambda one: one.run.trouble)
            assert "cannot be written" in changed.run.trouble
            # The loop never waits for it, and nobody loses what is there already.
            engine.train(500)
            assert len(scene.steps) >= 500
            house.limit(NO_LIMIT)
            await until(lambda: not scene.line["trouble"])
            healed = await page.next_of(RunChanged, lambda one: not one.run.trouble)
            assert healed.run.connected

    asyncio.run(story())
    engine.train(10)
    assert engine.end()
    assert scene.steps == list(range(1510))
    # And what was confirmed is on disk.
    scene.start_server_again()
    assert scene.steps == list(range(1510))
    with scene.house.asking() as http:
        assert http.post("/api/runs/r1/verify").json() == {"damaged": []}


def test_a_command_that_cannot_be_written_down_has_not_been_given(scene: Scene) -> None:
    scene.engine.train(5)
    asked = {"id": "a", "verb": "set", "sets": [{"knob": "optim.lr", "value": 0.2}]}
    asyncio.run(until(lambda: scene.line.get("step") == 4))
    with scene.house.asking() as http:
        scene.house.limit(1)
        refused = http.post("/api/runs/r1/commands", json=asked)
        assert refused.status_code == 503
        assert "cannot be written" in refused.json()["error"]
        scene.house.limit(NO_LIMIT)
        assert http.post("/api/runs/r1/commands", json=asked).status_code == 202
    assert len(scene.ask("/r1/commands")["commands"]) == 1


def test_two_servers_on_one_directory_are_refused_with_a_remedy(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "spiral_server.cli", "serve", "--port", "0", "--logdir", str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline().startswith("http")
        second = subprocess.run(words, capture_output=True, text=True, check=False)
        # Also one that cannot see the other, because what it announced is gone.
        (tmp_path / "server.json").unlink()
        third = subprocess.run(words, capture_output=True, text=True, check=False)
        first.terminate()
    for refused in (second, third):
        assert refused.returncode != 0
        assert refused.stdout == ""
        assert "Traceback" not in refused.stderr
        assert "use it, or another --logdir" in refused.stderr or "with --logdir" in refused.stderr
