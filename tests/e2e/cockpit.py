"""A running `spiral` process as a test, a benchmark or a picture needs it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from spiral_server.launch import records

CHROMIUM_WORDS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass
class Cockpit:
    """A running ``spiral`` server process with what it printed."""

    process: subprocess.Popen[str]
    page: str
    """Address with the token."""
    logdir: Path

    @property
    def url(self) -> str:
        return self.page.split("/?")[0]

    @property
    def token(self) -> str:
        return self.page.split("token=")[1]

    def get(self, path: str) -> Any:
        request = urllib.request.Request(f"{self.url}{path}", headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        request = urllib.request.Request(
            f"{self.url}{path}",
            data=json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def run(self) -> dict[str, Any]:
        """Give the newest run's summary; {} before there is one."""
        runs = self.get("/api/runs")["runs"]
        return runs[0] if runs else {}

    def series(self, run: str, name: str) -> dict[int, float]:
        told = self.get(f"/api/runs/{run}/series?names={name}&width=100000")["series"][0]
        return {int(step): float(value) for step, value in zip(told["steps"], told["values"], strict=True)}

    def stop(self) -> float:
        """Press Ctrl-C; give the seconds until the process was gone."""
        begun = time.monotonic()
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.wait(20)
        return time.monotonic() - begun


def wait_for(what: Callable[[], Any], seconds: float = 30.0, why: str = "") -> Any:
    """Ask until the answer is true; give it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = what()
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds} s in vain {why}")


def start(logdir: Path, *words: str, env: dict[str, str] | None = None) -> Cockpit:
    """Start ``spiral`` with these words in a process group of its own; wait for the address that it prints."""
    with (logdir.parent / f"{logdir.name}.stderr").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "spiral_server.cli", *words, "--logdir", str(logdir)],
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            start_new_session=True,
            env={**os.environ, **(env or {})},
        )
    assert process.stdout is not None
    page = process.stdout.readline().strip()
    assert page.startswith("http"), f"no address was printed: {(logdir.parent / f'{logdir.name}.stderr').read_text()}"
    return Cockpit(process=process, page=page, logdir=logdir)


def finish(cockpit: Cockpit) -> None:
    """End a process group that a test may have left running."""
    if cockpit.process.poll() is None:
        cockpit.stop()
    if cockpit.process.stdout is not None:
        cockpit.process.stdout.close()


def end_engines(logdir: Path) -> None:
    """End the engines that servers of a directory have started and left to themselves."""
    known = [records.read(path) for path in (logdir / records.FOLDER).glob("*.json")]
    living = [record for record in known if record is not None and record.living]
    for record in living:
        record.minder.send(signal.SIGTERM)
    wait_for(lambda: not any(record.living for record in living), 90, "for engines to end")


@contextmanager
def open_chromium() -> Iterator[Browser]:
    """Start the system's Chromium; a machine without it fails, it does not skip."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert path, "Chromium is missing: apt-get install chromium (make test does it when it may)"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_WORDS)
        yield browser
        browser.close()
