"""Run directories: one folder per run under the log directory.

::

    LOGDIR/<run id>/config.json    what was asked for
                    frames.log     every message of the run (`runlog`)
                    applied.log    every change that was applied (`applied`)
                    dumps/         weights and activations of chosen steps (`dump`)

The server keeps its own file beside these and never opens them.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from spiral_core.engine.config import RunConfig
from spiral_core.errors import RunLogError


@dataclass(frozen=True)
class RunDir:
    """Paths of one run."""

    path: Path
    id: str

    @property
    def frames(self) -> Path:
        """The run log."""
        return self.path / "frames.log"

    @property
    def applied(self) -> Path:
        """The applied commands."""
        return self.path / "applied.log"

    @property
    def config(self) -> Path:
        """The configuration, as JSON."""
        return self.path / "config.json"

    @property
    def dumps(self) -> Path:
        """Inspection dumps."""
        return self.path / "dumps"


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
        path.mkdir(parents=True)
        rundir.config.write_bytes(msgspec.json.format(msgspec.json.encode(config)) + b"\n")
    except OSError as error:
        raise RunLogError(f"cannot make the run directory {path}: {error.strerror}") from error
    return rundir
