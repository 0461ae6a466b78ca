"""Knobs of the run itself: its pace, what it shows, and what it costs to watch. None changes what an update does."""

from __future__ import annotations

from spiral_core import nn
from spiral_core.engine.config import MOST_STEPS
from spiral_core.engine.knobs.row import Knob, choice
from spiral_core.engine.state import RunState


def _write_xai_every(state: RunState, value: float) -> None:
    state.xai_every = int(value)


def _write_xai_layer(state: RunState, value: str) -> None:
    state.xai_layer = value


def _write_steps(state: RunState, value: float) -> None:
    state.total_steps = int(value)
    if state.over:
        state.phase = "finished"


def _write_rate(state: RunState, value: float) -> None:
    state.rate = value


def _write_telemetry_budget(state: RunState, value: float) -> None:
    state.telemetry_budget = value


_XAI_EVERY = Knob(
    name="xai.every",
    unit="steps",
    high=1000,
    step=1,
    group="xai",
    help="Steps between Grad-CAM probes; 0 turns them off.",
    read=lambda state: state.xai_every,
    write=_write_xai_every,
    type="int",
)


def knobs(state: RunState) -> list[Knob]:
    """Return the rows of this run; without feature maps there is nothing to probe."""
    rows = []
    layers = tuple(nn.models.cam_targets(state.model)) if state.xai_layer is not None else ()
    if layers:
        rows.append(_XAI_EVERY)
    if len(layers) > 1:
        words = "Layer whose output Grad-CAM looks at; earlier ones have finer maps of simpler features."
        rows.append(choice("xai.layer", "xai", words, layers, lambda state: state.xai_layer, _write_xai_layer))
    return [*rows, *_FIXED]


_FIXED = (
    Knob(
        name="run.steps",
        unit="steps",
        scale="log",
        high=MOST_STEPS,
        step=1.1,
        group="run",
        help=(
            "Updates of the whole run; 0 means until stopped. At or below those that are done, the run is over. A "
            "schedule of rates keeps its length."
        ),
        read=lambda state: state.total_steps,
        write=_write_steps,
        type="int",
    ),
    Knob(
        name="run.rate",
        unit="steps/s",
        high=1000.0,
        step=1.0,
        group="run",
        help="Most steps per second; 0 means no limit. Does not change the numbers of the run.",
        read=lambda state: state.rate,
        write=_write_rate,
    ),
    Knob(
        name="telemetry.budget",
        unit="%",
        high=100.0,
        step=0.5,
        group="run",
        help=(
            "Share of a step's time that observing the Z-space layers may take; 0 turns it off, 100 observes every "
            "step. Does not change the numbers of the run."
        ),
        read=lambda state: state.telemetry_budget,
        write=_write_telemetry_budget,
    ),
)
