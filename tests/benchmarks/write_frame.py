"""What writing a frame costs the training loop.

    python tests/benchmarks/write_frame.py [--frames 50000]

Writes frames of 30 scalars into a run log as the recorder does, with a courier's doorbell rung as for frames, and
times each append: from the numbers to the return of the system call. Budget: 20 us at the 99th percentile, in the
median of three rounds. As a calibration of the machine, the same run times a bare ``os.write`` of as many bytes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from spiral_core.link.doorbell import BellPush
from spiral_core.link.runlog import RunLogWriter
from spiral_core.wire.messages import Frame
from spiral_core.wire.parts import Array

BUDGET = 20e-6
SCALARS = 30
ROUNDS = 3


def quantile(seconds: list[float], share: float) -> float:
    return float(np.quantile(seconds, share))


def bare(path: Path, count: int) -> list[float]:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    data = b"x" * 440
    found = []
    for _ in range(count):
        begun = time.perf_counter()
        os.write(file, data)
        found.append(time.perf_counter() - begun)
    os.close(file)
    return found


def measured(path: Path, values: np.ndarray) -> list[float]:
    log = RunLogWriter(path, run="20260101-120000-bench-ab12", incarnation=0, clock=time.time, part_bytes=250_000_000)
    reading, writing = os.pipe()
    os.set_blocking(reading, False)

    log.on_append = BellPush(writing).ring
    index = Array.of(np.arange(SCALARS), "<u2")
    found = []
    for step, row in enumerate(values):
        begun = time.perf_counter()
        log.append(Frame, step, index=index, values=Array.of(row, "<f8"))
        found.append(time.perf_counter() - begun)
        if step % 1000 == 0:
            with suppress(BlockingIOError):
                os.read(reading, 1 << 16)
    log.close()
    os.close(reading)
    os.close(writing)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=50_000)
    options = parser.parse_args()
    values = np.random.default_rng(0).normal(size=(options.frames, SCALARS))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain = bare(folder / "bare", options.frames)
        rounds = [measured(folder / f"frames-{k:03d}.log", values) for k in range(ROUNDS)]
    print(
        f"calibration: a bare write p50 {quantile(plain, 0.5) * 1e6:.1f} us, p99 {quantile(plain, 0.99) * 1e6:.1f} us"
    )
    middle = sorted(rounds, key=lambda found: quantile(found, 0.99))[ROUNDS // 2]
    p50, p99 = quantile(middle, 0.5), quantile(middle, 0.99)
    verdict = "kept" if p99 <= BUDGET else "MISSED"
    print(
        f"writing a frame of {SCALARS} scalars: p50 {p50 * 1e6:.1f} us, p99 {p99 * 1e6:.1f} us; "
        f"budget p99 {BUDGET * 1e6:.0f} us: {verdict}"
    )
    return 0 if p99 <= BUDGET else 1


if __name__ == "__main__":
    sys.exit(main())
