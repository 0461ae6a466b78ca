"""What a viewer is sent that compares 50 runs, 4 series each, to which a point is added every second.

    python tests/benchmarks/many_series.py [--runs 50] [--steps 2000] [--seconds 20]

A real server process with 50 runs of 2,000 steps and 4 metrics; a courier for each then adds a step every second, all
at moments of their own. Three viewers compare all 200 curves. Counted is what comes out of their sockets, frames of the
websocket included (packets are not compressed). Budget: 10 KB/s for each viewer; trackio polls 19 MB/s in this case.

Prints also what opening the comparison takes, what the server's processor costs, that no point is missing, and, as a
calibration of the machine from the same run, how late a timer of 10 ms comes. Exits with 1 when a budget is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._viewers import BareSocket, Courier, Crowd, cpu, lateness, viewer
from e2e.cockpit import finish, start
from spiral_core.wire.messages import AnyMessage, Compare, Compared, Points, Stored

BYTES_BUDGET = 10_000
"""A second, for each viewer."""
METRICS = 4
VIEWERS = 3


class Fleet:
    """Runs that train, and viewers that compare them."""

    def __init__(self, port: int, token: str, runs: int, steps: int) -> None:
        self.port, self.token = port, token
        self.crowd = Crowd()
        self.steps = steps
        self._stored: dict[BareSocket, int] = {}
        self._values = np.random.default_rng(1)
        self.couriers = [Courier(port, token, f"run-{number:03}", METRICS) for number in range(runs)]
        for courier in self.couriers:
            self.crowd.add(courier, self._told)
            for step in range(1, steps + 1):
                courier.say(courier.frame(step, self._values.normal(size=METRICS)))
            while self._stored.get(courier, -1) < courier.seq:
                self.crowd.run(time.monotonic() + 0.01)
        self.compared = 0
        self.points = 0

    def _told(self, one: BareSocket, packet: bytes, messages: list[AnyMessage]) -> None:
        del packet
        for message in messages:
            if isinstance(message, Stored):
                self._stored[one] = message.seq

    def _heard(self, _: BareSocket, packet: bytes, messages: list[AnyMessage]) -> None:
        del packet
        for message in messages:
            if isinstance(message, Compared):
                self.compared += 1
            elif isinstance(message, Points):
                self.points += message.steps.shape[0]

    def watch(self) -> list[BareSocket]:
        """Let the viewers come, and wait until they have all curves."""
        viewers = []
        names = [f"train/s{number}" for number in range(METRICS)]
        for _ in range(VIEWERS):
            one = viewer(self.port, self.token)
            one.say(Compare(runs=[courier.run for courier in self.couriers], series=names, width=1000))
            self.crowd.add(one, self._heard)
            viewers.append(one)
        while self.compared < VIEWERS * len(self.couriers):
            self.crowd.run(time.monotonic() + 0.05)
        return viewers

    def train(self, seconds: int) -> int:
        """Add a step to each run every second; give the number of points."""
        begun = time.monotonic()
        for second in range(seconds):
            for number, courier in enumerate(self.couriers):
                self.crowd.run(begun + second + number / len(self.couriers))
                self.steps += number == 0
                courier.say(courier.frame(self.steps, self._values.normal(size=METRICS)))
        # The last ones wait for their tick.
        self.crowd.run(begun + seconds + 1)
        return seconds * len(self.couriers) * METRICS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seconds", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cockpit = start(Path(folder) / "runs", "serve", "--port", "0")
        try:
            server = psutil.Process(cockpit.process.pid)
            fleet = Fleet(int(cockpit.url.rsplit(":", 1)[1]), cockpit.token, options.runs, options.steps)
            begun = time.monotonic()
            viewers = fleet.watch()
            opened, opening = time.monotonic() - begun, viewers[0].received
            before = cpu(server)
            expected = fleet.train(options.seconds) * VIEWERS
            used = 100 * (cpu(server) - before) / options.seconds
            sent = sum(one.received for one in viewers) / VIEWERS - opening
            fleet.crowd.close()
        finally:
            finish(cockpit)
    rate = sent / options.seconds
    print(f"calibration: a timer of 10 ms is late by {1e3 * lateness():.1f} ms (p99)")
    print(
        f"{VIEWERS} viewers open {options.runs} runs x {options.steps} steps x {METRICS} metrics in {opened:.2f} s; "
        f"{opening / 1e6:.2f} MB each"
    )
    many, lost = rate > BYTES_BUDGET, fleet.points != expected
    print(f"points sent: {fleet.points} of {expected}: {'MISSED' if lost else 'kept'}")
    print(
        f"one new point for each of {options.runs * METRICS} curves a second: {rate / 1e3:.2f} KB/s for each viewer, "
        f"server {used:.1f} % of a core; budget {BYTES_BUDGET / 1e3:.0f} KB/s: {'MISSED' if many else 'kept'}"
    )
    return 1 if many or lost else 0


if __name__ == "__main__":
    sys.exit(main())
