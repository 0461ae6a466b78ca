"""How late 300 viewers see a frame, and what an engine on the same machine loses to them.

    python tests/benchmarks/fanout.py [--viewers 300] [--rate 20] [--pairs 12] [--seconds 2]

A real server process; one courier that sends a frame of 30 numbers 20 times a second; 300 viewers that watch it; and
an engine process that trains `z_cnn` at full speed, first on one thread and then on two. Courier and viewers are one
process of bare sockets, so that they take as little as may be from the machine they share with server and engine.

- *Delivery*: from the moment before the courier's write to the moment at which a viewer has read the packet, for each
  frame and each viewer. Budget: p99 of 50 ms.
- *Slowdown*: stretches with the stream on and off in turns, the viewers connected in both; the ratio of the time of a
  step is the median over pairs of neighbors. Budget: 5 % on one thread and 25 % on two.

Prints what server and client cost while the stream is on, and as a calibration of the machine, from the same run: what
one write and one read of such a packet over the loopback takes, how late a timer of 10 ms comes, and how much of the
cores others used. Exits with 1 when a budget is missed. There is no peer: none streams to viewers beside a training.
"""

from __future__ import annotations

import argparse
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._viewers import BareSocket, Courier, Crowd, cpu, everyone, lateness, viewer
from e2e.cockpit import finish, start
from spiral_core.wire.messages import AnyMessage, Frame, Snapshot, Watch

DELIVERY_BUDGET = 0.050
SLOWDOWN_BUDGETS = {1: 5.0, 2: 25.0}
"""Percent by which a step may become slower, by threads of the engine."""
LEAST_BYTES = 300
SERIES = 30
SETTLE = 0.3
"""Seconds at the begin of a stretch that do not count."""


def engine(threads: int) -> None:
    """Train until the parent closes our input; then print when each step ended."""
    from spiral_core import kernels
    from spiral_core.engine import step
    from spiral_core.engine.config import for_data
    from spiral_core.engine.state import initial_state

    kernels.set_num_threads(threads)
    state = initial_state(for_data("fashion"))
    for _ in range(20):
        step.update(state)
    print("training", flush=True)
    ended = []
    while not select.select([sys.stdin], [], [], 0)[0]:
        step.update(state)
        ended.append(time.monotonic())
    sys.stdout.buffer.write(np.array(ended).tobytes())


class Training:
    """An engine process that trains at full speed."""

    def __init__(self, threads: int, crowd: Crowd) -> None:
        words = [sys.executable, __file__, "--engine", str(threads)]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        # Kernels may have to be compiled; meanwhile the viewers must answer, or they are taken for dead.
        while not select.select([self._process.stdout], [], [], 0)[0]:
            crowd.run(time.monotonic() + 0.1)
        assert self._process.stdout.readline() == b"training\n"

    def end(self) -> np.ndarray:
        """Stop it; give the times at which steps ended."""
        said, _ = self._process.communicate(timeout=60)
        return np.frombuffer(said)


@dataclass
class Stream:
    """A run, those who watch it, and when they saw what."""

    port: int
    token: str
    viewers: int
    rate: float
    crowd: Crowd = field(default_factory=Crowd)
    sent: dict[int, float] = field(default_factory=dict)
    delays: list[float] = field(default_factory=list)
    frames: int = 0
    bytes: int = 0
    snapshots: int = 0

    def __post_init__(self) -> None:
        self.courier = Courier(self.port, self.token, "watched", SERIES)
        self.crowd.add(self.courier, lambda *_: None)
        self.crowd.run(time.monotonic() + 0.5)
        for _ in range(self.viewers):
            one = viewer(self.port, self.token)
            one.say(Watch(run="watched", width=1000))
            self.crowd.add(one, self._heard)
        while self.snapshots < self.viewers:
            self.crowd.run(time.monotonic() + 0.2)
        self._values = np.random.default_rng(1)
        self._step = 0

    def _heard(self, _: BareSocket, packet: bytes, messages: list[AnyMessage]) -> None:
        now = time.monotonic()
        for message in messages:
            if isinstance(message, Frame):
                self.delays.append(now - self.sent[message.seq])
                self.bytes += len(packet)
            elif isinstance(message, Snapshot):
                self.snapshots += 1

    def run(self, seconds: float, *, on: bool) -> tuple[float, float]:
        """Stream, or be silent; give begin and end."""
        begun = time.monotonic()
        if on:
            for count in range(round(seconds * self.rate)):
                self.crowd.run(begun + count / self.rate)
                self._step += 1
                frame = self.courier.frame(self._step, self._values.normal(size=SERIES))
                self.sent[frame.seq] = time.monotonic()
                self.courier.say(frame)
                self.frames += 1
        self.crowd.run(begun + seconds)
        return begun, time.monotonic()


