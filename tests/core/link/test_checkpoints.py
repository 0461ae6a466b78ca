"""Checkpoints on disk: whole, checked on the way back, and no more of them than asked for."""

from __future__ import annotations

import random
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from engine_runs import digest
from spiral_core.engine.checkpoint import capture, restore
from spiral_core.engine.config import for_data
from spiral_core.engine.state import RunState, initial_state
from spiral_core.engine.step import update
from spiral_core.errors import CheckpointError
from spiral_core.link.checkpoints import CheckpointFolder, Saved

CONFIG = for_data("digits", batch_size=8, precision="float16")


def trained(steps: int) -> RunState:
    state = initial_state(CONFIG)
    for _ in range(steps):
        update(state)
    return state


def kept(folder: CheckpointFolder, state: RunState, reason: str = "every", incarnation: int = 0) -> Saved:
    return folder.save(*capture(state), incarnation=incarnation, position=4, reason=reason)


@contextmanager
def little_room(size: int) -> Iterator[None]:
    """Let no file grow beyond a size, as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_state_comes_back_from_the_disk_and_trains_on_to_the_same_bits(tmp_path: Path) -> None:
    state, folder = trained(3), CheckpointFolder(tmp_path / "checkpoints")
    saved = kept(folder, state)
    assert saved.checkpoint.path.name == "step-00000003.safetensors"
    assert saved.size == saved.checkpoint.path.stat().st_size
    again = restore(CONFIG, *folder.load(saved.checkpoint.path))
    for _ in range(3):
        update(state)
        update(again)
    assert digest(state) == digest(again)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000003.safetensors"]


def test_a_flipped_bit_anywhere_is_found_and_the_file_and_an_older_one_are_named(tmp_path: Path) -> None:
    """Every third bit of a file with the small arrays, and a sample of the bits of a whole one."""
    folder = CheckpointFolder(tmp_path)
    kept(folder, trained(1))
    state = trained(2)
    arrays, metadata = capture(state)
    small = {name: array for name, array in arrays.items() if array.size <= 10}
    path = folder.save(small, metadata, incarnation=0, position=0, reason="every").checkpoint.path
    spoil_everywhere(folder, path, range(0, 8 * path.stat().st_size, 3))
    kept(folder, state)
    spoil_everywhere(folder, path, random.Random(0).sample(range(8 * path.stat().st_size), 300))


def spoil_everywhere(folder: CheckpointFolder, path: Path, positions: Sequence[int]) -> None:
    data = path.read_bytes()
    for position in positions:
        spoilt = bytearray(data)
        spoilt[position // 8] ^= 1 << position % 8
        path.write_bytes(spoilt)
        with pytest.raises(CheckpointError) as caught:
            folder.load(path)
        assert f"{path} is damaged" in str(caught.value)
        assert "use an older one: step-00000001.safetensors" in str(caught.value)


def test_a_cut_or_missing_file_is_found(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    path = kept(folder, trained(1)).checkpoint.path
    data = path.read_bytes()
    for length in (0, 7, 8, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match=r"is damaged: .*there is no older one"):
            folder.load(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(CheckpointError, match="is damaged"):
        folder.load(path)
    path.unlink()
    with pytest.raises(CheckpointError, match="No such file"):
        folder.load(path)


def test_a_full_disk_leaves_nothing_behind_and_the_older_file_whole(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    state = trained(1)
    path = kept(folder, state).checkpoint.path
    data = path.read_bytes()
    with little_room(len(data) // 2), pytest.raises(CheckpointError, match="free some space"):
        kept(folder, state, "asked")
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == data


def test_the_last_ones_are_kept_and_those_of_a_steer_and_none_of_a_future_given_up(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    state = initial_state(CONFIG)
    for number in range(1, 9):
        update(state)
        kept(folder, state, reason="steer" if number in (2, 3) else "every", incarnation=int(number == 8))
    (tmp_path / "step-00000099.safetensors").write_bytes(b"no checkpoint")
    folder.prune(3, lambda one: one.incarnation == 0)
    assert [(one.step, one.reason) for one in folder.listed()] == [
        (2, "steer"),
        (3, "steer"),
        (5, "every"),
        (6, "every"),
        (7, "every"),
    ]


def test_what_is_listed_is_what_the_file_says(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    assert folder.listed() == []
    state = trained(2)
    state.rev = 5
    saved = kept(folder, state, "asked", incarnation=3)
    assert folder.listed() == [saved.checkpoint]
    one = saved.checkpoint
    assert (one.step, one.rev, one.incarnation, one.position) == (2, 5, 3, 4)
    arrays, _ = folder.load(saved.checkpoint.path)
    assert arrays["model/fc1.weight"].dtype == np.float32
