"""Sealed lines: whatever happens to a file, nobody reads from it what was not written."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from spiral_core.errors import RunLogError
from spiral_core.link import chain, durable
from spiral_core.link.chain import ChainWriter

ENTRIES = [{"number": number, "sets": [{"knob": "optim.lr", "value": number / 7}], "ö": None} for number in range(4)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "applied.log"
    writer = ChainWriter(path, sync=True)
    for entry in ENTRIES[:3]:
        writer.append(entry)
    writer.close()
    return path


def test_what_was_written_is_read_and_a_file_is_continued(path: Path) -> None:
    writer = ChainWriter(path, sync=False)
    writer.append(ENTRIES[3])
    writer.close()
    assert chain.read(path).entries == ENTRIES


def test_every_single_flipped_bit_is_found(path: Path) -> None:
    data = path.read_bytes()
    for position in range(8 * len(data)):
        spoilt = bytearray(data)
        spoilt[position // 8] ^= 1 << position % 8
        path.write_bytes(spoilt)
        with pytest.raises(RunLogError, match=r"line \d does not fit its seal"):
            chain.read(path)
        if position % 97 == 0:
            with pytest.raises(RunLogError):
                ChainWriter(path, sync=False)
            assert path.read_bytes() == spoilt, "a damaged file is left as it is"


@pytest.mark.parametrize("gone", [0, 1])
def test_a_line_that_was_taken_out_is_missed(path: Path, gone: int) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:gone] + lines[gone + 1 :]))
    with pytest.raises(RunLogError, match=f"line {gone + 1} "):
        chain.read(path)


def test_a_torn_last_line_is_cut_wherever_it_was_torn_and_the_rest_stays(path: Path) -> None:
    data = path.read_bytes()
    whole = data.rindex(b"\n", 0, -1) + 1
    for length in range(whole, len(data)):
        path.write_bytes(data[:length])
        held = chain.read(path)
        assert (held.entries, held.torn) == (ENTRIES[:2], length - whole)
        writer = ChainWriter(path, sync=False)
        assert writer.torn == length - whole
        writer.append(ENTRIES[2])
        writer.close()
        assert path.read_bytes() == data


def test_a_full_disk_leaves_the_file_as_it_was_and_it_can_go_on(path: Path) -> None:
    data = path.read_bytes()
    writer = ChainWriter(path, sync=True)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(data) + 10, limits[1]))
    try:
        with pytest.raises(RunLogError, match="free some space"):
            writer.append(ENTRIES[3])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == data
    writer.append(ENTRIES[3])
    writer.close()
    assert chain.read(path).entries == ENTRIES


def test_a_file_that_is_not_there_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(RunLogError, match="No such file"):
        chain.read(tmp_path / "applied.log")
    with pytest.raises(RunLogError, match="cannot open"):
        ChainWriter(tmp_path / "nowhere" / "applied.log", sync=True)
    assert os.listdir(tmp_path) == []


def test_room_is_held_behind_the_end_and_given_back(path: Path) -> None:
    data = path.read_bytes()
    writer = ChainWriter(path, sync=True)
    before = path.stat().st_blocks
    assert writer.room()
    assert path.stat().st_blocks * 512 >= chain.ROOM_BYTES
    assert path.read_bytes() == data
    writer.append(ENTRIES[3])
    assert chain.read(path).entries == ENTRIES
    writer.close()
    assert path.stat().st_blocks <= before + 8


def test_where_no_room_can_be_held_it_is_looked_for_each_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "_fallocate", None)
    data = path.read_bytes()
    writer = ChainWriter(path, sync=True)
    looked: list[int] = []
    fits = durable.fits
    monkeypatch.setattr(durable, "fits", lambda *asked: looked.append(asked[2]) or fits(*asked))
    assert (writer.room(), writer.room()) == (True, True)
    assert looked == [chain.ROOM_BYTES] * 2
    assert path.read_bytes() == data
    writer.close()
