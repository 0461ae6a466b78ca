"""What telemetry costs: the share of a training step that observing takes, with the trainer's own loop.

    python tests/benchmarks/telemetry.py [--pairs 60] [--percent 2]

For `z_cnn` and `z_cam`, on one and on two threads: pairs of equal stretches of the trainer's loop, one with telemetry
at its default budget and one with it off, next to each other in time and in turns. Both write their frames; the ratio
is what the default adds. Prints the median of the paired ratios with their spread, and how many steps were observed.
Exits with 1 when a median exceeds the budget.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from spiral_core import kernels
from spiral_core.engine import step
from spiral_core.engine.config import TELEMETRY_PERCENT, for_data
from spiral_core.engine.state import RunState, initial_state
from spiral_core.link.recorder import Recorder
from spiral_core.link.runlog import RunLogWriter
from spiral_core.telemetry.budget import ObservationBudget

STRETCH = 20
"""Steps timed at a time: enough that each stretch has its share of the observations, few enough that the machine stays
as it is."""


class Loop:
    """The part of the trainer's loop that telemetry lengthens."""

    def __init__(self, state: RunState, folder: Path) -> None:
        log = RunLogWriter(folder / "frames.log", run="r", incarnation=0, clock=time.time)
        self.state = state
        self.recorder = Recorder(log, state)
        self.recorder.started("benchmark", {})
        self.budget = ObservationBudget(TELEMETRY_PERCENT)
        self.observed = 0

    def run(self, *, watched: bool) -> float:
        """Do a stretch of steps; give the seconds that one took."""
        begun = time.perf_counter()
        for _ in range(STRETCH):
            at = time.perf_counter()
            report = step.update(self.state)
            seconds = time.perf_counter() - at
            observations = {}
            if watched:
                self.budget.earn(seconds)
            if watched and self.budget.allows():
                at = time.perf_counter()
                observations = {layer.name: layer.observe(self.state.training) for layer in self.state.z_layers}
                self.recorder.frame(report, seconds, observations, None, None)
                self.budget.spend(time.perf_counter() - at)
                self.observed += 1
            else:
                self.recorder.frame(report, seconds, observations, None, None)
        return (time.perf_counter() - begun) / STRETCH


def paired(loop: Loop, pairs: int) -> Iterator[tuple[float, float]]:
    """Give (with, without) in seconds per step; which comes first changes from pair to pair."""
    for first in itertools.islice(itertools.cycle((True, False)), pairs):
        taken = {watched: loop.run(watched=watched) for watched in (first, not first)}
        yield taken[True], taken[False]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=60, help="paired stretches for each model and thread count")
    parser.add_argument("--percent", type=float, default=2.0, help="most that telemetry may add to a step")
    options = parser.parse_args()
    missed = 0
    print(
        f"telemetry at its default, {TELEMETRY_PERCENT:g} % of the time; {options.pairs} pairs of {STRETCH} steps each"
    )
    print(f"{'model':8}{'threads':>8}{'off':>10}{'on':>10}{'added':>9}{'quartiles':>18}{'observed':>10}")
    for data, threads in itertools.product(("fashion", "needle"), (1, 2)):
        kernels.set_num_threads(threads)
        with tempfile.TemporaryDirectory() as folder:
            loop = Loop(initial_state(for_data(data)), Path(folder))
            for watched in (True, False):
                loop.run(watched=watched)
            loop.observed = 0
            timed = list(paired(loop, max(30, options.pairs)))
        added = sorted(100 * (on / off - 1) for on, off in timed)
        low, middle, high = statistics.quantiles(added, n=4)
        off, on = (statistics.median(column) * 1e3 for column in zip(*[(b, a) for a, b in timed], strict=True))
        share = 100 * loop.observed / (STRETCH * len(timed))
        over = middle > options.percent
        missed += over
        print(
            f"{loop.state.config.model:8}{threads:8d}{off:7.2f} ms{on:7.2f} ms{middle:+7.2f} %"
            f"{f'{low:+.2f}..{high:+.2f} %':>18}{share:8.0f} %{'  MISSED' if over else ''}"
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
