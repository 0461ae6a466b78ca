"""A state that went through a checkpoint goes on to the very same bits."""

from __future__ import annotations

import dataclasses
import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine_runs import command, digest
from spiral_core.engine import controls, knobs
from spiral_core.engine.checkpoint import capture, restore
from spiral_core.engine.config import RunConfig, for_data
from spiral_core.engine.state import RunState, initial_state
from spiral_core.engine.step import UpdateReport, update
from spiral_core.errors import CheckpointError, StateError

MEMORY = {
    ("RunState", "batch"),
    ("RunState", "z_layers"),
    ("GuardState", "_watched"),
    ("RunState", "training"),
    ("RunState", "watching"),
    ("Parameter", "grad"),
    *(("Module", name) for name in ("_default", "_plans", "_last_shapes")),
    *(("ZSpaceOptimizer", name) for name in ("frozen", "_rooms", "_together")),
    *(("Dataset", name) for name in ("_epoch", "_order", "_taken", "_moved", "_room", "_scratch", "_held_out")),
}
"""Attributes that the next pass writes over or makes anew, by the class that they belong to or a base of it."""


def remembered(owner: object, name: str) -> bool:
    """Tell whether an attribute must come through a checkpoint."""
    kinds = {kind.__name__ for kind in type(owner).__mro__}
    kinds |= {"Dataset"} if any(kind.endswith("Dataset") for kind in kinds) else set()
    return not any((kind, name) in MEMORY for kind in kinds)


def attributes(value: object) -> dict[str, object]:
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    held = {name: getattr(value, name) for name in slots if hasattr(value, name)} | getattr(value, "__dict__", {})
    return {name: one for name, one in held.items() if remembered(value, name)}


