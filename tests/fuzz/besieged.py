"""A server in a process of its own, people who behave well on it all the while, and what it looks like from outside."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from websockets.asyncio.client import connect

from server.house import Peer
from server.saying import frame, opening
from spiral_core.wire.limits import PROTOCOL
from spiral_core.wire.messages import EngineHello, EngineWelcome, Frame, Message, Stored, ViewHello, Watch
from spiral_server.launch import tokens
from spiral_server.live.tokens import Role

OWNER = "a token of the tests"
PATIENCE = 60.0
"""Seconds until what has to happen is taken to happen never; no test waits for them in vain."""
GREETING = "Spiral is running: open the address above. Ctrl-C ends it."
STEADY = "steady"
"""The run of those who behave well."""
DOCUMENTED = {
    int(code)
    for row in re.findall(
        r"^\| ((?:\d{4}(?:, )?)+) \|",
        (Path(__file__).parents[2] / "docs" / "server.md").read_text("utf-8"),
        flags=re.MULTILINE,
    )
    for code in row.split(", ")
}
"""Close codes in the table of ``docs/server.md``."""


class Besieged:
    """A server that runs on an empty directory.

    Parameters
    ----------
    folder : Path
    options : str
        Of ``spiral serve``.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.logdir = folder / "runs"
        self.logdir.mkdir()
        self._said = folder / "server.stderr"
        self.tokens = {role.value: tokens.make(self.logdir, role, None)[0] for role in Role if role is not Role.OWNER}
        self.tokens |= {"owner": OWNER, "wrong": "a wrong token"}
        words = ["-m", "spiral_server.cli", "serve", "--port", "0", "--token", OWNER, "--no-open"]
        words += ["--logdir", str(self.logdir), "--log-format", "json", "--requests-per-second", "0", *options]
        with self._said.open("w") as said:
            self.process = subprocess.Popen(
                [sys.executable, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, text=True
            )
        assert self.process.stdout is not None
        address = self.process.stdout.readline()
        assert address.startswith("http"), self._said.read_text()
        self.url = address.split("/?")[0]
        self.port = int(self.url.rsplit(":", 1)[1])
        self._seen = psutil.Process(self.process.pid)
        self.lives = 0
        """Engines that have taken up the run of those who behave well."""

    def headers(self, role: str) -> dict[str, str]:
        """Give the header that shows a token; "none" shows none, from the server's own page."""
        return {"Origin": self.url} if role == "none" else {"Authorization": f"Bearer {self.tokens[role]}"}

    def http(self, role: str = "owner") -> httpx.Client:
        """Ask over HTTP."""
        return httpx.Client(base_url=self.url, headers=self.headers(role), timeout=PATIENCE, verify=False)

    def dial(self, door: str, role: str = "owner") -> connect:
        """Open a websocket without saying anything."""
        return connect(
            f"ws://127.0.0.1:{self.port}/ws/{door}",
            additional_headers=self.headers(role),
            max_size=None,
            compression=None,
            proxy=None,
            ping_interval=None,
            close_timeout=PATIENCE,
            open_timeout=PATIENCE,
        )

    def complaints(self) -> list[str]:
        """Give what the server has logged as its own failure, and what it has written that is no line of the log."""
        found = []
        for line in self._said.read_text().splitlines():
            try:
                told: dict[str, Any] = json.loads(line)
            except ValueError:
                if line != GREETING:
                    found.append(line)
                continue
            if told["level"] not in ("debug", "info", "warning") or "Traceback" in line:
                found.append(line)
        return found

    def connected(self) -> dict[str, int]:
        """Tell how many are connected, as the server counts them, and as the operating system does."""
        with self.http() as http:
            counted = http.get("/metrics").text
            ours = {
                what: int(float(re.findall(rf"^spiral_{what}_connected (\S+)", counted, flags=re.MULTILINE)[0]))
                for what in ("engines", "viewers")
            }
        # Those that wait for the other end alone are the kernel's business.
        open_ = [one for one in self._seen.net_connections("tcp") if one.status in ("ESTABLISHED", "CLOSE_WAIT")]
        return {**ours, "sockets": len(open_)}

    async def settled(self, level: dict[str, int]) -> None:
        """Wait until no more are connected than there were."""
        deadline = time.monotonic() + PATIENCE / 2
        while (now := await asyncio.to_thread(self.connected)) != level:
            assert time.monotonic() < deadline, f"connections are stuck: {now} instead of {level}"
            await asyncio.sleep(0.02)

    @property
    def megabytes(self) -> float:
        """Resident memory."""
        return float(self._seen.memory_info().rss) / 1e6

    def end(self) -> None:
        """Stop it, and look at what it leaves with."""
        self.process.terminate()
        code = self.process.wait(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()
        assert code == 0, f"the server left with {code}: {self._said.read_text()[-3000:]}"
        assert self.complaints() == []


@contextmanager
def besieged(folder: Path, *options: str) -> Iterator[Besieged]:
    """Run a server; at the end it must leave in order and without a complaint."""
    server = Besieged(folder, *options)
    try:
        yield server
        server.end()
    finally:
        server.process.kill()
        server.process.wait()


class Good:
    """An engine and a viewer of one run, who do as they should."""

    def __init__(self, server: Besieged) -> None:
        self._server = server
        self._http = httpx.AsyncClient(
            base_url=server.url, headers=server.headers("owner"), timeout=PATIENCE, verify=False
        )
        self._seq = 4
        self._incarnation = server.lives
        server.lives += 1
        self.slowest = 0.0
        """Seconds until a frame was with the viewer and `/healthz` had answered, at the worst."""

    async def __aenter__(self) -> Good:
        self._sockets = [await self._server.dial("engine", "engine"), await self._server.dial("view", "viewer")]
        self._engine, self._viewer = (Peer(socket) for socket in self._sockets)
        await self._engine.say(EngineHello(protocol=PROTOCOL, run=STEADY, incarnation=self._incarnation))
        await self._engine.next_of(EngineWelcome)
        which = {"run": STEADY, "incarnation": self._incarnation}
        await self._engine.say(*opening(**which), frame(4, 1, [1.0, float("nan")], **which))
        await self._engine.next_of(Stored, lambda message: message.seq >= 4)
        await self._viewer.say(ViewHello(protocol=PROTOCOL), Watch(run=STEADY, width=100))
        await self.beat()
        return self

    async def __aexit__(self, *_: object) -> None:
        for socket in self._sockets:
            await socket.close()
        await self._http.aclose()

    async def beat(self) -> None:
        """Have a frame shown and stored, and ask whether the server is well."""
        began = time.monotonic()
        self._seq += 1
        number = self._seq
        async with asyncio.timeout(PATIENCE):
            await self._engine.say(frame(number, number, run=STEADY, incarnation=self._incarnation))
            await self._viewer.until(lambda message: _holds(message, number))
            await self._engine.next_of(Stored, lambda message: message.seq >= number)
            assert (await self._http.get("/healthz")).text == "ok\n"
        self.slowest = max(self.slowest, time.monotonic() - began)
        self._engine.seen.clear()
        self._viewer.seen.clear()


def _holds(message: Message, step: int) -> bool:
    """Tell whether a viewer has been shown a step: as a frame, or merged with others."""
    steps = [column.steps.numpy() for column in getattr(message, "columns", [])]
    return (isinstance(message, Frame) and message.step == step) or any(step in one for one in steps)
