"""Paired timing: two or more ways to do the same work, in turns, in one process.

One *pair* is a block of ours next to a block of the peer's. A block is a short sleep, one step that is not timed, and a
few that are; its time is their mean. Who comes first changes from round to round, so that neither side always finds
the machine as the other left it. A ratio is the median over the pairs, and is printed with its quartiles.

The sleep keeps the two thread pools apart. An idle worker of PyTorch's spins for about 5 ms before it sleeps, and would
take a core from whoever comes next. Telling it not to spin (``OMP_WAIT_POLICY=PASSIVE``) would be simpler and unfair:
on two cores it made PyTorch's step a third slower. Spiral's workers look for work for 1 ms, then sleep. The step that
is not timed wakes the workers again and brings data and code back into the caches, for both sides alike.

A machine that does something else meanwhile slows PyTorch down more than Spiral, because spinning threads and busy
cores do not go together. So each script prints how much of the cores others have used, and warns where it was much.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from spiral_core import kernels

REST = 0.015
"""Seconds of sleep before a block: three times as long as an idle worker of PyTorch's spins."""

LEAST_PAIRS = 30

QUIET = 5.0
"""Percent of the cores that others may use before the figures are called doubtful."""

FREE = 90.0
"""Percent of its speed alone that each thread keeps on a machine that is not busy."""


@dataclass(frozen=True)
class Side:
    """One way to do the work; ``run`` does one step of it."""

    name: str
    run: Callable[[], object]


def fastest(taken: dict[str, list[float]], names: Sequence[str]) -> str:
    """Return the name of the side with the least median."""
    return min(names, key=lambda name: statistics.median(taken[name]))


@dataclass
class Ledger:
    """Prints the ratios of one script, remembers those that were missed, and tells what the machine did meanwhile."""

    pairs: int
    threads: int
    missed: list[str] = field(default_factory=list)
    spent: list[tuple[float, float, float]] = field(default_factory=list)
    """Wall time, everyone's processor time and our own, of each stretch of timing."""

    def in_turns(self, sides: Sequence[Side], steps: int) -> dict[str, list[float]]:
        """Return for each side the milliseconds per step of each of its blocks; blocks of one index are neighbors."""
        taken: dict[str, list[float]] = {side.name: [] for side in sides}
        before = _clocks()
        for number in range(self.pairs + 1):
            first = number % len(sides)
            for side in (*sides[first:], *sides[:first]):
                time.sleep(REST)
                side.run()
                begun = time.perf_counter()
                for _ in range(steps):
                    side.run()
                if number:  # the first round warms up
                    taken[side.name].append((time.perf_counter() - begun) / steps * 1e3)
        wall, everyone, own = (b - a for a, b in zip(before, _clocks(), strict=True))
        self.spent.append((wall, everyone, own))
        return taken

    def open(self, subject: str) -> None:
        """Print what is measured and the calibration of the machine."""
        print(f"{subject}; {self.pairs} pairs, {self.threads} threads each")
        print(
            f"torch {torch.__version__}, numpy {np.__version__}, Python {platform.python_version()}, "
            f"{os.cpu_count()} cores; a fixed loop of plain NumPy: {calibration():.2f} ms"
        )
        self._print_concurrency()

    def _print_concurrency(self) -> None:
        kept = concurrency(self.threads)
        doubt = "; the cores are not all ours, so these figures do not count" if kept < FREE else ""
        print(f"{self.threads} threads side by side: each has {kept:.0f} % of its speed alone{doubt}")

    def heading(self) -> None:
        """Print the titles of the columns."""
        print(f"{'ours / peer':58}{'ours':>11}{'peer':>11}{'ratio':>8}{'quartiles':>15}{'budget':>8}")

    def compare(self, label: str, ours: Sequence[float], peer: Sequence[float], budget: float | None = None) -> None:
        """Print the median ratio of the pairs; without a budget it is for information."""
        low, ratio, high = statistics.quantiles([a / b for a, b in zip(ours, peer, strict=True)], n=4)
        over = budget is not None and ratio > budget
        asked = "-" if budget is None else f"{budget:.3f}"
        verdict = "" if budget is None else "  MISSED" if over else "  kept"
        spread = f"{low:.3f}..{high:.3f}"
        print(
            f"{label:58}{statistics.median(ours):8.3f} ms{statistics.median(peer):8.3f} ms{ratio:8.3f}{spread:>15}"
            f"{asked:>8}{verdict}"
        )
        if over:
            self.missed.append(f"{label}: {ratio:.3f}, budget {asked}")

    def require(self, label: str, percent: float, least: float) -> None:
        """Print a percentage that must be at least so high."""
        over = percent < least
        print(f"{label}: {percent:.0f} %, at least {least:g} %  {'MISSED' if over else 'kept'}")
        if over:
            self.missed.append(f"{label}: {percent:.0f} %, at least {least:g} %")

    def close(self) -> int:
        """Print how busy others were, and return the exit status."""
        wall, everyone, own = (sum(column) for column in zip(*self.spent, strict=True))
        others = 100 * max(0.0, everyone - own) / (wall * (os.cpu_count() or 1))
        doubt = "; too much for these figures to count" if others > QUIET else ""
        print(f"other processes used {others:.1f} % of the cores meanwhile{doubt}")
        self._print_concurrency()
        return 1 if self.missed else 0


