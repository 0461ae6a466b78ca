"""Knobs of what is fed to an update: the size of batches, what the data set declares, and precision."""

from __future__ import annotations

from typing import get_args

from spiral_core.choices import PrecisionName
from spiral_core.data import DataKnob
from spiral_core.engine.config import MOST_IMAGES
from spiral_core.engine.knobs.row import Knob, choice, switch
from spiral_core.engine.state import RunState
from spiral_core.wire.parts import Need

PRECISION = "amp.precision"


def _write_batch_size(state: RunState, value: float) -> None:
    state.dataset.resize(int(value), state.step)
    if state.batch is not None and len(state.batch) != state.dataset.batch_size:
        # Its memory has the wrong size for the next one.
        state.batch = None


def _write_precision(state: RunState, value: PrecisionName) -> None:
    state.precision = value


def _write_scale(state: RunState, value: float) -> None:
    state.scaler.scale = value


def _of_dataset(declared: DataKnob) -> Knob:
    def write(state: RunState, value: float | bool) -> None:
        state.dataset.set(declared.name, value)

    name = f"data.{declared.name}"
    if isinstance(declared.start, bool):
        return switch(name, "data", declared.help, lambda state: bool(state.dataset.setting(declared.name)), write)
    return Knob(
        name=name,
        unit=declared.unit,
        low=declared.low,
        high=declared.high,
        step=declared.step,
        group="data",
        help=declared.help,
        read=lambda state: state.dataset.setting(declared.name),
        write=write,
    )


def knobs(state: RunState) -> list[Knob]:
    """Return the rows of this run."""
    low, high = state.scaler.limits
    return [
        Knob(
            name="data.batch_size",
            unit="images",
            scale="log",
            low=1,
            high=min(MOST_IMAGES, state.dataset.largest_batch),
            step=2,
            group="data",
            help="Images per update. A new size begins a new epoch; what is left of the old one is dropped.",
            read=lambda state: state.dataset.batch_size,
            write=_write_batch_size,
            type="int",
        ),
        *(_of_dataset(declared) for declared in state.dataset.KNOBS),
        choice(
            PRECISION,
            "precision",
            "What matrix products of training are rounded to. In float16 and bfloat16 the loss is scaled, by the scale "
            "that was in force when they were last on.",
            get_args(PrecisionName),
            lambda state: state.precision,
            _write_precision,
        ),
        Knob(
            name="amp.loss_scale",
            scale="log",
            low=low,
            high=high,
            step=2,
            group="precision",
            help=(
                "What the loss is multiplied by. An overflow halves it and 2000 good updates in a row double it; one "
                "that is set counts from there."
            ),
            read=lambda state: state.scaler.scale,
            write=_write_scale,
            needs=(Need(knob=PRECISION, holds=["float16", "bfloat16"]),),
        ),
    ]
