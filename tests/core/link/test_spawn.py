"""A system without room for another process ends no training."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

import pytest

from spiral_core.link.inbox import Inbox
from spiral_core.link.rundir import RunDir
from spiral_core.link.runlog import RunLogWriter
from spiral_core.link.spawn import LAST_RESTART_SECONDS, Line, Thinner
from spiral_core.wire.messages import StatusChanged

SECONDS = 10.0


def log_of(run: RunDir) -> RunLogWriter:
    log = RunLogWriter(run.frames, run=run.id, incarnation=0, clock=time.time)
    log.append(StatusChanged, 0, status="training", done=0, total=0, detail="")
    return log


def until_hung_up(inbox: Inbox) -> None:
    deadline = time.monotonic() + SECONDS
    while not inbox.hung_up:
        assert time.monotonic() < deadline
        inbox.wait(0.05)


def test_a_courier_that_cannot_be_started_is_started_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = RunDir(path=tmp_path, id="r")
    log = log_of(run)
    inbox = Inbox()
    with socket.create_server(("127.0.0.1", 0)) as server:
        with monkeypatch.context() as broken:
            broken.setattr(sys, "executable", str(tmp_path / "gone"))
            line = Line(run, incarnation=0, server=f"http://127.0.0.1:{server.getsockname()[1]}", token="", inbox=inbox)
            assert "no courier can be started now" in capfd.readouterr().err
            until_hung_up(inbox)
            line.mend(time.monotonic())
            line.ring(at_once=True)
            until_hung_up(inbox)
            assert not line.finish(0.0)
        line.mend(time.monotonic() + LAST_RESTART_SECONDS)
        # It comes to the server's door.
        server.settimeout(SECONDS)
        server.accept()[0].close()
        line.finish(0.0)
    log.close()


def test_frames_that_cannot_be_merged_now_stay_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = RunDir(path=tmp_path, id="r")
    log = log_of(run)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    thinner = Thinner(run, 1)
    thinner.look()
    assert "cannot be merged now" in capfd.readouterr().err
    thinner.finish()
    log.close()
