"""A run log that outgrows its bound keeps its extremes, its answers and the pictures of its steers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spiral_core.errors import RunLogError
from spiral_core.link.rundir import RunDir
from spiral_core.link.runlog import RunLogReader, RunLogWriter, parts_of
from spiral_core.link.spawn import Thinner
from spiral_core.link.thinning import FIRST_STRETCH, thin_file, thin_files
from spiral_core.wire import codec
from spiral_core.wire.messages import Ack, Frame, HeatMaps, Logged, StatusChanged, Strip, Thinned
from spiral_core.wire.parts import Array

FRAMES = 4000
SERIES = 6
STEERED = (700, 2650)


def heat(log: RunLogWriter, step: int) -> None:
    empty: list[float] = []
    maps = Array.of(np.zeros((1, 2, 2)), "<f4")
    told = {"raw_min": empty, "raw_max": empty, "logit": empty, "probability": empty, "predicted": [], "labels": []}
    log.append(HeatMaps, step, method="gradcam", layer="c", maps=maps, pointing=None, energy_over_area=None, **told)


def written(path: Path, part_bytes: int = 200_000) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Write a run: frames with spikes, NaN and infinity, strips, a heat map every 50 steps, two answers to commands."""
    values = np.random.default_rng(3).normal(size=(FRAMES, SERIES))
    values[1234, 2], values[77, 5], values[3001, 0] = 50.0, -60.0, 70.0
    values[500:503, 1], values[2000, 3] = np.nan, np.inf
    index = Array.of(np.arange(SERIES), "<u2")
    log = RunLogWriter(path, run="r", incarnation=0, clock=lambda: 5.0, part_bytes=part_bytes)
    for step in range(FRAMES):
        log.append(Frame, step, index=index, values=Array.of(values[step], "<f8"))
        if step % 10 == 0:
            log.append(Strip, step, name="s", values=Array.of(np.zeros(8), "<f4"))
        if step % 50 == 0:
            heat(log, step)
        if step in STEERED:
            ack = {"number": step, "id": str(step), "verb": "set", "state": "applied", "changes": []}
            log.append(Ack, step, **ack, reason="", rev=1, actor="", source="ui")
    log.append(StatusChanged, FRAMES, status="finished", done=FRAMES, total=FRAMES, detail="")
    log.close()
    return values


def read(path: Path) -> list[Logged]:
    reader = RunLogReader(path)
    try:
        found = [codec.decode(record.data) for record in reader.records()]
    finally:
        reader.close()
    return [message for message in found if isinstance(message, Logged)]


def size(path: Path) -> int:
    return sum(part.stat().st_size for part in parts_of(path))


def points(messages: list[Logged], series: int) -> dict[int, float]:
    found = {}
    for message in messages:
        if isinstance(message, Frame):
            own = dict(zip(message.index.numpy().tolist(), message.values.numpy().tolist(), strict=True))
            if series in own:
                found[message.step] = own[series]
    return found


def test_beyond_the_bound_frames_are_merged_and_extremes_answers_and_pictures_of_steers_stay(
    tmp_path: Path,
) -> None:
    path = tmp_path / "frames.log"
    values = written(path)
    before = read(path)
    newest = parts_of(path)[-1].read_bytes()
    limit = size(path) // 2
    assert thin_files(RunDir(path=tmp_path, id="r"), limit)
    assert size(path) <= limit
    assert parts_of(path)[-1].read_bytes() == newest
    after = read(path)
    assert [message.seq for message in after] == sorted({message.seq for message in after})
    for series in range(SERIES):
        column, kept = values[:, series], points(after, series)
        finite = column[np.isfinite(column)]
        left = np.array([value for value in kept.values() if np.isfinite(value)])
        assert (left.min(), left.max()) == (finite.min(), finite.max())
        assert all(value == column[step] or np.isnan(column[step]) for step, value in kept.items())
    assert np.isnan([points(after, 1)[step] for step in (500, 502)]).all()
    assert points(after, 3)[2000] == np.inf
    assert [m for m in after if isinstance(m, Ack)] == [m for m in before if isinstance(m, Ack)]
    pictures = {message.step for message in after if isinstance(message, HeatMaps)}
    assert {650, 700, 750} <= pictures or {700, 750, 800} <= pictures
    assert len(pictures) < FRAMES // 50
    # What was merged is said, in the place of a message that is gone.
    told = [message for message in after if isinstance(message, Thinned)]
    assert told
    assert told[0].first_step == 0
    assert all(one.stretch == FIRST_STRETCH and one.frames > 0 for one in told)
    whole = {message.step for message in after if isinstance(message, Frame) and len(message.index.data) == 2 * SERIES}
    merged = {step for one in told for step in range(one.first_step, one.step + 1)}
    assert set(range(FRAMES)) <= whole | merged


