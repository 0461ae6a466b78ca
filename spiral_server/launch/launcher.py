"""Starts engines on this machine, stops them and starts them again; knows them after a restart of the server.

Every engine runs in a session of its own under a minder (`spiral_server.launch.minder`), so that neither Ctrl-C nor the
death of the server reaches it. All that is known of it is read from its record.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from spiral_core.errors import ConfigError, SpiralError
from spiral_server.launch import records
from spiral_server.launch.engine import surroundings
from spiral_server.launch.listening import own_address
from spiral_server.launch.records import LaunchRecord

log = structlog.get_logger(__name__)

START_SECONDS = 60.0
"""An engine says within a few seconds which run it trains; on a machine that is out of breath it takes longer."""
COMMAND_SECONDS = 10.0
"""An engine that was told to stop does so after its present step, with a checkpoint; then SIGTERM asks once more."""
TERM_SECONDS = 10.0
"""After SIGTERM it leaves within a second or two; then SIGKILL ends what cannot be asked."""
LOOK_SECONDS = 0.03


def awaited_port(logdir: Path, host: str, scheme: str) -> int | None:
    """Give the port at which engines that go on without a server expect one; None where none do."""
    found = (records.read(path) for path in sorted((logdir / records.FOLDER).glob("*.json"), reverse=True))
    for record in found:
        port = None if record is None else urlsplit(record.server).port
        if record is not None and port and record.living and record.server == own_address(host, port, scheme):
            return port
    return None


def left_behind(left: Sequence[LaunchRecord], logdir: Path) -> str:
    """Say what goes on although the server has ended."""
    runs = ", ".join(record.run for record in left)
    many = f"{len(left)} engines go on training" if len(left) > 1 else "An engine goes on training"
    them = "them" if len(left) > 1 else "it"
    return (
        f"{many}: {runs}. Start the server again with --logdir {logdir} to have {them} back; "
        f"touch {logdir}/RUN/stop ends one."
    )


class RefusedLaunchError(ConfigError):
    """An engine does not take what it was asked for."""


class TooManyEnginesError(SpiralError):
    """As many engines run as may run at once."""


class LaunchConflictError(SpiralError):
    """A run is not in the state that is needed."""


class Launcher:
    """The engines that the servers of one directory have started.

    Parameters
    ----------
    logdir : Path
        Where runs are kept.
    url, token : str
        What the engines report to.
    most : int
        Engines that may run at once.
    hindrance : str
        Why this server can start none; empty where it can.
    """

    def __init__(self, logdir: Path, *, url: str, token: str, most: int, hindrance: str = "") -> None:
        self._logdir = logdir
        self._url = url
        self._token = token
        self._since = time.time()
        self._starting = 0
        self._children: set[int] = set()
        self._ladders: dict[str, asyncio.Task[None]] = {}
        self._read: dict[Path, tuple[tuple[int, int, int], LaunchRecord | None]] = {}
        self.most = most
        self.hindrance = hindrance
        self.patience = (COMMAND_SECONDS, TERM_SECONDS)
        """Seconds that a stopping engine is given after the command, and after SIGTERM."""

    # --- looking

    def all(self) -> list[LaunchRecord]:
        """List all launches, oldest first."""
        self._reap()
        paths = sorted((self._logdir / records.FOLDER).glob("*.json"))
        self._read = {path: self._look(path) for path in paths}
        known: list[LaunchRecord] = []
        for path, (_, record) in self._read.items():
            if record is not None and record.error and not record.living:
                # Whoever asked has been told, and there is no run.
                records.forget(path)
            elif record is not None:
                known.append(record)
        return sorted(known, key=lambda record: record.begun)

    def _look(self, path: Path) -> tuple[tuple[int, int, int], LaunchRecord | None]:
        stamp = (0, 0, 0)
        with suppress(OSError):
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        known = self._read.get(path)
        return known if known is not None and known[0] == stamp else (stamp, records.read(path))

    def by_run(self) -> dict[str, LaunchRecord]:
        """Give the newest launch of each run."""
        return {record.run: record for record in self.all() if record.run}

    def living(self) -> list[LaunchRecord]:
        """List the launches whose engine runs."""
        return [record for record in self.all() if record.living]

    def said(self, record: LaunchRecord) -> list[str]:
        """Give the last lines that an engine said on standard error."""
        return records.tail(records.path_of(self._logdir, record.launch))

    def _reap(self) -> None:
        """Let go of minders of ours that have ended."""
        for pid in list(self._children):
            with suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == 0:
                    continue
            self._children.discard(pid)

    def reattach(self) -> None:
        """Say which engines of earlier servers still run, and tidy up after those that do not."""
        self._tidy()
        for record in self.living():
            if record.server == self._url:
                log.info("an engine that was started here before goes on", run=record.run, pid=record.minder.pid)
            else:
                log.warning(
                    "an engine of ours reports to another address: start the server there to have it back",
                    run=record.run,
                    address=record.server,
                )

    def _tidy(self) -> None:
        """Forget the oldest of the engines that have ended."""
        over = [record for record in self.all() if not record.living]
        for record in over[: -records.KEPT]:
            records.forget(records.path_of(self._logdir, record.launch))

    # --- starting

    async def start(self, words: Sequence[str]) -> LaunchRecord:
        """Start an engine, and wait until it has said which run it trains.

        Parameters
        ----------
        words : sequence of str
            Options of ``spiral train``.

        Raises
        ------
        RefusedLaunchError
            It does not take what it was asked for; nothing was made.
        TooManyEnginesError
            As many run as may run at once.
        LaunchConflictError
            This server can start none, or the engine does not answer.
        """
        if self.hindrance:
            raise LaunchConflictError(self.hindrance)
        self._tidy()
        running = len(self.living()) + self._starting
        if running >= self.most:
            raise TooManyEnginesError(
                f"{running} engines run already, and at most {self.most} may at once: stop one, or start the server "
                "with a larger --max-engines"
            )
        # Once a record is there the engine counts among the living; until then, here.
        self._starting += 1
        try:
            path, minder = self._spawn(["--quiet", "--logdir", str(self._logdir.resolve()), *words])
            await self._until(lambda: path.exists() or self._gone(minder), START_SECONDS)
        except OSError as error:
            raise LaunchConflictError(f"no engine can be started: {error.strerror}") from error
        finally:
            self._starting -= 1
        return await self._answered(path)

    def _gone(self, minder: int) -> bool:
        self._reap()
        return minder not in self._children

    def _spawn(self, words: Sequence[str]) -> tuple[Path, int]:
        """Start a minder, in a session of its own and as nobody's business."""
        launch = f"{time.time_ns():x}-{secrets.token_hex(3)}"
        path = records.path_of(self._logdir, launch)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        said = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "spiral_server.launch.minder", str(path.resolve()), self._url, *words],
            {**surroundings(), "SPIRAL_TOKEN": self._token},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, str(records.stderr_of(path)), said, 0o600),
            ],
            setsid=True,
            setsigdef=(signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
        )
        self._children.add(pid)
        return path, pid

    async def _answered(self, path: Path) -> LaunchRecord:
        def known() -> bool:
            record = records.read(path)
            return record is None or bool(record.run or record.error) or not record.living

        await self._until(known, START_SECONDS)
        self._reap()
        record = records.read(path)
        if record is None:
            raise LaunchConflictError("the engine could not be started: is there room in the directory of runs?")
        if record.error:
            raise RefusedLaunchError(record.error, field=record.field)
        if not record.run:
            raise LaunchConflictError(
                "the engine does not say what it trains; it is in the list of runs as soon as it does"
                if record.living
                else "the engine was ended before it had begun"
            )
        return record

    async def _until(self, met: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not met() and time.monotonic() < deadline:
            await asyncio.sleep(LOOK_SECONDS)

    async def resume(self, run: str) -> LaunchRecord:
        """Go on with a run whose engine has ended, from its newest checkpoint.

        Raises
        ------
        RefusedLaunchError
            It cannot be gone on with, such as one that is finished.
        LaunchConflictError
            It is being trained, or its files are elsewhere.
        TooManyEnginesError
            As `start`.
        """
        before = self.by_run().get(run)
        if before is not None and before.living:
            raise LaunchConflictError(f"run {run} is still being trained: stop it first")
        if not (self._logdir / run / "config.json").is_file():
            raise LaunchConflictError(
                f"the files of run {run} are not on this machine: go on with it where it was trained, with "
                f"`spiral train --resume {run} --server {self._url}`"
            )
        record = await self.start([f"--resume={run}"])
        if before is not None:
            records.forget(records.path_of(self._logdir, before.launch))
        return record

    # --- stopping

    def see_off(self, record: LaunchRecord) -> None:
        """See to it that an engine that was told to stop does: by SIGTERM after a while, and by SIGKILL in the end."""
        if record.launch not in self._ladders:
            task = self._ladders[record.launch] = asyncio.create_task(self._see_off(record))
            task.add_done_callback(lambda _: self._ladders.pop(record.launch, None))

    async def _see_off(self, record: LaunchRecord) -> None:
        await self._until(lambda: not record.living, self.patience[0])
        for number in (signal.SIGTERM, signal.SIGKILL):
            engine = record.engine or record.minder
            if engine.send(number):
                log.warning("an engine that was told to stop goes on", run=record.run, sent=number.name)
                await self._until(lambda: not record.living, self.patience[1])

    def began(self, record: LaunchRecord) -> bool:
        """Tell whether this very server has started an engine."""
        return record.begun >= self._since

    def own(self) -> list[LaunchRecord]:
        """List the engines that run and that this very server has started."""
        return [record for record in self.living() if self.began(record)]

    def end_own(self) -> None:
        """Ask the engines that this very server has started to end."""
        for record in self.own():
            record.minder.send(signal.SIGTERM)

    async def close(self) -> None:
        """Leave the engines alone; those that were told to stop have heard it."""
        for task in list(self._ladders.values()):
            task.cancel()
        await asyncio.gather(*self._ladders.values(), return_exceptions=True)
