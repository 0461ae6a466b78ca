"""Watching changes nothing: fifty viewers or none, the weights are the same to the last bit."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from e2e.cockpit import Cockpit, finish, start
from spiral_core.link import applied
from spiral_core.link.checkpoints import CheckpointFolder
from spiral_core.wire import codec
from spiral_core.wire.limits import MAX_PACKET_BYTES, PROTOCOL
from spiral_core.wire.messages import AnyMessage, Frame, HeatMaps, StatusChanged, ViewHello, ViewWelcome, Watch

STEPS = 150
VIEWERS = 50
# The last rule acts on the weights, so that what a guard decides is watched, too.
TRAINING = [
    *("--data", "fashion", "--batch-size", "16", "--steps", str(STEPS), "--auto-gain", "0.7", "--xai-every", "5"),
    *("--hash-every", "10", "--checkpoint-every", "50", "--keep", "9", "--evaluate-every", "50", "--quiet"),
    *("--guard", "drop: when train.loss < 1.8 set optim.clip_norm = 0.5"),
]

Manner = Literal["quick", "slow", "still"]
"""Reads at once, reads one packet now and then, or has stopped reading."""


@dataclass
class Viewer:
    """One websocket of those that watch, and what it has seen."""

    manner: Manner
    socket: ClientConnection
    steps: set[int] = field(default_factory=set)
    maps: int = 0
    over: bool = False

    async def watch(self) -> None:
        """Read until the run is over."""
        try:
            while not self.over:
                if self.manner == "slow":
                    await asyncio.sleep(0.2)
                data = await self.socket.recv()
                assert isinstance(data, bytes)
                for message in codec.decode_packet(data):
                    self._note(message)
        except ConnectionClosed:
            # One that reads too slowly may be sent away.
            assert self.manner == "slow"

    def _note(self, message: AnyMessage) -> None:
        if isinstance(message, Frame):
            self.steps.add(message.step)
        elif isinstance(message, HeatMaps):
            self.maps += 1
        elif isinstance(message, StatusChanged):
            self.over |= message.status in ("finished", "stopped", "failed")


async def _arrive(stack: AsyncExitStack, server: Cockpit, manner: Manner) -> Viewer:
    where = urlsplit(server.url)
    line = socket.socket()
    if manner == "still":
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.connect((where.hostname, where.port))
    words: dict[str, Any] = {"max_size": MAX_PACKET_BYTES, "ping_interval": None, "proxy": None, "close_timeout": 1}
    headers = {"Authorization": f"Bearer {server.token}"}
    address = f"ws://{where.netloc}/ws/view"
    peer = await stack.enter_async_context(connect(address, sock=line, additional_headers=headers, **words))
    await peer.send(codec.encode_packet([ViewHello(protocol=PROTOCOL), Watch(run="", width=800)]))
    greeting = await peer.recv()
    assert isinstance(greeting, bytes)
    assert isinstance(codec.decode_packet(greeting)[0], ViewWelcome)
    if manner == "still":
        peer.transport.pause_reading()
    return Viewer(manner, peer)


async def _watched(server: Cockpit, logdir: Path) -> list[Viewer]:
    """Train while the viewers watch, who were there before the run was."""
    manners: list[Manner] = ["quick"] * 30 + ["slow"] * 10 + ["still"] * 10
    async with AsyncExitStack() as stack:
        viewers = [await _arrive(stack, server, manner) for manner in manners]
        watching = [asyncio.create_task(one.watch()) for one in viewers if one.manner != "still"]
        await asyncio.to_thread(train, logdir, "--server", server.url, "--token", server.token)
        for task, viewer in zip(watching, viewers, strict=False):
            if viewer.manner == "quick":
                await asyncio.wait_for(task, 60)
            else:
                task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        for viewer in viewers:
            # A still one would wait for the end of what it has not read.
            viewer.socket.transport.abort()
    return viewers


def train(logdir: Path, *words: str) -> Path:
    """Train in a process of its own, and give the folder of the run."""
    done = subprocess.run(
        [sys.executable, "-m", "spiral_core.cli", "train", *TRAINING, "--logdir", str(logdir), *words],
        env={**os.environ, "SPIRAL_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (run,) = (path.parent for path in logdir.glob("*/config.json"))
    return run


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody watched: no server, no courier."""
    return train(tmp_path_factory.mktemp("alone"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Cockpit]:
    cockpit = start(tmp_path / "runs", "serve", "--port", "0")
    yield cockpit
    finish(cockpit)


def digests(run: Path) -> list[tuple[int, dict[str, str]]]:
    lines = [json.loads(line) for line in (run / "hashes.log").read_text().splitlines()]
    return [(line["step"], line["tensors"]) for line in lines]


def test_fifty_viewers_or_none_the_weights_are_the_same_bit_for_bit(server: Cockpit, alone: Path) -> None:
    viewers = asyncio.run(_watched(server, server.logdir))
    assert len(viewers) == VIEWERS
    quick = [viewer for viewer in viewers if viewer.manner == "quick"]
    assert all(viewer.over and max(viewer.steps) == STEPS and viewer.maps > 0 for viewer in quick)
    (run,) = (path.parent for path in server.logdir.glob("*/config.json"))

    assert [step for step, _ in digests(alone)] == list(range(10, STEPS + 1, 10))
    assert digests(run) == digests(alone)

    theirs, ours = CheckpointFolder(alone / "checkpoints"), CheckpointFolder(run / "checkpoints")
    assert [one.step for one in ours.listed()] == [one.step for one in theirs.listed()] == [50, 100, STEPS]
    for one in ours.listed():
        held, _ = ours.load(one.path)
        other, _ = theirs.load(theirs.file(one.step))
        assert {name: array.tobytes() for name, array in held.items()} == {
            name: array.tobytes() for name, array in other.items()
        }
    # Guards acted in both, at the same steps.
    acts = [
        [(entry.step, entry.actor, entry.changes) for entry in applied.read(path / "applied.log").entries]
        for path in (run, alone)
    ]
    assert acts[0] == acts[1]
    assert any(changes for _, _, changes in acts[0])
    assert {actor for _, actor, _ in acts[0]} == {"guard"}