def test_thinning_again_goes_further_and_ends_where_nothing_is_to_be_gained(tmp_path: Path) -> None:
    path = tmp_path / "frames.log"
    values = written(path)
    run = RunDir(path=tmp_path, id="r")
    assert thin_files(run, size(path) // 2)
    once = size(path)
    assert not thin_files(run, 1000)
    assert size(path) < once
    after = read(path)
    left = points(after, 2)
    assert max(left.values()) == values[:, 2].max()
    frames = sum(message.frames for message in after if isinstance(message, Thinned))
    assert frames + len([m for m in read(parts_of(path)[-1]) if isinstance(m, Frame)]) == FRAMES
    assert len([message for message in after if isinstance(message, Ack)]) == 2


def test_a_reader_in_the_middle_of_a_file_is_not_disturbed(tmp_path: Path) -> None:
    path = tmp_path / "frames.log"
    written(path)
    reader = RunLogReader(path)
    records = reader.records()
    first = [next(records) for _ in range(300)]
    place = first[-1].end
    assert thin_files(RunDir(path=tmp_path, id="r"), 1000) is False
    rest = [codec.sequence_number(record.data) for record in records]
    assert rest[0] == 300
    # Once it has left the file it gets the thinned one, from its beginning.
    reader.seek(place)
    assert codec.sequence_number(next(reader.records()).data) <= 300


def test_a_reader_goes_back_to_a_thinned_file_as_often_as_it_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "frames.log"
    written(path)
    reader = RunLogReader(path)
    records = reader.records()
    place = [next(records) for _ in range(300)][-1].end
    everything = [codec.sequence_number(record.data) for record in records]
    assert thin_files(RunDir(path=tmp_path, id="r"), 1000) is False
    # The first connection breaks before it has left the file.
    reader.seek(place)
    assert codec.sequence_number(next(reader.records()).data) <= 300
    reader.seek(place)
    again = [codec.sequence_number(record.data) for record in reader.records()]
    assert again[0] <= 300
    assert again[-1] == everything[-1]
    reader.close()


def test_a_damaged_file_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "frames.log"
    written(path)
    spoilt = bytearray(path.read_bytes())
    spoilt[5000] ^= 1
    path.write_bytes(bytes(spoilt))
    with pytest.raises(RunLogError, match="damaged"):
        thin_file(path, FIRST_STRETCH)
    assert path.read_bytes() == bytes(spoilt)
    assert list(tmp_path.glob("thinning-*")) == []


def test_the_process_is_started_when_there_is_need_and_only_then(tmp_path: Path) -> None:
    path = tmp_path / "frames.log"
    written(path)
    whole = size(path)
    run = RunDir(path=tmp_path, id="r")
    roomy = Thinner(run, whole)
    roomy.look()
    roomy.finish()
    assert size(path) == whole
    words = [sys.executable, "-m", "spiral_core.link.thinning", "--folder", str(tmp_path), "--run", "r"]
    subprocess.run([*words, "--limit", str(whole // 2)], check=True)
    assert size(path) <= whole // 2
    assert any(isinstance(message, Thinned) for message in read(path))
