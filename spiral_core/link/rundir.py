"""Run directories: one folder per run under the log directory.

::

    LOGDIR/<run id>/config.json        what was asked for
                    frames.log         every message of the run (`runlog`)
                    frames.log.1       the same, once the first file has grown large, and so on
                    frames-001.log     the same since it was resumed for the first time, and so on
                    applied.log        every change that was applied (`applied`)
                    hashes.log         digests of the weights (`hashes`)
                    environment.json   what it was computed with; environment-001.json, and so on
                    checkpoints/       states to go on from (`checkpoints`)
                    dumps/             weights and activations of chosen steps (`dump`)
                    reserve            room on the disk while the run trains (`patientlog`)
                    lock               held by the process that trains
                    stop, checkpoint   touched by people, removed by the engine (`triggers`)
                    commands.jsonl     commands, appended by people (`triggers`)

The server keeps its own file beside these and opens none but the run logs, to mend from them what is damaged in its
own.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from spiral_core.errors import RunLogError
from spiral_core.link import durable
from spiral_core.wire import records

if TYPE_CHECKING:
    # The courier needs paths and nothing else: it starts without the engine.
    from spiral_core.engine.config import RunConfig


@dataclass(frozen=True)
class RunDir:
    """Paths of one run."""

    path: Path
    id: str

    @property
    def frames(self) -> Path:
        """The run log, until the run is first resumed."""
        return self.frames_of(0)

    def frames_of(self, incarnation: int) -> Path:
        """Give the run log of one incarnation."""
        return self._numbered("frames", incarnation, "log")

    def environment_of(self, incarnation: int) -> Path:
        """Give the file that says what one incarnation was computed with."""
        return self._numbered("environment", incarnation, "json")

    def _numbered(self, name: str, incarnation: int, ending: str) -> Path:
        return self.path / (f"{name}-{incarnation:03d}.{ending}" if incarnation else f"{name}.{ending}")

    def segments(self, incarnation: int) -> list[tuple[int, Path]]:
        """Give the run logs up to an incarnation that are there, oldest first, with the incarnation of each."""
        every = ((number, self.frames_of(number)) for number in range(incarnation + 1))
        return [(number, path) for number, path in every if path.exists()]

    def logs(self) -> list[tuple[int, Path]]:
        """Give all run logs that are there, oldest first, with the incarnation of each."""
        names = (records.LOG_NAME.fullmatch(path.name) for path in self.path.glob("frames*.log"))
        numbers = (int(name["incarnation"] or 0) for name in names if name is not None)
        return [(number, self.frames_of(number)) for number in sorted(numbers)]

    @property
    def applied(self) -> Path:
        """The applied commands."""
        return self.path / "applied.log"

    @property
    def config(self) -> Path:
        """The configuration, as JSON."""
        return self.path / "config.json"

    @property
    def reserve(self) -> Path:
        """Room on the disk for what must be said when it is full."""
        return self.path / "reserve"

    @property
    def hashes(self) -> Path:
        """Digests of the weights."""
        return self.path / "hashes.log"

    @property
    def checkpoints(self) -> Path:
        """States to go on from."""
        return self.path / "checkpoints"

    @property
    def dumps(self) -> Path:
        """Inspection dumps."""
        return self.path / "dumps"

    def hold(self) -> int:
        """Keep other processes from training this run, until the descriptor given back is closed or we end.

        Raises
        ------
        RunLogError
            Another process trains it, or the lock cannot be made.
        """
        path = self.path / "lock"
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise RunLogError(f"cannot open {path}: {error.strerror}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(handle, 20, 0).decode(errors="replace").strip()
            os.close(handle)
            raise RunLogError(
                f"run {self.id} is still being trained, by process {holder}: stop it first, or wait for its end"
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        return handle


def find(logdir: Path, run: str) -> RunDir:
    """Give the directory of a run, named by its id under ``logdir`` or by its path.

    Raises
    ------
    RunLogError
        There is none.
    """
    for path in (logdir / run, Path(run)):
        if (path / "config.json").is_file():
            return RunDir(path=path, id=path.resolve().name)
    raise RunLogError(
        f"there is no run {run!r}, neither in {logdir} nor as a path; give its id, such as those in runs/"
    )


def every(logdir: Path) -> list[RunDir]:
    """Give the directories of all runs below a directory that have a run log, in the order of their names."""
    return [RunDir(path=path.parent, id=path.parent.name) for path in sorted(logdir.glob("*/frames.log"))]


def create(logdir: Path, config: RunConfig, *, now: float) -> RunDir:
    """Make a new run directory with its configuration.

    The id begins with the local time, so that names sort by age, and ends with random letters, so that two runs started
    in one second do not meet.

    Raises
    ------
    RunLogError
        The directory cannot be made or written.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
    run = f"{stamp}-{config.data}-{secrets.token_hex(2)}"
    path = logdir / run
    rundir = RunDir(path=path, id=run)
    try:
        durable.make_folder(path)
        durable.write(rundir.config, msgspec.json.format(msgspec.json.encode(config)) + b"\n")
        durable.sync_folder(path)
    except OSError as error:
        raise RunLogError(f"cannot make the run directory {path}: {error.strerror}; choose another --logdir") from error
    return rundir
