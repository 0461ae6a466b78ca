"""A run log on a full disk: what may be left out is, what may not waits, and both are said."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from spiral_core.engine.config import for_data
from spiral_core.errors import RunLogError
from spiral_core.link import runner
from spiral_core.link.applied import AppliedLog, Origin
from spiral_core.link.patientlog import RESERVED_BYTES, RETRY_SECONDS, PatientLog
from spiral_core.link.runlog import RunLogReader, RunLogWriter
from spiral_core.wire import codec
from spiral_core.wire.messages import Frame, StatusChanged
from spiral_core.wire.parts import Array


@contextmanager
def no_file_may_grow(beyond: int = 1) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (beyond, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


EMPTY: dict[str, Any] = {
    "index": Array(dtype="<u2", shape=[0], data=b""),
    "values": Array(dtype="<f8", shape=[0], data=b""),
}
STATUS: dict[str, Any] = {"status": "training", "done": 0, "total": 0}


def test_answers_wait_for_room_in_their_order_and_frames_are_left_out(tmp_path: Path) -> None:
    log = RunLogWriter(tmp_path / "frames.log", run="r", incarnation=0, clock=time.time)
    patient = PatientLog(log, tmp_path / "reserve")
    assert (tmp_path / "reserve").stat().st_size == RESERVED_BYTES
    patient.append(Frame, 1, **EMPTY)
    with no_file_may_grow():
        patient.append(Frame, 2, **EMPTY)
        assert not (tmp_path / "reserve").exists(), "what was kept is for what must be said"
        assert "free some space; steps from 2 on are not recorded" in patient.words
        patient.append(StatusChanged, 2, detail="first", **STATUS)
        patient.append(Frame, 3, **EMPTY)
        patient.append(StatusChanged, 3, detail="second", **STATUS)
        time.sleep(RETRY_SECONDS)
        patient.append(Frame, 4, **EMPTY)
        assert "not recorded until then" in patient.words, "there is no room yet"
    time.sleep(RETRY_SECONDS)
    patient.append(Frame, 5, **EMPTY)
    assert patient.words == "steps 2 to 4 were not recorded: the disk was full"
    patient.close()
    log.close()
    said = [codec.decode(record.data) for record in RunLogReader(tmp_path / "frames.log").records()]
    assert [one.seq for one in said] == [0, 1, 2, 3]
    assert [one.step for one in said] == [1, 2, 3, 5]
    assert [getattr(one, "detail", "") for one in said] == ["", "first", "second", ""]
    assert not (tmp_path / "reserve").exists()


def test_the_applied_log_knows_beforehand_whether_there_is_room_and_is_not_changed(tmp_path: Path) -> None:
    log = AppliedLog(tmp_path / "applied.log")
    log.begin(Origin(run="r", name="", config=""))
    before = (tmp_path / "applied.log").read_bytes()
    assert log.room()
    with no_file_may_grow():
        assert not log.room()
        with pytest.raises(RunLogError, match="free some space"):
            log.begin(Origin(run="r", name="", config=""))
    log.close()
    assert (tmp_path / "applied.log").read_bytes() == before


def test_a_run_on_a_full_disk_trains_to_its_end(tmp_path: Path) -> None:
    """Log, digests and checkpoints have no room from step 20 on, and marks of guards are not worth the run."""
    config = for_data("digits", batch_size=8, steps=60, evaluate_every=0, guards=("when train.loss > 0 for 30 mark",))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def listen(state: Any, *_rest: object) -> None:
        if state.step == 20:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1, limits[1]))

    try:
        done = runner.train(config, runner.Options(logdir=tmp_path, hash_every=10, checkpoint_every=30), listen)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (done.status, done.step) == ("finished", 60)
    records = RunLogReader(done.path / "frames.log").records()
    frames = [one.step for one in (codec.decode(record.data) for record in records) if isinstance(one, Frame)]
    assert frames == list(range(1, 21))
    assert "no digest" in done.trouble or "no checkpoint" in done.trouble
