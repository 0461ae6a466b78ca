"""Knobs of the optimizer: rate, schedule, geometry of the steps, and what is left out of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import get_args

import msgspec

from spiral_core.choices import ScheduleName
from spiral_core.engine.knobs.row import Knob, choice, switch
from spiral_core.engine.optimization import Meaning, enter_mode
from spiral_core.engine.state import RunState
from spiral_core.optim import OptimizerMode
from spiral_core.wire.parts import Need, Value

LR = "optim.lr"
MEANING = "optim.lr.under_schedule"
HELD = "optim.lr.held"
SCHEDULE = "optim.schedule"
WARMUP = "optim.schedule.warmup"
TOTAL = "optim.schedule.total"

LONG_SCHEDULE = 10**6
"""Updates of the longest schedule that can be asked for, where the run's own is not longer still."""


def _write_lr(state: RunState, value: float) -> None:
    state.rates.steer(state.step + 1, value)


def _write_held(state: RunState, value: bool) -> None:
    state.rates.hold(state.step + 1, value)


def _write_meaning(state: RunState, value: Meaning) -> None:
    state.rates.meaning = value


def _write_mode(state: RunState, value: str) -> None:
    enter_mode(state.optimizer, state.model, value, state.config.curvature)


def _write_momentum(state: RunState, value: float) -> None:
    state.optimizer.momentum = value


def _write_weight_decay(state: RunState, value: float) -> None:
    state.optimizer.weight_decay = value


def _write_clip_norm(state: RunState, value: float) -> None:
    state.clip_norm = value


_FORMULA = choice(
    SCHEDULE,
    "schedule",
    "Formula of the rates; constant is off. From the next update on it counts as if it had been in force from the "
    "first one; what steering has scaled stays scaled.",
    get_args(ScheduleName),
    lambda state: state.rates.schedule,
    lambda state, value: state.rates.follow(schedule=value),
)

_SHAPE = (
    Knob(
        name=WARMUP,
        unit="steps",
        scale="log",
        step=2,
        group="schedule",
        help="Updates, counted from the first of the run, in which the rate rises in a line.",
        read=lambda state: state.rates.warmup,
        write=lambda state, value: state.rates.follow(warmup=int(value)),
        type="int",
    ),
    Knob(
        name=TOTAL,
        unit="steps",
        scale="log",
        step=2,
        group="schedule",
        help=(
            "Update, counted from the first of the run, at which a cosine is down, or down for the first time; 0 where "
            "none is named, which constant alone can do without."
        ),
        read=lambda state: state.rates.total,
        write=lambda state, value: state.rates.follow(total=int(value)),
        type="int",
    ),
)

_MINIMUM = Knob(
    name="optim.schedule.min_lr",
    scale="log",
    high=10.0,
    step=1.1,
    group="schedule",
    help="Rate that a cosine falls to, before steering scales it; above the highest rate it is a constant one.",
    read=lambda state: state.rates.minimum,
    write=lambda state, value: state.rates.follow(minimum=value),
    needs=(Need(knob=SCHEDULE, holds=["warmup-cosine", "restart"]),),
)

_MEANING = choice(
    MEANING,
    "schedule",
    "What setting optim.lr means: base, the schedule goes on from there in proportion; hold, the rate stays until "
    "optim.lr.held is switched off.",
    get_args(Meaning),
    lambda state: state.rates.meaning,
    _write_meaning,
)


def _schedule(longest: int) -> list[Knob]:
    """Return the rows of the schedule; a slider that ends near what runs last can be aimed."""
    return [_FORMULA, *(msgspec.structs.replace(knob, high=longest) for knob in _SHAPE), _MINIMUM, _MEANING]


_RATE = (
    Knob(
        name=LR,
        scale="log",
        low=1e-6,
        high=1000.0,
        step=1.1,
        group="optimizer",
        help=(
            "Learning rate that the next update uses, in the mode in force. Under a schedule optim.lr.under_schedule "
            "says what becomes of it."
        ),
        read=lambda state: state.rates.at(state.step + 1),
        write=_write_lr,
    ),
    switch(
        HELD,
        "schedule",
        "On, the rate of the next update is held whatever the schedule says. Off releases it: the schedule goes on "
        "where it would be by now.",
        lambda state: state.rates.held is not None,
        _write_held,
    ),
)

_STEPS = (
    choice(
        "optim.mode",
        "optimizer",
        "Geometry of the steps; momentum starts from rest. Entering riemannian maps the weights, those of frozen "
        "layers too, into the ball of the curvature that the run started with; hypergrad pulls them in at each step.",
        OptimizerMode.NAMES,
        lambda state: state.optimizer.mode.name,
        _write_mode,
    ),
    Knob(
        name="optim.weight_decay",
        scale="log",
        step=1.1,
        group="optimizer",
        help="L2 penalty that is added to the gradient of weights; norms and biases do not decay.",
        read=lambda state: state.optimizer.weight_decay,
        write=_write_weight_decay,
    ),
    Knob(
        name="optim.clip_norm",
        scale="log",
        high=1000.0,
        step=1.1,
        group="optimizer",
        help="Largest norm that all gradients together may have; 0 turns clipping off.",
        read=lambda state: state.clip_norm,
        write=_write_clip_norm,
    ),
)

_MOMENTUM = Knob(
    name="optim.momentum",
    high=0.999,
    group="optimizer",
    help="Share of the last step's direction that the next one keeps.",
    read=lambda state: state.optimizer.momentum,
    write=_write_momentum,
)


def _frozen_switch(layer: str) -> Knob:
    def write(state: RunState, value: bool) -> None:
        state.frozen = state.frozen | {layer} if value else state.frozen - {layer}

    words = (
        f"On, no update moves a parameter of {layer}, in any mode: no decay, no momentum, and its gradient counts "
        "neither in the norm nor in clipping."
    )
    return switch(f"freeze.{layer}", "freeze", words, lambda state: layer in state.frozen, write)


def knobs(state: RunState) -> list[Knob]:
    """Return the rows of this run. The rate comes behind the schedule that it is set under."""
    momentum = [_MOMENTUM] if state.config.optimizer == "sgd" else []
    longest = max(LONG_SCHEDULE, 10 * state.config.schedule_length, state.config.warmup_steps)
    return [*_schedule(longest), *_RATE, *_STEPS, *momentum]


def freezing(state: RunState) -> list[Knob]:
    """Return a switch for each layer that has parameters."""
    return [_frozen_switch(layer.name) for layer in state.model.layers if layer.parameters()]


def contradiction(together: Callable[[str], Value | None], asked: Mapping[str, Value]) -> str | None:
    """Tell why rate and schedule cannot be what they would be ``together``, by name; None when they can."""
    if LR in asked and asked.get(HELD) is False and together(MEANING) == "hold":
        return f"{LR} would be held and released at once; set {MEANING} to base, or leave {HELD} out"
    if not asked.keys() & {SCHEDULE, WARMUP, TOTAL}:
        return None
    schedule, warmup, total = together(SCHEDULE), int(together(WARMUP) or 0), int(together(TOTAL) or 0)
    if schedule != "constant" and total == 0:
        return f"{SCHEDULE} {schedule} needs an end; set {TOTAL} above 0 first, or in the same command"
    if schedule != "constant" and warmup > total:
        return f"{WARMUP} = {warmup} is more than {TOTAL} = {total}; set both in one command"
    return None
