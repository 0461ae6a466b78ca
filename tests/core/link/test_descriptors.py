"""Run logs that have been read are closed: a run that is resumed often must not run out of file descriptors."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve

from spiral_core.link import uploading
from spiral_core.link.frames import values_at
from spiral_core.link.resume import _said
from spiral_core.link.rundir import RunDir
from spiral_core.link.runlog import RunLogWriter
from spiral_core.wire.messages import StatusChanged

from .test_courier import Peer


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run with the logs of three incarnations."""
    run = RunDir(path=tmp_path, id="r")
    for number in range(3):
        log = RunLogWriter(run.frames_of(number), run="r", incarnation=number, clock=time.time)
        log.append(StatusChanged, 0, status="training", done=0, total=0, detail="")
        log.close()
    return run


def open_logs(run: RunDir) -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        # The listing itself is open while it is made.
        with suppress(FileNotFoundError):
            path = Path(os.readlink(f"/proc/self/fd/{name}"))
            if path.parent == run.path:
                found.append(path.name)
    return found


def test_an_upload_holds_one_log_open_at_a_time_and_none_in_the_end(run: RunDir) -> None:
    peer = Peer()
    seen: list[list[str]] = []

    async def talk(socket: ServerConnection) -> None:
        seen.append(open_logs(run))
        await peer.talk(socket)

    async def story() -> None:
        async with serve(talk, "127.0.0.1", 0) as server:
            address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            assert await uploading.upload(run, server=address, token="", listen=lambda _incarnation, _seq: None)

    asyncio.run(asyncio.wait_for(story(), 20))
    assert seen == [[run.frames_of(number).name] for number in range(3)]
    assert open_logs(run) == []


@pytest.mark.parametrize("ask", [lambda run: list(_said(run, 3)), lambda run: values_at(run, 3, 0)])
def test_what_looks_into_older_logs_closes_them(run: RunDir, ask: Callable[[RunDir], object]) -> None:
    ask(run)
    assert open_logs(run) == []