def loopback(size: int) -> float:
    """Return the seconds that one write and one read of so many bytes take."""
    listener = socket.create_server(("127.0.0.1", 0))
    one = socket.create_connection(listener.getsockname())
    other, _ = listener.accept()
    data = b"x" * size
    times = []
    for _ in range(3000):
        begun = time.perf_counter()
        one.send(data)
        other.recv(1 << 18)
        times.append(time.perf_counter() - begun)
    for each in (one, other, listener):
        each.close()
    return statistics.median(times)


def in_turns(stream: Stream, threads: int, pairs: int, seconds: float) -> list[float]:
    """Stream in turns beside an engine; return for each pair how much slower a step was, in percent."""
    training = Training(threads, stream.crowd)
    order = [on for pair in range(pairs) for on in ((True, False), (False, True))[pair % 2]]
    stretches = [(on, *stream.run(seconds, on=on)) for on in order]
    ended = training.end()
    taken: dict[bool, list[float]] = {True: [], False: []}
    for on, begun, end in stretches:
        inside = ended[(ended >= begun + SETTLE) & (ended <= end)]
        taken[on].append(float(inside[-1] - inside[0]) / (len(inside) - 1))
    return [100 * (on / off - 1) for on, off in zip(taken[True], taken[False], strict=True)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--viewers", type=int, default=300)
    parser.add_argument("--rate", type=float, default=20.0, help="frames a second")
    parser.add_argument("--pairs", type=int, default=12, help="pairs of stretches for each number of threads")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a stretch")
    parser.add_argument("--engine", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.engine:
        engine(options.engine)
        return 0
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        cockpit = start(Path(folder) / "runs", "serve", "--port", "0")
        try:
            server = psutil.Process(cockpit.process.pid)
            stream = Stream(int(cockpit.url.rsplit(":", 1)[1]), cockpit.token, options.viewers, options.rate)
            missed += measure_costs(stream, server)
            for threads, budget in SLOWDOWN_BUDGETS.items():
                missed += measure_slowdown(stream, threads, budget, options)
            stream.crowd.close()
        finally:
            finish(cockpit)
    return 1 if missed else 0


def measure_costs(stream: Stream, server: psutil.Process) -> int:
    """Stream for a while with no engine beside; print what it costs."""
    seconds = 5.0
    before = cpu(server), time.process_time(), everyone()
    stream.run(seconds, on=True)
    after = cpu(server), time.process_time(), everyone()
    served, client, total = (b - a for a, b in zip(before, after, strict=True))
    size = stream.bytes // max(1, len(stream.delays))
    deliveries = len(stream.delays)
    floor = loopback(size)
    print(
        f"{stream.viewers} viewers, {stream.rate:g} frames a second, {size} bytes a packet: {deliveries / seconds:.0f} "
        f"deliveries a second"
    )
    print(
        f"cost without an engine: server {100 * served / seconds:.1f} % of a core, "
        f"{1e6 * served / deliveries:.1f} us a "
        f"delivery; client {100 * client / seconds:.1f} %, {1e6 * client / deliveries:.1f} us; other processes "
        f"{100 * max(0.0, total - served - client) / seconds:.1f} %"
    )
    print(
        f"calibration: one write and one read of {size} bytes over the loopback take {1e6 * floor:.1f} us, "
        f"{100 * floor * deliveries / seconds:.1f} % of a core for as many; a timer of 10 ms is late by "
        f"{1e3 * lateness():.1f} ms (p99)"
    )
    complete = deliveries == stream.frames * stream.viewers and size >= LEAST_BYTES
    if not complete:
        print(f"{deliveries} deliveries of {stream.frames} frames, {size} bytes each: MISSED")
    return 0 if complete else 1


def measure_slowdown(stream: Stream, threads: int, budget: float, options: argparse.Namespace) -> int:
    """Stream beside an engine; print how late viewers saw frames and how much slower steps were."""
    stream.delays.clear()
    frames = stream.frames
    slower = in_turns(stream, threads, options.pairs, options.seconds)
    low, middle, high = statistics.quantiles(slower, n=4)
    p50, p99 = (float(np.quantile(stream.delays, share)) for share in (0.5, 0.99))
    lost = (stream.frames - frames) * stream.viewers - len(stream.delays)
    late, slow = p99 > DELIVERY_BUDGET or lost > 0, middle > budget
    print(
        f"beside an engine of {threads} thread{'s' * (threads > 1)}: delivery p50 {1e3 * p50:.1f} ms, p99 "
        f"{1e3 * p99:.1f} ms over {len(stream.delays)}, {lost} lost; budget p99 {1e3 * DELIVERY_BUDGET:.0f} ms: "
        f"{'MISSED' if late else 'kept'}"
    )
    print(
        f"a step of that engine is slower by {middle:.1f} % (quartiles {low:.1f} to {high:.1f}, {len(slower)} pairs); "
        f"budget {budget:.0f} %: {'MISSED' if slow else 'kept'}"
    )
    return late + slow


if __name__ == "__main__":
    sys.exit(main())