def _clocks() -> tuple[float, float, float]:
    """Return wall time, processor time of everyone, and that of this process and its children, in seconds."""
    own = sum(os.times()[:4])
    try:
        words = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
    except OSError:  # elsewhere than on Linux nobody tells
        return time.perf_counter(), own, own
    user, nice, system, _idle, _wait, irq, softirq, steal = (int(word) for word in words)
    return time.perf_counter(), (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK"), own


def calibration() -> float:
    """Return the milliseconds of a fixed loop on one thread, with which figures of two machines can be compared."""
    values = np.linspace(-3, 3, 1 << 18, dtype=np.float32)
    times = []
    for _ in range(15):
        begun = time.perf_counter()
        for _ in range(4):
            np.tanh(values).sum()
        times.append((time.perf_counter() - begun) * 1e3)
    return statistics.median(times)


def concurrency(threads: int) -> float:
    """Return the percent of its speed alone that a loop keeps while one runs on each thread.

    Far below 100, the machine has fewer cores free than it claims, which a guest of a busy host is not told otherwise.
    """
    values = np.linspace(-3, 3, 1 << 18, dtype=np.float32)

    def loop(target: np.ndarray) -> None:
        for _ in range(20):
            np.tanh(values, out=target)

    def once(count: int) -> float:
        workers = [threading.Thread(target=loop, args=(np.empty_like(values),)) for _ in range(count)]
        begun = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return time.perf_counter() - begun

    times = [(once(1), once(threads)) for _ in range(15)]
    return 100 * statistics.median(alone / together for alone, together in times)


def options(document: str, steps: int) -> argparse.Namespace:
    """Read the command line and set the threads of both sides."""
    parser = argparse.ArgumentParser(description=document.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=40, help=f"paired blocks, at least {LEAST_PAIRS} (default 40)")
    parser.add_argument("--steps", type=int, default=steps, help=f"timed steps in a block (default {steps})")
    parser.add_argument("--threads", type=int, default=2, help="threads of each side (default 2)")
    chosen = parser.parse_args()
    chosen.pairs = max(LEAST_PAIRS, chosen.pairs)
    kernels.set_num_threads(chosen.threads)
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    return chosen


def require_agreement(what: str, ours: np.ndarray, peer: np.ndarray, tolerance: float = 1e-3) -> None:
    """End the script unless both sides compute the same, relative to the largest element."""
    off = float(np.abs(ours - peer).max() / np.abs(peer).max())
    if not off <= tolerance:
        sys.exit(f"{what}: ours and the peer's differ by {off:.1e}, so that their times mean nothing")
