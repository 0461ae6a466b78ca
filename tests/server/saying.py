"""What an engine says, with everything filled in that a test does not care for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from spiral_core.wire.messages import (
    Ack,
    CommandRequest,
    Frame,
    HeatMaps,
    KnobsDeclared,
    KnobsMoved,
    RunStarted,
    SeriesDeclared,
    StatusChanged,
    Strip,
)
from spiral_core.wire.parts import Array, Change, KnobSpec, RunStatus, SeriesSpec, Setting

NOW = 1_700_000_000.0


def _head(seq: int, step: int, run: str, incarnation: int) -> dict[str, Any]:
    return {"run": run, "incarnation": incarnation, "seq": seq, "step": step, "time": NOW + seq}


def started(seq: int = 0, *, run: str = "r1", incarnation: int = 0, name: str = "a run") -> RunStarted:
    return RunStarted(
        **_head(seq, 0, run, incarnation),
        name=name,
        model="z_cam",
        data="needle",
        total_steps=0,
        config={"lr": 0.1},
        class_names=["a", "b"],
        layers=[],
        environment={},
    )


def declared(seq: int = 1, *, run: str = "r1", incarnation: int = 0, count: int = 2) -> SeriesDeclared:
    specs = [
        SeriesSpec(index=i, name=f"train/s{i}", unit="", group="train", scale="linear", help="") for i in range(count)
    ]
    return SeriesDeclared(**_head(seq, 0, run, incarnation), series=specs)


def knob(name: str = "optim.lr", value: float = 0.1) -> KnobSpec:
    return KnobSpec(
        name=name,
        type="float",
        unit="",
        scale="log",
        low=1e-6,
        high=1.0,
        step=1.1,
        boundary="step",
        group="optim",
        help="",
        value=value,
        since=0,
    )


def knobs(seq: int = 2, *, run: str = "r1", incarnation: int = 0) -> KnobsDeclared:
    specs = [knob(), knob("zspace.gain", 1.0)]
    return KnobsDeclared(**_head(seq, 0, run, incarnation), knobs=specs, rev=0)


def moved(seq: int, step: int, changes: list[Change], *, run: str = "r1", incarnation: int = 0) -> KnobsMoved:
    return KnobsMoved(**_head(seq, step, run, incarnation), changes=changes)


def status(seq: int, state: RunStatus, *, run: str = "r1", incarnation: int = 0, step: int = 0) -> StatusChanged:
    return StatusChanged(**_head(seq, step, run, incarnation), status=state, done=0, total=0, detail="")


def frame(seq: int, step: int, values: Sequence[float] = (1.0, 2.0), *, run: str = "r1", incarnation: int = 0) -> Frame:
    return Frame(
        **_head(seq, step, run, incarnation),
        index=Array.of(np.arange(len(values)), "<u2"),
        values=Array.of(np.array(values), "<f8"),
    )


def heat_maps(seq: int, step: int, *, level: float = 0.0, run: str = "r1", side: int = 4) -> HeatMaps:
    return HeatMaps(
        **_head(seq, step, run, 0),
        method="gradcam",
        layer="conv3",
        maps=Array.of(np.full((1, side, side), level), "<f4"),
        raw_min=[0.0],
        raw_max=[1.0],
        logit=[1.0],
        probability=[0.5],
        predicted=[0],
        labels=[0],
        pointing=None,
        energy_over_area=[float("nan")],
    )


def strip(seq: int, step: int, level: float, *, name: str = "zspace/zbn1/feature_radius") -> Strip:
    return Strip(**_head(seq, step, "r1", 0), name=name, values=Array.of(np.array([level]), "<f4"))


def ack(
    seq: int,
    number: int,
    identity: str,
    *,
    step: int = 7,
    value: float = 0.2,
    rev: int = 1,
    state: Literal["applied", "rejected", "superseded"] = "applied",
    by: int | None = None,
    run: str = "r1",
    incarnation: int = 0,
) -> Ack:
    changes = [Change(knob="optim.lr", old=0.1, in_force=value)] if state == "applied" else []
    return Ack(
        **_head(seq, step, run, incarnation),
        number=number,
        id=identity,
        verb="set",
        state=state,
        by=by,
        changes=changes,
        reason="auto-gain is on" if state == "rejected" else "",
        rev=rev,
        actor="me",
        source="ui",
    )


def asking(identity: str = "c1", value: float = 0.2, *, name: str = "optim.lr") -> CommandRequest:
    return CommandRequest(id=identity, verb="set", sets=[Setting(knob=name, value=value)], actor="me", source="ui")


def opening(run: str = "r1", incarnation: int = 0) -> list[Any]:
    """What every run says first: four messages, sequence numbers 0 to 3."""
    which: dict[str, Any] = {"run": run, "incarnation": incarnation}
    return [started(**which), declared(**which), knobs(**which), status(3, "training", **which)]
