"""How many frames a second a server takes in, durably stored and acknowledged, on one core.

    python tests/benchmarks/ingest.py [--frames 100000] [--rounds 3]

A run log of frames of 30 scalars is written by the real writer and uploaded by the real courier, as `spiral sync`
does, through a real websocket to a server process that is pinned to one core; courier and kernel have the others. The
clock runs from the start of the upload until the courier has been told that the last message is on disk. Budget: 25,000
frames a second in the median round. What stands on disk afterwards is read back and compared, number by number.

As a calibration of the machine, the same run times 200 commits of SQLite with a sync each, and a loop of Python. The
frames for each second of the server's own processor time say how near to the bound of one core it is.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._runs import serving, write_run
from spiral_core.link.rundir import RunDir
from spiral_core.link.uploading import upload
from spiral_server.store.protocol import SeriesQuery
from spiral_server.store.sqlite_store import SqliteStore

BUDGET = 25_000
SCALARS = 30


def calibrate(folder: Path) -> None:
    connection = sqlite3.connect(folder / "calibration.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE t (data BLOB)")
    begun = time.perf_counter()
    for _ in range(200):
        connection.execute("INSERT INTO t VALUES (?)", (b"x" * 4096,))
    commit = (time.perf_counter() - begun) / 200
    connection.close()
    begun = time.perf_counter()
    total = 0
    for number in range(2_000_000):
        total += number
    loop = time.perf_counter() - begun
    print(f"calibration: a commit with a sync {commit * 1e3:.2f} ms; 2,000,000 additions of Python {loop * 1e3:.0f} ms")


def once(folder: Path, run: RunDir, frames: int, cores: list[int]) -> tuple[float, float]:
    """Upload a run to a fresh server; give frames for each second, and for each second of its processor time."""
    folder.mkdir()
    with serving(folder / "runs", core=cores[0]) as server:
        before = server.cpu_seconds
        begun = time.perf_counter()
        whole = asyncio.run(upload(run, server=server.url, token=server.token, listen=lambda _i, _s: None))
        seconds = time.perf_counter() - begun
        cpu = server.cpu_seconds - before
    assert whole, "the server has not taken in everything"
    return frames / seconds, frames / cpu


def check(folder: Path, run: str, values: np.ndarray) -> None:
    store = SqliteStore(folder / "runs")
    try:
        read = store.series(run, SeriesQuery(None, None, None, 2 * len(values)))
        assert not read.damage
        for index, points in read.columns.items():
            np.testing.assert_array_equal(points.values, values[:, index])
    finally:
        store.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, set(cores[1:]) or set(cores))
    values = np.random.default_rng(0).normal(size=(options.frames, SCALARS)).astype("f4").astype("f8")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        calibrate(folder)
        run = write_run(folder / "away" / "bench", values)
        rates = [once(folder / f"round-{k}", run, options.frames, cores) for k in range(options.rounds)]
        check(folder / f"round-{options.rounds - 1}", run.id, values)
    middle = statistics.median(rate for rate, _ in rates)
    every = ", ".join(f"{rate:,.0f}" for rate, _ in rates)
    print(
        f"frames of {SCALARS} scalars for each second of processor time: {statistics.median(cpu for _, cpu in rates):,.0f}"
    )
    verdict = "kept" if middle >= BUDGET else "MISSED"
    print(
        f"stored and acknowledged: {middle:,.0f} frames/s on one core (rounds: {every}); budget {BUDGET:,}: {verdict}"
    )
    return 0 if middle >= BUDGET else 1


if __name__ == "__main__":
    sys.exit(main())
