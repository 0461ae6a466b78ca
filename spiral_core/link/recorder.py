"""What a run says, in the words of the wire: turns reports of the engine into messages of the run log."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from spiral_core.arrays import AnyArray
from spiral_core.engine import knobs
from spiral_core.engine.controls import Outcome
from spiral_core.engine.state import RunState
from spiral_core.engine.step import Evaluation, Probe, UpdateReport
from spiral_core.nn import ZSpaceObservation
from spiral_core.telemetry import catalog, values
from spiral_core.wire.messages import (
    Ack,
    CheckpointReason,
    CheckpointSaved,
    Command,
    Frame,
    GuardsDeclared,
    HeatMaps,
    KnobsDeclared,
    KnobsMoved,
    Logged,
    ProbeBatch,
    RunStarted,
    SeriesDeclared,
    StatusChanged,
    Strip,
)
from spiral_core.wire.parts import Array, Change, GuardSpec, RunStatus, Value, ZLayer

STRIP_SECONDS = 0.1
"""Strips of radii are looked at, not analyzed: ten a second are enough for the eye."""

MOVED_SECONDS = 0.5
"""A schedule moves the rate at every step, and its curve shows each of them; the knob beside it need not."""

PACE_SECONDS = 1.0
"""Steps per second are counted over this long."""


class Log(Protocol):
    """Where messages are written: a run log, or one that copes with a full disk."""

    def append(self, kind: type[Logged], step: int, **fields: object) -> object:
        """Write a message."""


class Recorder:
    """Writes what happens in a run into its log.

    Parameters
    ----------
    log : Log
    state : RunState
        Read, never changed.
    earlier : sequence of Ack, optional
        Answers of earlier incarnations of the run, to be said again at its start (see `answered`).
    """

    def __init__(self, log: Log, state: RunState, earlier: Sequence[Ack] = ()) -> None:
        self._log = log
        self._earlier = earlier
        self._state = state
        self._mapped = state.xai_layer is not None
        layers = [layer.name for layer in state.z_layers]
        specs = catalog.declare(layers, mapped=self._mapped, masked=state.probe.masks is not None)
        self._series = {spec.name: spec for spec in specs}
        self._strips_at = -STRIP_SECONDS
        self._pace: list[float] = []
        self._moved_at = 0.0
        self._told: dict[str, Value | None] = {}
        """What was last said to be in force, by knob."""

    def started(self, name: str, environment: dict[str, str]) -> None:
        """Say what the run is: configuration, curves, knobs, and the probe images where there will be maps of them."""
        state = self._state
        config = state.config
        self._log.append(
            RunStarted,
            state.step,
            name=name,
            model=config.model,
            data=config.data,
            total_steps=config.steps,
            config={field: getattr(config, field) for field in config.__struct_fields__},
            class_names=list(state.dataset.class_names),
            layers=[ZLayer(name=layer.name, features=layer.features) for layer in state.z_layers],
            environment=environment,
        )
        self._log.append(SeriesDeclared, state.step, series=list(self._series.values()))
        for ack in self._earlier:
            told = {name: getattr(ack, name) for name in Ack.__struct_fields__ if name not in Logged.__struct_fields__}
            self._log.append(Ack, ack.step, **told)
        declared = knobs.declare(state)
        self._told = {spec.name: spec.value for spec in declared}
        self._log.append(KnobsDeclared, state.step, knobs=declared, rev=state.rev)
        self.guards()
        if not self._mapped:
            return
        masks = state.probe.masks
        self._log.append(
            ProbeBatch,
            state.step,
            images=Array.of(_for_display(state.probe.images), "<f4"),
            labels=state.probe.labels.tolist(),
            masks=None if masks is None else Array.of(masks, "|u1"),
        )

    def guards(self) -> None:
        """Say which guard rules are in force."""
        rules = [GuardSpec(name=rule.name, text=str(rule), on=rule.on) for rule in self._state.guards.rules]
        self._log.append(GuardsDeclared, self._state.step, guards=rules)

    def status(self, status: RunStatus, detail: str = "", *, done: int | None = None, total: int | None = None) -> None:
        """Say what the engine is doing; progress is counted in steps unless told otherwise."""
        self._log.append(
            StatusChanged,
            self._state.step,
            status=status,
            done=self._state.step if done is None else done,
            total=self._state.total_steps if total is None else total,
            detail=detail,
        )

    def ack(self, command: Command, outcome: Outcome) -> None:
        """Say what became of a command."""
        self._told.update((change.knob, change.in_force) for change in outcome.changes)
        self._log.append(
            Ack,
            outcome.step,
            number=command.number,
            id=command.id,
            verb=command.verb,
            state=outcome.state,
            by=outcome.by,
            changes=outcome.changes,
            reason=outcome.reason,
            rev=outcome.rev,
            actor=command.actor,
            source=command.source,
        )
        if any(change.knob.startswith("guard.") for change in outcome.changes):
            self.guards()

    def checkpoint(self, *, file: str, size: int, digest: str, reason: CheckpointReason, files: list[str]) -> None:
        """Say that a checkpoint was taken, and which ones are there now."""
        state = self._state
        self._log.append(
            CheckpointSaved,
            state.step,
            file=file,
            size=size,
            digest=digest,
            reason=reason,
            rev=state.rev,
            files=files,
        )

    def moved(self) -> None:
        """Say now and then which knobs have moved without a command."""
        now = time.monotonic()
        if now - self._moved_at < MOVED_SECONDS:
            return
        self._moved_at = now
        values_now = knobs.in_force(self._state)
        changes = [
            Change(knob=name, old=self._told[name], in_force=value)
            for name, value in values_now.items()
            if value != self._told[name]
        ]
        if changes:
            self._told = values_now
            self._log.append(KnobsMoved, self._state.step + 1, changes=changes)

    def frame(
        self,
        report: UpdateReport,
        seconds: float,
        observations: Mapping[str, ZSpaceObservation],
        evaluation: Evaluation | None,
        probe: Probe | None,
    ) -> None:
        """Say the numbers of the step just done, and now and then the strips of radii."""
        now = time.monotonic()
        numbers = {
            "train/loss": report.loss,
            "train/accuracy": report.accuracy,
            "optim/learning_rate": report.lr,
            "optim/gradient_norm": report.gradient_norm,
            "perf/step_ms": seconds * 1e3,
        }
        if (pace := self._count_pace(now)) is not None:
            numbers["perf/steps_per_second"] = pace
        if report.scale is not None:
            numbers |= {"amp/scale": report.scale, "amp/skipped": report.skipped}
        if observations:
            numbers |= values.layer_values(observations)
        if self._state.z_layers:
            numbers["zspace/gain"] = report.gain
        if evaluation is not None:
            numbers |= _evaluation_values(evaluation)
        if probe is not None:
            numbers |= _probe_values(probe)
        index, packed = values.pack(numbers, self._series)
        self._log.append(Frame, report.step, index=index, values=packed)
        if now - self._strips_at >= STRIP_SECONDS:
            self._strips_at = now
            for name, strip in values.radius_strips(observations).items():
                self._log.append(Strip, report.step, name=name, values=Array.of(strip, "<f4"))

    def evaluation(self, evaluation: Evaluation, said: Mapping[int, float]) -> None:
        """Say what an evaluation between two updates has shown.

        Parameters
        ----------
        evaluation : Evaluation
        said : mapping
            What earlier incarnations have said of this step, by index of the series: from the first frame of an
            incarnation on, those of older ones do not count.
        """
        names = {spec.index: spec.name for spec in self._series.values()}
        before = {names[index]: value for index, value in said.items() if index in names}
        index, packed = values.pack(before | _evaluation_values(evaluation), self._series)
        self._log.append(Frame, self._state.step, index=index, values=packed)

    def _count_pace(self, now: float) -> float | None:
        self._pace.append(now)
        while len(self._pace) > 2 and now - self._pace[1] > PACE_SECONDS:
            self._pace.pop(0)
        span = now - self._pace[0]
        return (len(self._pace) - 1) / span if span > 0 else None

    def heat_maps(self, probe: Probe) -> None:
        """Say the class activation maps of a probe."""
        cam = probe.cam
        scores = probe.scores
        self._log.append(
            HeatMaps,
            probe.step,
            method="gradcam",
            layer=probe.layer,
            maps=Array.of(cam.maps, "<f4"),
            raw_min=_floats(cam.raw_min),
            raw_max=_floats(cam.raw_max),
            logit=_floats(cam.logit),
            probability=_floats(cam.probability),
            predicted=[int(label) for label in cam.predicted],
            labels=self._state.probe.labels.tolist(),
            pointing=None if scores is None else _floats(scores.pointing),
            energy_over_area=None if scores is None else _floats(scores.energy_over_area),
        )


def _floats(numbers: AnyArray) -> list[float]:
    return [float(number) for number in numbers]


def _evaluation_values(evaluation: Evaluation) -> dict[str, float]:
    return {"val/loss": evaluation.loss, "val/accuracy": evaluation.accuracy}


def _probe_values(probe: Probe) -> dict[str, float]:
    numbers = {"xai/probability_mean": float(np.mean(probe.cam.probability))}
    if probe.scores is not None:
        numbers["xai/pointing"] = float(np.mean(probe.scores.pointing))
        numbers["xai/energy_over_area"] = values.mean_finite(_floats(probe.scores.energy_over_area))
    return numbers


def _for_display(images: AnyArray) -> AnyArray:
    """Scale a batch to 0..1 as a whole, so that brightness stays comparable between its images."""
    low, high = float(images.min()), float(images.max())
    return (images - low) / (high - low) if high > low else np.zeros_like(images)
