"""The trainer's memory is flat: a steady update allocates nothing large, and a long run holds what a short one does."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from spiral_core.data import Batch
from spiral_core.engine import step
from spiral_core.engine.config import for_data
from spiral_core.engine.state import RunState, initial_state
from spiral_core.engine.step import Evaluation, UpdateReport
from spiral_core.link.runner import Options, train

STEPS = 50

# What an update may allocate for a moment. An image batch is 196 KiB and the smallest activation is four times that.
# The needle task draws its scenes, which are many small arrays; the hyperbolic modes work with copies of one weight.
FASHION_PEAK = 64 * 1024
NEEDLE_PEAK = 256 * 1024
MODE_PEAK = 512 * 1024


def measured(update: Callable[[], object]) -> tuple[int, int]:
    """Return what `STEPS` warm updates hold more than before, and the most that they held at a time, in bytes."""
    for _ in range(5):
        update()
    tracemalloc.start()
    try:
        # Past the end of an epoch, so that its order, too, was drawn while memory is watched.
        for _ in range(35):
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


@pytest.mark.parametrize(
    ("data", "changes", "most"),
    [
        ("fashion", {}, FASHION_PEAK),
        ("fashion", {"optimizer": "adam", "clip_norm": 1.0, "auto_gain": 0.7}, FASHION_PEAK),
        ("needle", {}, NEEDLE_PEAK),
        ("fashion", {"mode": "hypergrad"}, MODE_PEAK),
        ("fashion", {"mode": "riemannian"}, MODE_PEAK),
    ],
)
def test_a_steady_update_allocates_nothing_large(data: str, changes: dict[str, object], most: int) -> None:
    state = initial_state(for_data(data, xai_every=0, **changes))
    growth, peak = measured(lambda: step.update(state))
    print(f"{data} {changes}: growth {growth} B over {STEPS} updates, peak {peak} B")
    assert growth < 4096
    assert peak < most


def test_observing_allocates_nothing_large_and_holds_nothing() -> None:
    state = initial_state(for_data("needle", xai_every=0))
    step.update(state)
    growth, peak = measured(lambda: [layer.observe(state.training) for layer in state.z_layers])
    assert growth < 4096
    assert peak < 64 * 1024


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
    assert train(config, Options(logdir=tmp_path), note).status == "finished"
    print({count: f"{size / 2**20:.1f} MiB" for count, size in resident.items()})
    assert resident[20_000] <= 1.02 * resident[2_000]