def differences(one: Any, other: Any, path: str, seen: set[int]) -> list[str]:
    """Walk two states side by side; name every place where they differ in a bit."""
    if type(one) is not type(other):
        return [f"{path}: {type(one).__name__} is not {type(other).__name__}"]
    if isinstance(one, np.ndarray):
        same = (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
        return [] if same else [path]
    if isinstance(one, float):
        return [] if struct.pack("d", one) == struct.pack("d", other) else [f"{path}: {one!r} is not {other!r}"]
    if isinstance(one, (int, str, bytes, type(None), np.dtype, type, RunConfig, frozenset)) or callable(one):
        return [] if callable(one) or one == other else [f"{path}: {one!r} is not {other!r}"]
    if id(one) in seen:
        return []
    seen.add(id(one))
    if isinstance(one, (list, tuple)):
        one, other = dict(enumerate(one)), dict(enumerate(other))
    if not isinstance(one, dict):
        one, other = attributes(one), attributes(other)
    if one.keys() != other.keys():
        return [f"{path}: {sorted(map(str, one))} is not {sorted(map(str, other))}"]
    return [line for key in one for line in differences(one[key], other[key], f"{path}.{key}", seen)]


def through_json(state: RunState) -> RunState:
    """Take a state through a checkpoint, its metadata through JSON as on disk."""
    arrays, metadata = capture(state)
    return restore(state.config, arrays, json.loads(json.dumps(metadata)))


def value_for(knob: knobs.Knob, now: Any) -> Any:
    """Give a value that a knob does not hold."""
    if knob.type == "bool":
        return not now
    if knob.type == "choice":
        return next(one for one in reversed(knob.choices) if one != now)
    low, high = max(knob.low, -2.0), min(knob.high, 0.5 if knob.type == "float" else 12)
    value = next(one for share in (0.25, 0.3) if (one := low + (high - low) * share) != now)
    return round(value) + 1 if knob.type == "int" else value


def steered(state: RunState) -> None:
    """Move every knob of the run away from where it stands, as far as they go together."""
    moved = set()
    for name, knob in knobs.table(state).items():
        if name.startswith("freeze.") and state.frozen:
            continue
        outcome = controls.apply(state, command(**{name.replace(".", "__"): value_for(knob, knob.read(state))}))
        moved |= {name} if outcome.state == "applied" else set()
    assert len(moved) > 0.6 * len([name for name in knobs.table(state) if not name.startswith("freeze.")])
    assert {"optim.lr", "optim.mode", "zspace.curvature", "zspace.auto_gain", "optim.clip_norm"} <= moved


def numbers(report: UpdateReport) -> tuple[object, ...]:
    return tuple(
        struct.pack("d", value) if isinstance(value, float) else repr(value)
        for value in dataclasses.astuple(dataclasses.replace(report, adaptations={}))
    )


CONFIGS = {
    "sgd with a schedule": ("fashion", {}),
    "adam": ("needle", {}),
    "riemannian adam with auto-gain": ("needle", {"mode": "riemannian", "auto_gain": 0.6}),
    "hypergrad with momentum": ("fashion", {"mode": "hypergrad"}),
    "realgrad in float16": ("digits", {"mode": "realgrad", "precision": "float16"}),
    "lstm in bfloat16": ("motif", {"precision": "bfloat16", "clip_norm": 1.0}),
    "planned": ("digits", {"steering": [{"step": 3, "sets": [{"knob": "optim.lr", "value": 0.1}]}]}),
    "restarts": ("digits", {"schedule": "restart", "schedule_steps": 5, "steps": 40}),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("moved", [False, True], ids=["left alone", "every knob moved"])
def test_nothing_that_a_state_holds_is_lost_or_changed(name: str, moved: bool) -> None:
    """Whatever attribute is new in a state, a layer or an optimizer must come through, or be named as memory above."""
    data, changes = CONFIGS[name]
    state = initial_state(for_data(data, batch_size=8, **changes))
    for _ in range(3):
        update(state)
    if moved:
        steered(state)
        update(state)
    before = digest(state)
    again = through_json(state)
    assert differences(state, again, "state", set()) == []
    for _ in range(7):
        one, other = update(state), update(again)
        assert numbers(one) == numbers(other)
    assert differences(state, again, "state", set()) == []
    assert digest(state) != before


def test_the_comparison_sees_a_single_bit_anywhere() -> None:
    state = initial_state(for_data("fashion", batch_size=8))
    update(state)
    for spoil in (
        lambda one: one.model.parameters()[2].value.reshape(-1).view(np.uint8).__setitem__(5, 9),
        lambda one: next(iter(one.optimizer.slots().values())).reshape(-1).__setitem__(0, 1e-30),
        lambda one: setattr(one.z_layers[1], "_gain", 0.2 + 1e-16 * 4),
        lambda one: setattr(one.rates, "asked", 1e-300),
        lambda one: one.since.__setitem__("optim.lr", 2),
        lambda one: setattr(one.optimizer, "weight_decay", 0.25),
    ):
        again = through_json(state)
        spoil(again)
        assert len(differences(state, again, "state", set())) == 1


@st.composite
def configurations(draw: st.DrawFn) -> RunConfig:
    data = draw(st.sampled_from(["needle", "fashion", "digits", "motif"]))
    models = {"needle": ["z_cam", "z_cnn"], "fashion": ["z_cam", "z_cnn", "z_mlp"], "digits": ["z_mlp", "z_lstm"]}
    changes: dict[str, Any] = {
        "model": draw(st.sampled_from(models.get(data, ["z_lstm", "z_mlp"]))),
        "optimizer": draw(st.sampled_from(["adam", "sgd"])),
        "mode": draw(st.sampled_from(["euclidean", "realgrad", "hypergrad", "riemannian"])),
        "precision": draw(st.sampled_from(["float32", "float16", "bfloat16"])),
        "auto_gain": draw(st.sampled_from([0.0, 0.55, 0.75])),
        "clip_norm": draw(st.sampled_from([0.0, 0.5])),
        "momentum": draw(st.sampled_from([0.0, 0.9])),
        "schedule": draw(st.sampled_from(["constant", "warmup-cosine", "restart"])),
        "batch_size": draw(st.integers(2, 9)),
        "seed": draw(st.integers(0, 2**40)),
        "curvature": draw(st.floats(-4.0, -0.1)),
        "lr": draw(st.sampled_from([1e-3, 0.05, 2.0])),
        "xai_every": 0,
    }
    if changes["schedule"] != "constant":
        changes |= {"steps": 12, "warmup_steps": 3}
    return for_data(data, **changes)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(configurations(), st.integers(0, 4), st.data())
def test_any_run_goes_on_as_if_it_had_never_stopped(config: RunConfig, steps: int, data: st.DataObject) -> None:
    state = initial_state(config)
    for _ in range(steps):
        update(state)
    for name in data.draw(st.lists(st.sampled_from(sorted(knobs.table(state))), max_size=4)):
        knob = knobs.table(state)[name]
        value: Any = (
            data.draw(st.sampled_from(knob.choices or (False, True)))
            if knob.type in ("choice", "bool")
            else data.draw(
                st.floats(max(knob.low, -3.0), min(knob.high, max(knob.low + 0.5, 12.0 if knob.type == "int" else 0.5)))
            )
        )
        value = round(value) if knob.type == "int" else value
        controls.apply(state, command(**{name.replace(".", "__"): value}))
    try:
        again = through_json(state)
    except StateError:
        held = [*state.model.state_dict().values(), *state.optimizer.state_dict().values()]
        assert not all(np.isfinite(value).all() for value in held)
        return
    for _ in range(7):
        assert numbers(update(state)) == numbers(update(again))
    assert differences(state, again, "state", set()) == []


def test_a_state_that_nothing_can_go_on_from_is_not_kept() -> None:
    state = initial_state(for_data("digits", batch_size=8))
    state.model.parameters()[0].value[0, 0] = np.inf
    with pytest.raises(StateError, match=r"fc1\.weight has a value that is not finite"):
        capture(state)


def test_another_configuration_is_refused_and_the_field_is_named() -> None:
    arrays, metadata = capture(initial_state(for_data("digits", batch_size=8)))
    with pytest.raises(CheckpointError, match=r"batch_size differ from config\.json"):
        restore(for_data("digits", batch_size=9), arrays, metadata)


@pytest.mark.parametrize("wrong", ["format", "array", "shape", "value", "field"])
def test_what_does_not_fit_is_refused_with_the_place(wrong: str) -> None:
    config = for_data("digits", batch_size=8)
    arrays, metadata = capture(initial_state(config))
    said = {"format": "reads 1", "array": "fc1.bias", "shape": "fc1.bias", "value": "rev", "field": "clip_norm"}
    match wrong:
        case "format":
            metadata["format"] = 2
        case "array":
            del arrays["model/fc1.bias"]
        case "shape":
            arrays["model/fc1.bias"] = arrays["model/fc1.bias"][:3]
        case "value":
            metadata["values"]["rev"] = "many"
        case "field":
            del metadata["values"]["clip_norm"]
    with pytest.raises(CheckpointError) as caught:
        restore(config, arrays, metadata)
    if wrong != "value":
        assert said[wrong] in str(caught.value)
