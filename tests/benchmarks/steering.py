"""How long from a command to its acknowledgement, and what a journal costs that is on disk before anybody is told.

    python tests/benchmarks/steering.py [--commands 500] [--road websocket]

Starts a real server, an engine with its courier, and one client, which gives commands over the websocket of a viewer
and hears there what becomes of them, as the page does (with ``--road http`` it posts them, as a script may):

- *acknowledgement*: from the moment before a command is packed to the moment when its `Ack` is in the client's socket,
  as the kernel stamps it; p50 and p99, at steps of about 1, 10 and 100 ms. To read it the client needs a core of this
  machine, where the engine computes on one and everybody else shares the other: that is printed beside it. The steps
  are made of computing (batches of `z_cnn`), not of waiting, because an engine that waits for its pace answers at once.
  The budget is one boundary interval plus 5 ms: that of the command, between the two updates before the one that it
  steers first. So 5 ms for p50 and p99 of what is beyond it; the median of all intervals is printed as well. The client
  is two bare sockets, one for requests and one for the websocket: libraries in Python take 2 ms for the one and 0.3 for
  the other, which is time of the benchmark and not of what it measures.
- *journal*: a command on the server's disk (`SqliteStore.journal`) and on the engine's (`AppliedLog.append`), one at a
  time. The budget is two bare writes with ``fsync``, of 4 KiB on the same disk, plus 1 ms; they are timed in turns with
  what they are compared with.

As a calibration the run times, in turns with the commands, an HTTP request that does nothing (``/healthz``), and how
late a sleep of 1 ms comes. When the server has been stopped and the engine still trains, it times the way of a command
with nothing on it (five processes that hand a line on, two writes with ``fsync``; see `_relay`): what the machine takes
by itself. It says for how long the machine's own host took its cores away meanwhile, and what other programs and
threads of the kernel took around each command: who is woken behind one of them waits for the next tick, up to 4 ms.
Exits with 1 when a budget is missed.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._others import Others, taken_between
from benchmarks._quantile import quantile
from benchmarks._relay import pass_once, relays
from benchmarks._steerer import Client, Heard
from e2e.cockpit import Cockpit, finish, start
from spiral_core.engine import step
from spiral_core.engine.config import for_data
from spiral_core.engine.state import initial_state
from spiral_core.link.applied import AppliedLog, Entry
from spiral_core.wire.messages import (
    CommandRecord,
)
from spiral_core.wire.parts import Change, Setting
from spiral_server.store.sqlite_store import SqliteStore

STEP_MS = (1, 10, 100)
ACK_MARGIN_MS = 5.0
JOURNAL_MARGIN_MS = 1.0
DISTURBED_MS = 1.0
"""What others may take of the cores, in a window of fixed length, around a command that counts as left alone."""
PAGE_BYTES = 4096
SECONDS = 60.0
"""For the commands of one kind of step, at most."""


def timed(work: Callable[[], object]) -> float:
    """Give the milliseconds of one call."""
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1e3


def batch_for(milliseconds: float) -> int:
    """Give the batch of `z_cnn` whose update takes about so long on one thread of this machine."""
    state = initial_state(for_data("fashion", batch_size=64))
    for _ in range(3):
        step.update(state)
    each = statistics.median(timed(lambda: step.update(state)) for _ in range(20)) / 64
    return max(1, min(2000, round(milliseconds / each)))


@dataclass
class Latency:
    """What was measured at one length of a step, in milliseconds."""

    acks: list[float]
    beyond: list[float]
    """What of each acknowledgement was beyond its boundary interval."""
    read: list[float]
    """The same, until the client had decoded it."""
    intervals: list[float]
    bare: list[float]
    """Requests that do nothing."""
    late: list[float]
    """By which sleeps of 1 ms were too long."""
    others: list[float]
    """What others took of the cores around each command whose boundary interval is known; 0 where nobody can tell."""
    relayed: list[float] = field(default_factory=list)
    """The way of a command with nothing on it."""
    stolen: float = 0.0
    """Percent of the time of all cores that the host gave to others."""


def stolen_seconds() -> float:
    """Give the seconds for which the host has kept cores from this machine; 0 where it does not say."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    except OSError:
        return 0.0
    return int(fields[8]) / os.sysconf("SC_CLK_TCK")


