"""A server that is killed: what it has told anyone is there when it comes back."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import httpx

from spiral_core.wire import codec
from spiral_core.wire.messages import Command, EngineWelcome, Stored

from .house import TOKEN, House, courier, serving
from .saying import asking, frame, opening

SERVER = """
import socket, sys
from pathlib import Path
from spiral_server.app import Server, create_app, uvicorn_config
from spiral_server.settings import Settings
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
settings = Settings(logdir=Path(sys.argv[1]), token=sys.argv[2], instance="one")
Server(uvicorn_config(create_app(settings), settings)).run(sockets=[listener])
"""


class Elsewhere(House):
    """A server in a process of its own."""

    def __init__(self, logdir: Path) -> None:
        words = [sys.executable, "-c", SERVER, str(logdir), TOKEN]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {TOKEN}"}

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def test_a_killed_server_has_lost_nothing_that_it_confirmed(tmp_path: Path) -> None:
    confirmed: dict[str, int] = {"frame": -1, "command": 0}

    async def before(house: Elsewhere) -> None:
        async with courier(house) as engine, httpx.AsyncClient(base_url=house.url, headers=house.bearer) as http:
            await engine.say(*opening())
            seq, began = 4, time.monotonic()
            while time.monotonic() - began < 0.5 or seq < 100:
                await engine.say(*(frame(seq + i, seq + i, [float(seq + i)]) for i in range(10)))
                seq += 10
                answer = await http.post("/api/runs/r1/commands", content=codec.to_json(asking(f"c{seq}")))
                assert answer.status_code == 202
                confirmed["command"] = answer.json()["number"]
            await engine.next_of(Stored, lambda stored: stored.seq > 50)
            house.kill()
            confirmed["frame"] = max(message.seq for message in engine.seen if isinstance(message, Stored))

    async def after(house: House) -> None:
        async with courier(house) as engine:
            (welcome,) = engine.seen
            assert isinstance(welcome, EngineWelcome)
            assert welcome.stored >= confirmed["frame"] > 50
            numbers = [(await engine.next_of(Command)).number for _ in range(confirmed["command"])]
            assert numbers == list(range(1, confirmed["command"] + 1))
        with house.http() as http:
            (series,) = http.get("/api/runs/r1/series?names=train/s0&width=10000").json()["series"]
        assert series["steps"] == list(range(4, welcome.stored + 1))
        assert series["values"] == series["steps"]

    elsewhere = Elsewhere(tmp_path)
    try:
        asyncio.run(asyncio.wait_for(before(elsewhere), 30))
    finally:
        elsewhere.kill()
    with serving(tmp_path) as house:
        asyncio.run(asyncio.wait_for(after(house), 30))
