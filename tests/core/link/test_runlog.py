"""The run log keeps what it was given, and says so when it cannot."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spiral_core.errors import RunLogError
from spiral_core.link.runlog import RunLogReader, RunLogWriter, bequeath, parts_of
from spiral_core.wire import codec
from spiral_core.wire.messages import StatusChanged
from spiral_core.wire.records import MAGIC


def writer(path: Path) -> RunLogWriter:
    return RunLogWriter(path, run="r", incarnation=2, clock=lambda: 5.0)


def say(log: RunLogWriter, step: int) -> StatusChanged:
    return log.append(StatusChanged, step, status="training", done=step, total=0, detail="x" * step)


def read(path: Path) -> list[object]:
    reader = RunLogReader(path)
    try:
        return [codec.decode(record.data) for record in reader.records()]
    finally:
        reader.close()


def test_messages_come_back_in_order_numbered_without_gaps(tmp_path: Path) -> None:
    log = writer(tmp_path / "frames.log")
    said = [say(log, step) for step in range(50)]
    assert read(tmp_path / "frames.log") == said
    assert [message.seq for message in said] == list(range(50))
    assert {(message.run, message.incarnation, message.time) for message in said} == {("r", 2, 5.0)}


def test_a_reader_that_follows_sees_each_record_once(tmp_path: Path) -> None:
    log = writer(tmp_path / "frames.log")
    reader = RunLogReader(tmp_path / "frames.log")
    seen = []
    for step in range(20):
        say(log, step)
        seen += [codec.decode(record.data).step for record in reader.records()]
        assert list(reader.records()) == []
    assert seen == list(range(20))


def test_a_torn_last_record_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "frames.log"
    log = writer(path)
    say(log, 3)
    size = path.stat().st_size
    say(log, 9)
    whole = path.read_bytes()
    for cut in range(size, len(whole)):
        path.write_bytes(whole[:cut])
        assert [message.step for message in read(path)] == [3]


def test_a_reader_goes_on_where_a_torn_record_is_completed(tmp_path: Path) -> None:
    path = tmp_path / "frames.log"
    log = writer(path)
    say(log, 3)
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    reader = RunLogReader(path)
    assert list(reader.records()) == []
    path.write_bytes(whole)
    assert len(list(reader.records())) == 1


@pytest.mark.parametrize("position", [8, 9, 11, 13, 17, 20, 40])
def test_a_flipped_byte_is_reported_with_its_place_and_never_served(tmp_path: Path, position: int) -> None:
    path = tmp_path / "frames.log"
    log = writer(path)
    say(log, 30)
    say(log, 31)
    data = bytearray(path.read_bytes())
    data[position] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(RunLogError, match="damaged at byte 8"):
        read(path)


def test_a_log_is_never_overwritten_and_another_file_is_not_taken_for_one(tmp_path: Path) -> None:
    path = tmp_path / "frames.log"
    writer(path).close()
    with pytest.raises(RunLogError, match="cannot create"):
        writer(path)
    (tmp_path / "other").write_bytes(b"hello, world")
    with pytest.raises(RunLogError, match="not a run log"):
        RunLogReader(tmp_path / "other")
    with pytest.raises(RunLogError, match="cannot open"):
        RunLogReader(tmp_path / "missing")
    assert path.read_bytes() == MAGIC


WRITE_FOREVER = """
import sys
from pathlib import Path
from spiral_core.link.runlog import RunLogWriter
from spiral_core.wire.messages import StatusChanged
log = RunLogWriter(Path(sys.argv[1]), run="r", incarnation=0, clock=lambda: 0.0)
step = 0
while True:
    log.append(StatusChanged, step, status="training", done=step, total=0, detail="")
    print(step, flush=True)
    step += 1
"""


def test_kill_minus_nine_loses_nothing_that_was_appended(tmp_path: Path) -> None:
    path = tmp_path / "frames.log"
    with subprocess.Popen([sys.executable, "-c", WRITE_FOREVER, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
        said = [int(line) for line in process.stdout.read().split() if line]
    steps = [message.step for message in read(path)]
    assert steps[: said[-1] + 1] == list(range(said[-1] + 1))


@pytest.mark.skipif(sys.platform == "darwin", reason="/dev/full is Linux's own full disk")
def test_a_full_disk_is_an_error_that_names_the_remedy(tmp_path: Path) -> None:
    """A file size limit stands in for the full disk: the same errno path, without needing a mount."""
    script = """
import resource, sys
from pathlib import Path
from spiral_core.errors import RunLogError
from spiral_core.link.runlog import RunLogReader, RunLogWriter
from spiral_core.wire.messages import StatusChanged
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = RunLogWriter(Path(sys.argv[1]), run="r", incarnation=0, clock=lambda: 0.0)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
step = 0
try:
    while True:
        log.append(StatusChanged, step, status="training", done=0, total=0, detail="y" * 100)
        step += 1
except RunLogError as error:
    print(error)
reader = RunLogReader(Path(sys.argv[1]))
print(len(list(reader.records())), step)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "frames.log")], capture_output=True, text=True, check=True
    )
    message, counts = done.stdout.splitlines()
    assert "free some space" in message
    kept, said = counts.split()
    assert kept == said
    assert (tmp_path / "frames.log").stat().st_size <= 4096


def in_parts(path: Path, count: int) -> RunLogWriter:
    log = RunLogWriter(path, run="r", incarnation=2, clock=lambda: 5.0, part_bytes=1500)
    for step in range(count):
        say(log, step)
    return log


def test_a_log_goes_on_in_further_files_and_reads_as_one(tmp_path: Path) -> None:
    path = tmp_path / "frames.log"
    log = RunLogWriter(path, run="r", incarnation=2, clock=lambda: 5.0, part_bytes=1500)
    reader = RunLogReader(path)
    seen: list[int] = []
    places = []
    for step in range(60):
        say(log, step)
        for record in reader.records():
            seen.append(codec.decode(record.data).seq)
            places.append(record.end)
    assert seen == list(range(60))
    assert len(parts_of(path)) > 4
    assert [message.seq for message in read(path)] == list(range(60))
    # From any place the rest is read, and of an older file rather too much than too little.
    for number in (0, 7, 30, 58):
        reader.seek(places[number])
        rest = [codec.decode(record.data).seq for record in reader.records()]
        assert rest[-1] == 59
        assert rest[0] <= number + 1
        assert rest == list(range(rest[0], 60))


def test_a_torn_record_before_another_file_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "frames.log"
    in_parts(path, 40)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(RunLogError, match="last record is not whole"):
        read(path)


def test_the_log_goes_on_behind_the_last_whole_record(tmp_path: Path) -> None:
    path = tmp_path / "frames.log"
    log = in_parts(path, 40)
    last = parts_of(path)[-1]
    with last.open("ab") as file:
        file.write(b"torn")
    reader = RunLogReader(path)
    list(reader.records())
    message = StatusChanged(
        run="r", incarnation=2, seq=log.seq + 1, step=40, time=0.0, status="failed", done=0, total=0, detail=""
    )
    bequeath(path, reader.position, [message])
    assert [one.seq for one in read(path)] == list(range(41))