def converse(server: Cockpit, run: str, milliseconds: int, commands: int, road: str) -> Latency:
    """Steer a run that trains, at moments that have nothing to do with its steps of so many milliseconds."""
    chance, told = random.Random(0), Latency([], [], [], [], [], [], [])
    given: list[tuple[Heard, float]] = []
    client = Client(server, run, road)
    assert client.listen(time.perf_counter() + 60, lambda: len(client.stamps) >= 3), "no frames come"
    others, window = Others(), 0.02 + 2e-3 * milliseconds
    deadline = time.monotonic() + SECONDS
    for number in range(commands + 5):
        before, looked = others.look(), time.perf_counter()
        client.listen(looked + 5e-3)
        heard = client.give(number)
        # As long for a slow command as for a quick one, or more would be found around the slow ones.
        client.listen(looked + window)
        if number >= 5:  # the first ones open connections and databases
            given.append((heard, taken_between(before, others.look())))
        # The store does behind an acknowledgement what had to wait.
        client.listen(time.perf_counter() + chance.uniform(0.0, 0.02))
        told.late.append(timed(lambda: time.sleep(1e-3)) - 1)
        told.bare.append(timed(lambda: client.ask("GET", "/healthz")))
        client.listen(time.perf_counter() + chance.uniform(0.005, 0.025))
        if time.monotonic() > deadline:
            break
    client.listen(time.perf_counter() + 1)
    client.close()
    steps = client.stamps
    intervals = {number: (steps[number] - steps[number - 1]) * 1e3 for number in steps if number - 1 in steps}
    told.intervals = list(intervals.values())
    told.acks = [heard.arrived for heard, _ in given]
    known = [(heard, taken, intervals[heard.step - 1]) for heard, taken in given if heard.step - 1 in intervals]
    told.beyond = [heard.arrived - interval for heard, _, interval in known]
    told.read = [heard.read - interval for heard, _, interval in known]
    told.others = [taken for _, taken, _ in known]
    assert len(told.beyond) > 0.9 * len(given), "frames are missing"
    return told


def latency(folder: Path, milliseconds: int, commands: int, road: str = "websocket") -> Latency:
    """Start server and engine, and steer."""
    chance = random.Random(1)
    server = start(folder / f"{milliseconds}", "serve", "--port", "0")
    words = ["--data", "fashion", "--steps", "0", "--batch-size", str(batch_for(milliseconds)), "--quiet"]
    words += ["--evaluate-every", "0", "--xai-every", "0", "--lr", "1e-4", "--server", server.url]
    words += ["--logdir", str(server.logdir), "--token", server.token, "--checkpoint-every", "0", "--no-guards"]
    # That its server is gone at the end it says, rightly; here nobody needs to read it.
    complaints = folder / f"{milliseconds}.log"
    with complaints.open("w", encoding="utf-8") as log:
        engine = subprocess.Popen([sys.executable, "-m", "spiral_core.cli", "train", *words], stderr=log)
    try:
        deadline = time.monotonic() + 120
        while not server.run().get("step", 0):
            assert engine.poll() is None, complaints.read_text(encoding="utf-8")
            assert time.monotonic() < deadline
            time.sleep(0.1)
        begun, stolen = time.monotonic(), stolen_seconds()
        told = converse(server, server.run()["id"], milliseconds, commands, road)
        finish(server)
        with relays(folder / f"{milliseconds}") as relay:
            for _ in range(commands):
                told.relayed.append(timed(lambda: pass_once(relay)))
                time.sleep(chance.uniform(0.01, 0.05))
        told.stolen = 100 * (stolen_seconds() - stolen) / (time.monotonic() - begun) / (os.cpu_count() or 1)
        return told
    finally:
        engine.terminate()
        engine.wait(30)
        finish(server)


def a_record(number: int) -> CommandRecord:
    return CommandRecord(
        id=f"c{number}",
        verb="set",
        sets=[Setting(knob="optim.lr", value=3e-4)],
        actor="lab bench",
        source="api",
        run="bench",
        number=number,
        time=0.0,
        incarnation=0,
        state="accepted",
        by=None,
        step=None,
        changes=[],
        reason="",
        rev=None,
    )


def an_entry(number: int) -> Entry:
    changes = [Change(knob="optim.lr", old=1e-3, in_force=3e-4)]
    sets = [Setting(knob="optim.lr", value=3e-4)]
    return Entry(
        number=number,
        id=f"c{number}",
        step=number,
        verb="set",
        steps=1,
        sets=sets,
        changes=changes,
        rev=number,
        actor="lab bench",
        source="api",
        instead_of=[],
    )


