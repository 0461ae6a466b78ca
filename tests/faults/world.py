"""Server, proxy and engine of one run as real processes, which can be killed and come back, and people who steer it."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from faults.proxy import Proxy
from spiral_core.errors import RunLogError
from spiral_core.link.rundir import RunDir
from spiral_core.link.runlog import RunLogReader
from spiral_core.wire import codec
from spiral_core.wire.messages import Ack, Logged, StatusChanged

PATIENCE = 90.0
"""Seconds until something that has to happen is taken to happen never; no test waits for them in vain."""
TOKEN = "a token of the tests"
FINAL = ("applied", "rejected", "superseded", "expired")


class Timeline:
    """What was done and seen, with the time of each; printed when a schedule fails."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._lines: list[str] = []
        self._lock = threading.Lock()

    def note(self, sentence: str) -> None:
        """Put down a sentence."""
        with self._lock:
            self._lines.append(f"{time.monotonic() - self._begun:7.3f}  {sentence}")

    def __str__(self) -> str:
        with self._lock:
            return "\n".join(self._lines)


def wait_for(question: Callable[[], Any], why: str) -> Any:
    """Ask until the answer is true; give it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if answer := question():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"waited {PATIENCE:.0f} s in vain for {why}")


class Logs:
    """The run logs of a run, read as they grow."""

    def __init__(self, directory: RunDir) -> None:
        self.directory = directory
        self._readers: dict[int, RunLogReader] = {}
        self._lock = threading.Lock()
        self.messages: dict[int, list[Logged]] = {}
        """By incarnation."""

    def look(self) -> None:
        """Read what is new."""
        with self._lock:
            for number, path in self.directory.segments(99):
                if number not in self._readers:
                    # A log that has just been made may have no header yet.
                    with suppress(RunLogError):
                        self._readers[number] = RunLogReader(path)
                        self.messages[number] = []
                if number in self._readers:
                    records = self._readers[number].records()
                    self.messages[number] += [codec.decode(record.data) for record in records]  # type: ignore[misc]

    def close(self) -> None:
        """Close the files."""
        with self._lock:
            for reader in self._readers.values():
                reader.close()
            self._readers.clear()

    @property
    def newest(self) -> list[Logged]:
        """Messages of the newest incarnation."""
        self.look()
        return self.messages[max(self.messages)] if self.messages else []

    @property
    def step(self) -> int:
        """Updates done."""
        return max((one.step for one in self.newest if not isinstance(one, Ack)), default=0)

    @property
    def status(self) -> str:
        """What the engine has last said that it does."""
        return next((one.status for one in reversed(self.newest) if isinstance(one, StatusChanged)), "")


class World:
    """One run with all its processes.

    Parameters
    ----------
    folder : Path
        Empty; the directory of runs is made in it.
    train : sequence of str
        Options of the engine when it begins the run.
    circumstances : sequence of str
        Options that it is also given when it resumes the run.
    apart : Path, optional
        Where the engine keeps the run, if not beside the server.
    """

    def __init__(
        self,
        folder: Path,
        train: tuple[str, ...],
        circumstances: tuple[str, ...],
        *,
        apart: Path | None = None,
    ) -> None:
        self.folder, self.logdir = folder, folder / "runs"
        self.logdir.mkdir()
        self.engine_logdir = apart or self.logdir
        self.train, self.circumstances = train, circumstances
        self.timeline = Timeline()
        self.proxy = Proxy()
        self.server: subprocess.Popen[str] | None = None
        self.engine: subprocess.Popen[str] | None = None
        self.environment: dict[str, dict[str, str]] = {"server": {}, "engine": {}}
        """Further variables of a process."""
        self.port = 0
        self.run = ""
        self.logs: Logs | None = None
        self.lives = 0

    # --- processes

    def start_server(self) -> None:
        """Start the server; do not wait for it."""
        self.timeline.note("start server")
        words = ["-m", "spiral_server.cli", "serve", "--port", str(self.port), "--token", TOKEN]
        self.server = self._spawn("server", words, out=subprocess.PIPE)

    def server_ready(self) -> None:
        """Wait until the server has said where it listens."""
        assert self.server is not None
        assert self.server.stdout is not None
        said = self.server.stdout.readline()
        assert said.startswith("http"), f"the server gave no address: {self.said('server')}"
        port = int(said.split("/?")[0].rsplit(":", 1)[1])
        assert self.port in (0, port), f"the server came back on port {port} instead of {self.port}"
        self.port = self.proxy.target = port

    def start_engine(self) -> None:
        """Begin the run, or resume it."""
        self.lives += 1
        self.timeline.note(f"start engine, life {self.lives}")
        words = ["-m", "spiral_core.cli", "train", "--quiet", "--server", f"http://127.0.0.1:{self.proxy.port}"]
        words += ["--token", TOKEN]
        words += ["--resume", self.run] if self.run else [*self.train, "--steps", "1000000"]
        words += self.circumstances
        self.engine = self._spawn("engine", words)

    def _spawn(self, role: str, words: list[str], out: int | None = None) -> subprocess.Popen[str]:
        with (self.folder / f"{role}.stderr").open("a") as said:
            return subprocess.Popen(
                [sys.executable, *words, "--logdir", str(self.logdir if role == "server" else self.engine_logdir)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=said,
                text=True,
                start_new_session=True,
                env={**os.environ, **self.environment[role]},
            )

    def begun(self) -> None:
        """Wait until the run has a directory and knows whose it is."""

        def looked() -> bool:
            assert self.engine is not None
            assert self.engine.poll() is None, self.said("engine")
            for path in self.engine_logdir.glob("*/applied.log"):
                if path.stat().st_size:
                    self.run = path.parent.name
            return bool(self.run)

        wait_for(looked, "the run to begin")
        self.directory = RunDir(self.engine_logdir / self.run, self.run)
        self.logs = Logs(self.directory)

    def couriers(self) -> list[psutil.Process]:
        """Give the couriers of the engine that lives."""
        if self.engine is None or self.engine.poll() is not None:
            return []
        with suppress(psutil.Error):
            return [one for one in psutil.Process(self.engine.pid).children() if "courier" in " ".join(one.cmdline())]
        return []

    def kill(self, victims: list[str]) -> None:
        """Send SIGKILL to some of the processes, as nearly at once as can be."""
        couriers = self.couriers() if "courier" in victims else []
        self.timeline.note(f"kill {', '.join(victims)} at step {self.logs.step if self.logs else 0}")
        for victim in victims:
            if victim == "courier":
                for courier in couriers:
                    with suppress(psutil.Error):
                        courier.kill()
            else:
                process: subprocess.Popen[str] | None = getattr(self, victim)
                if process is not None:
                    process.kill()
        for victim in set(victims) - {"courier"}:
            process = getattr(self, victim)
            if process is not None:
                process.wait()
                if process.stdout is not None:
                    process.stdout.close()

    def said(self, role: str) -> str:
        """Give what a process has written to standard error."""
        path = self.folder / f"{role}.stderr"
        return path.read_text() if path.exists() else ""

    def close(self) -> None:
        """End everything that was started here, orphaned couriers included."""
        self.proxy.close()
        if self.logs is not None:
            self.logs.close()
        for process in (self.engine, self.server):
            if process is not None:
                process.kill()
                process.wait()
                if process.stdout is not None:
                    process.stdout.close()
        for one in psutil.process_iter(["cmdline"]):
            words = " ".join(one.info["cmdline"] or ())
            if str(self.logdir) in words or str(self.engine_logdir) in words:
                with suppress(psutil.Error):
                    one.kill()

    # --- questions

    def get(self, path: str) -> Any:
        """Ask the server over HTTP, past the proxy."""
        return self._http(urllib.request.Request(f"http://127.0.0.1:{self.port}{path}"))[1]

    def post(self, body: dict[str, Any]) -> tuple[int, Any]:
        """Give a command over HTTP; errors of the connection are raised as `OSError`."""
        return self._http(
            urllib.request.Request(
                f"http://127.0.0.1:{self.port}/api/runs/{self.run}/commands",
                data=json.dumps(body).encode(),
                headers={"Content-Type": "application/json"},
            )
        )

    def _http(self, request: urllib.request.Request) -> tuple[int, Any]:
        request.add_header("Authorization", f"Bearer {TOKEN}")
        try:
            try:
                answer = urllib.request.urlopen(request, timeout=10)
            except urllib.error.HTTPError as refusal:
                answer = refusal
            with answer:
                return answer.status, json.loads(answer.read())
        except http.client.HTTPException as error:
            # The server was killed in the middle of its answer.
            raise ConnectionError(str(error)) from error

    def summary(self) -> dict[str, Any]:
        """Give the server's line on the run; {} while there is none."""
        with suppress(OSError, ValueError, KeyError):
            return next((one for one in self.get("/api/runs")["runs"] if one["id"] == self.run), {})
        return {}
