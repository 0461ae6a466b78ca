"""What the server costs while nothing happens, and whether its memory stays flat over an hour of load.

    python tests/benchmarks/idle.py [--seconds 30] [--minutes 60]

- *Idle*: a real server process with ten pages connected that watch a run whose engine is silent. Resident memory at
  most 120 MB, processor time over 30 s at most 0.5 % of a core, and Numba not among what it has loaded.
- *An hour of load*, time compressed: as many messages as an hour of a usual run sends (20 frames of 30 numbers a
  second, heat maps of eight images every 50 frames, an acknowledgement every 100), as fast as the server takes them,
  with ten viewers: eight that read everything, one that is hidden, and one that comes and goes. Time itself is not
  simulated: nothing in the server grows with time but by messages. Resident memory is taken after each twelfth; from
  the third to the last it may grow by 5 %.

Prints budget and value, and as a calibration of the machine from the same run: what a bare Python process takes, what
one costs that sleeps 100 ms again and again, and how much of the cores others used. Exits with 1 when a budget is
missed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._viewers import BareSocket, Courier, Crowd, cpu, everyone, viewer
from e2e.cockpit import finish, start
from spiral_core.wire.messages import Ack, AnyMessage, HeatMaps, Stored, Visibility, Watch
from spiral_core.wire.parts import Array, Change

RESIDENT_BUDGET = 120e6
CPU_BUDGET = 0.5
"""Percent of a core."""
GROWTH_BUDGET = 5.0
"""Percent, from the third twelfth of the hour to the last."""
VIEWERS = 10
SERIES = 30
RATE = 20
TWELFTHS = 12
BATCH = 20


def baseline(seconds: float) -> tuple[float, float]:
    """Return resident bytes of a bare Python process, and the percent of a core that one uses which sleeps 100 ms."""
    program = "import time, sys; print(flush=True)\nwhile True: time.sleep(0.1)"
    sleeper = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert sleeper.stdout is not None
    sleeper.stdout.readline()
    process = psutil.Process(sleeper.pid)
    before = cpu(process)
    time.sleep(seconds)
    used, resident = cpu(process) - before, process.memory_info().rss
    sleeper.kill()
    sleeper.wait()
    sleeper.stdout.close()
    return resident, 100 * used / seconds


class House:
    """A courier and ten viewers of its run."""

    def __init__(self, port: int, token: str) -> None:
        self.port, self.token = port, token
        self.crowd = Crowd()
        self.courier = Courier(port, token, "an-hour", SERIES)
        self.stored = -1
        self.crowd.add(self.courier, self._told)
        self.viewers = [self._watching() for _ in range(VIEWERS - 1)]
        self.viewers[0].say(Visibility(visible=False))
        self.wait_stored()

    def _told(self, _: BareSocket, packet: bytes, messages: list[AnyMessage]) -> None:
        del packet
        self.stored = max([self.stored, *(message.seq for message in messages if isinstance(message, Stored))])

    def _watching(self) -> BareSocket:
        one = viewer(self.port, self.token)
        one.say(Watch(run="an-hour", width=1000))
        self.crowd.add(one, lambda *_: None)
        return one

    def wait_stored(self) -> None:
        """Read on until the server has stored everything."""
        while self.stored < self.courier.seq:
            self.crowd.run(time.monotonic() + 0.002)

    def load(self, frames: int, first: int) -> None:
        """Send a part of the hour; a viewer comes at its beginning and goes at its end."""
        guest = self._watching()
        values = np.random.default_rng(first)
        for step in range(first, first + frames):
            self.courier.say(self.courier.frame(step, values.normal(size=SERIES)))
            if step % 50 == 0:
                self.courier.say(self._heat_maps(step))
            if step % 100 == 0:
                self.courier.say(self._ack(step))
            if step % BATCH == 0:
                self.wait_stored()
        self.wait_stored()
        self.crowd.drop(guest)

    def _heat_maps(self, step: int) -> HeatMaps:
        many = 8
        return HeatMaps(
            **self.courier.head(step),
            method="gradcam",
            layer="conv3",
            maps=Array.of(np.zeros((many, 14, 14)), "<f4"),
            raw_min=[0.0] * many,
            raw_max=[1.0] * many,
            logit=[1.0] * many,
            probability=[0.5] * many,
            predicted=[0] * many,
            labels=[0] * many,
            pointing=None,
            energy_over_area=None,
        )

    def _ack(self, step: int) -> Ack:
        return Ack(
            **self.courier.head(step),
            number=-step - 1,
            id=f"guard-{step}",
            verb="mark",
            state="applied",
            by=None,
            changes=[Change(knob="optim.lr", old=0.1, in_force=0.1)],
            reason="",
            rev=0,
            actor="guard",
            source="guard",
        )


def idle(house: House, server: psutil.Process, seconds: float) -> int:
    """Do nothing for a while; print what the server used."""
    house.crowd.run(time.monotonic() + 2)
    bare, sleeping = baseline(5.0)
    before, all_before, own_before, begun = cpu(server), everyone(), time.process_time(), time.monotonic()
    house.crowd.run(begun + seconds)
    wall = time.monotonic() - begun
    used = cpu(server) - before
    others = everyone() - all_before - used - (time.process_time() - own_before)
    resident, percent = server.memory_info().rss, 100 * used / wall
    numba = any("numba" in one.path or "llvmlite" in one.path for one in server.memory_maps())
    print(
        f"calibration: a bare Python process takes {bare / 1e6:.0f} MB, one that sleeps 100 ms again and again uses "
        f"{sleeping:.2f} % of a core; other processes used {100 * max(0.0, others) / wall:.0f} % of a core meanwhile"
    )
    heavy, busy = resident > RESIDENT_BUDGET, percent > CPU_BUDGET
    print(
        f"idle with {VIEWERS - 1} viewers: {resident / 1e6:.0f} MB resident; budget {RESIDENT_BUDGET / 1e6:.0f} MB: "
        f"{'MISSED' if heavy else 'kept'}"
    )
    print(
        f"idle with {VIEWERS - 1} viewers: {percent:.2f} % of a core over {wall:.0f} s; budget {CPU_BUDGET} %: "
        f"{'MISSED' if busy else 'kept'}"
    )
    print(f"Numba and LLVM in the server: {'loaded, MISSED' if numba else 'not loaded'}")
    return heavy + busy + numba


def hour(house: House, server: psutil.Process, minutes: float) -> int:
    """Send an hour's messages; print how memory went."""
    part = round(minutes * 60 * RATE / TWELFTHS)
    begun = time.monotonic()
    resident = []
    for twelfth in range(TWELFTHS):
        house.load(part, 1 + twelfth * part)
        resident.append(server.memory_info().rss)
    grown = 100 * (resident[-1] / resident[2] - 1)
    grew = grown > GROWTH_BUDGET
    print(
        f"{minutes:g} minutes of load in {time.monotonic() - begun:.0f} s, {part * TWELFTHS} frames; resident after "
        f"each "
        f"twelfth: {' '.join(f'{value / 1e6:.0f}' for value in resident)} MB"
    )
    print(
        f"growth from the third twelfth to the last: {grown:+.1f} %; budget {GROWTH_BUDGET:g} %: "
        f"{'MISSED' if grew else 'kept'}"
    )
    return int(grew)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long nothing happens")
    parser.add_argument("--minutes", type=float, default=60.0, help="how many minutes' messages are sent")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cockpit = start(Path(folder) / "runs", "serve", "--port", "0")
        try:
            server = psutil.Process(cockpit.process.pid)
            house = House(int(cockpit.url.rsplit(":", 1)[1]), cockpit.token)
            missed = idle(house, server, options.seconds) + hour(house, server, options.minutes)
            house.crowd.close()
        finally:
            finish(cockpit)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
