"""The trainer's memory is flat: a steady update allocates nothing large, and a long run holds what a short one does."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import psutil
import pytest

from spiral_core import nn
from spiral_core.data import DATASETS, Batch, image_shape, open_dataset
from spiral_core.engine import step
from spiral_core.engine.config import ModeName, OptimizerName, for_data
from spiral_core.engine.state import RunState, initial_state
from spiral_core.engine.step import Evaluation, UpdateReport
from spiral_core.link.runner import Options, train
from spiral_core.nn.observation import QUANTILE_SAMPLE

STEPS = 8
WARM = 18
"""Updates until what is remembered of the last rates has its full size."""

MOST = 16 * 1024
"""Bytes that an update may allocate for a moment. It is what Python itself needs for numbers, views and reports, some
8 KiB, and a few arrays of one number for each of 64 images. The smallest array that would be too much is a gradient of
a head of ten classes, or the buffer of 32 KiB that NumPy takes wherever it spreads a row over a matrix."""

OBSERVED = 3 * QUANTILE_SAMPLE * np.dtype(np.float32).itemsize
"""Of an observation, which most updates go without: a sample of a layer's elements, their sizes, and the next one."""

SCALED = {"precision": "float16", "auto_gain": 0.7, "clip_norm": 0.5}
"""Everything at once that an update can do besides the usual."""

OPTIMIZERS, MODES = get_args(OptimizerName), get_args(ModeName)
CASES: list[tuple[str, dict[str, object]]] = [
    (data, {"model": model, **more})
    for data in DATASETS
    for model in nn.models.MODELS
    if nn.models.misfit(model, image_shape(data)[:2]) is None
    for more in ({}, SCALED)
]
CASES += [
    ("fashion", {"optimizer": optimizer, "mode": mode, **more})
    for optimizer in OPTIMIZERS
    for mode in MODES
    for more in ({}, SCALED)
]
CASES += [("fashion", {"schedule": "constant", "precision": "bfloat16"})]


def measured(update: Callable[[], object], warm: int = WARM) -> tuple[int, int]:
    """Return what `STEPS` warm updates hold more than before, and the most that they held at a time, in bytes."""
    for _ in range(2):
        update()
    tracemalloc.start()
    try:
        for _ in range(warm):
            update()
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in range(STEPS):
            update()
        _, peak = tracemalloc.get_traced_memory()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return after - held, peak - held


def named(case: object) -> str:
    return " ".join(map(str, case.values())) if isinstance(case, dict) else str(case)


def update_of(data: str, changes: dict[str, object]) -> Callable[[], object]:
    state = initial_state(for_data(data, xai_every=0, steps=1000, **changes))
    # The last of the measured updates begin another epoch, whose order is drawn while memory is watched.
    state.step = max(0, state.dataset.report_batches - WARM - STEPS // 2)
    return lambda: step.update(state)


def changed_batches(data: str, knob: str, value: float | bool) -> Callable[[], object]:
    dataset = open_dataset(data, seed=0, batch_size=64)
    dataset.set(knob, value)
    batches = iter(range(100))
    shared = dataset.train_batch(next(batches))
    return lambda: dataset.train_batch(next(batches), shared)


def observing() -> Callable[[], object]:
    state = initial_state(for_data("needle", xai_every=0))
    step.update(state)
    return lambda: [layer.observe(state.training) for layer in state.z_layers]


WORK: dict[str, Callable[[], Callable[[], object]]] = {
    **{f"{data} {named(changes)}": partial(update_of, data, changes) for data, changes in CASES},
    "batches of needle with a shortcut": partial(changed_batches, "needle", "shortcut", 0.5),
    "batches of fashion, augmented": partial(changed_batches, "fashion", "augmented", True),
    "observing": observing,
}
"""What is measured: each entry makes ready, and gives what is then done again and again."""


@pytest.fixture(scope="module")
def allocated() -> dict[str, tuple[int, int]]:
    """Growth and peak of each work, measured in a process where nothing else allocates meanwhile."""
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {name: tuple(found) for name, found in json.loads(done.stdout).items()}


@pytest.mark.parametrize("name", WORK)
def test_steady_work_allocates_small_things_only(name: str, allocated: dict[str, tuple[int, int]]) -> None:
    growth, peak = allocated[name]
    print(f"growth {growth} B over {STEPS} times, peak {peak} B")
    # Python's and the C interface's own caches fill up for a while; an array of a batch held by each update is more.
    assert growth < MOST
    assert peak < (OBSERVED if name == "observing" else MOST)


@pytest.mark.parametrize("data", ["needle", "fashion"])
def test_batches_take_over_each_others_memory_and_keep_their_bits(data: str) -> None:
    state = initial_state(for_data(data, batch_size=16))
    apart = [state.dataset.train_batch(index) for index in range(4)]
    shared: Batch | None = None
    for index, alone in enumerate(apart):
        again = state.dataset.train_batch(index, shared)
        assert shared is None or again.images is shared.images
        np.testing.assert_array_equal(again.images, alone.images)
        np.testing.assert_array_equal(again.labels, alone.labels)
        if alone.masks is not None:
            np.testing.assert_array_equal(again.masks, alone.masks)
        shared = again


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_resident_memory_after_twenty_thousand_steps_is_that_after_two_thousand(tmp_path: Path) -> None:
    """Through the real runner, with log, telemetry at every step, probes and evaluations; within 2 %."""
    process, resident = psutil.Process(), {}

    def note(_state: RunState, report: UpdateReport, _evaluation: Evaluation | None) -> None:
        if report.step in (2_000, 20_000):
            gc.collect()
            resident[report.step] = process.memory_info().rss

    config = for_data(
        "fashion", batch_size=4, steps=20_000, evaluate_every=500, xai_every=50, telemetry_budget=100.0, lr=1e-3
    )
    done = train(config, Options(logdir=tmp_path), note)
    assert (done.status, done.detail) == ("finished", ""), "no guard takes a healthy run for a sick one"
    print({count: f"{size / 2**20:.1f} MiB" for count, size in resident.items()})
    assert resident[20_000] <= 1.02 * resident[2_000]


if __name__ == "__main__":
    print(json.dumps({name: measured(ready()) for name, ready in WORK.items()}))
