"""What must survive the loss of power is on the disk together with its name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spiral_core.engine.checkpoint import capture
from spiral_core.engine.config import for_data
from spiral_core.engine.state import initial_state
from spiral_core.link import rundir
from spiral_core.link.checkpoints import CheckpointFolder
from spiral_core.link.resume import begin_in


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What is brought to the disk while a test runs, in order."""
    paths: list[Path] = []
    fsync = os.fsync

    def noted(file: int) -> None:
        fsync(file)
        paths.append(Path(os.readlink(f"/proc/self/fd/{file}")))

    monkeypatch.setattr(os, "fsync", noted)
    return paths


def test_a_new_run_has_its_names_on_the_disk_before_it_begins(tmp_path: Path, synced: list[Path]) -> None:
    config = for_data("needle", steps=1)
    run = rundir.create(tmp_path / "deep" / "runs", config, now=0.0)
    assert {tmp_path, tmp_path / "deep", tmp_path / "deep" / "runs", run.path, run.config} <= set(synced)
    assert synced.index(run.config) < synced.index(run.path)
    synced.clear()
    start = begin_in(run, config, "a run")
    start.release()
    assert {run.applied, run.path} <= set(synced)


def test_the_first_checkpoint_brings_the_name_of_its_folder_to_the_disk(tmp_path: Path, synced: list[Path]) -> None:
    state = initial_state(for_data("needle", steps=1))
    saved = CheckpointFolder(tmp_path / "checkpoints").save(*capture(state), incarnation=0, position=0, reason="every")
    assert synced == [tmp_path, saved.checkpoint.path.with_suffix(".part"), tmp_path / "checkpoints"]