def journals(folder: Path, commands: int) -> dict[str, list[float]]:
    """Time bare writes and both journals in turns, each command on disk before the next one begins."""
    store = SqliteStore(folder / "store")
    log = AppliedLog(folder / "applied.log")
    bare = os.open(folder / "bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    page = bytes(PAGE_BYTES)

    def write() -> None:
        os.write(bare, page)
        os.fsync(bare)

    taken: dict[str, list[float]] = {"fsync": [], "server": [], "engine": []}
    for number in range(1, commands + 6):
        for name, work in (
            ("fsync", write),
            ("server", lambda number=number: store.journal(a_record(number)).result()),
            ("engine", lambda number=number: log.append(an_entry(number))),
        ):
            spent = timed(work)
            if number > 5:
                taken[name].append(spent)
    os.close(bare)
    log.close()
    store.close()
    return taken


def said(label: str, value: float, budget: float) -> bool:
    """Print a figure beside its budget; tell whether it is kept."""
    kept = value <= budget
    print(f"{label}: {value:.2f} ms, budget {budget:.2f} ms: {'kept' if kept else 'MISSED'}")
    return kept


def report(milliseconds: int, told: Latency) -> bool:
    """Print what was measured at one length of a step; tell whether the budget is kept."""
    print(
        f"steps of about {milliseconds} ms: boundary interval p50 {quantile(told.intervals, 0.5):.2f} ms, "
        f"p99 {quantile(told.intervals, 0.99):.2f}"
    )
    for label, values in (
        ("the way of a command with nothing on it, no server", told.relayed),
        ("a request that does nothing", told.bare),
        ("a sleep of 1 ms, late by", told.late),
    ):
        print(f"  calibration: {label}: p50 {quantile(values, 0.5):.2f} ms, p99 {quantile(values, 0.99):.2f}")
    print(f"  calibration: taken away by the host: {told.stolen:.1f} % of the cores' time")
    if any(told.others):
        print(
            f"  calibration: taken by other programs and the kernel's own threads around a command: "
            f"p50 {quantile(told.others, 0.5):.2f} ms, p99 {quantile(told.others, 0.99):.2f}"
        )
    acks, beyond = told.acks, told.beyond
    alone = [late for late, taken in zip(beyond, told.others, strict=True) if taken < DISTURBED_MS]
    print(
        f"  acknowledgement of {len(acks)} commands, until it is in the client's socket: "
        f"p50 {quantile(acks, 0.5):.2f} ms, p99 {quantile(acks, 0.99):.2f}; "
        f"one median interval and {ACK_MARGIN_MS:g} ms are {quantile(told.intervals, 0.5) + ACK_MARGIN_MS:.2f}"
    )
    kept = [
        said("    beyond its own boundary interval, p50", quantile(beyond, 0.5), ACK_MARGIN_MS),
        said("    beyond its own boundary interval, p99", quantile(beyond, 0.99), ACK_MARGIN_MS),
    ]
    late = [sum(one > ACK_MARGIN_MS for one in some) for some in (beyond, alone)]
    print(f"    more than {ACK_MARGIN_MS:g} ms beyond it: {late[0]} of {len(beyond)}")
    if alone and any(told.others):
        print(
            f"    of {len(alone)} around which others took less than {DISTURBED_MS:g} ms: {late[1]}; "
            f"their p99 {quantile(alone, 0.99):.2f} ms"
        )
    late_read = sum(one > ACK_MARGIN_MS for one in told.read)
    print(
        f"    until the client had read it, beyond the same interval: p50 {quantile(told.read, 0.5):.2f} ms, "
        f"p99 {quantile(told.read, 0.99):.2f}; more than {ACK_MARGIN_MS:g} ms: {late_read}"
    )
    return all(kept)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", type=int, default=500)
    parser.add_argument("--road", choices=("websocket", "http"), default="websocket")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kept = [report(length, latency(folder, length, options.commands, options.road)) for length in STEP_MS]
        taken = journals(folder, options.commands)
    bare = quantile(taken["fsync"], 0.5)
    print(f"calibration: a bare write of 4 KiB with fsync p50 {bare:.3f} ms, p99 {quantile(taken['fsync'], 0.99):.3f}")
    for side, words in (("server", "the server's journal"), ("engine", "the engine's applied.log")):
        kept.append(said(f"  {words}, per command, p50", quantile(taken[side], 0.5), 2 * bare + JOURNAL_MARGIN_MS))
        print(f"    p99 {quantile(taken[side], 0.99):.3f} ms")
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
