"""What a run says, in the order in which it says it.

These messages are written by the engine into its run log and travel unchanged to the store and to every viewer.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from spiral_core.wire.parts import (
    Array,
    Change,
    GuardSpec,
    KnobSpec,
    RunStatus,
    SeriesSpec,
    Struct,
    Verb,
    ZLayer,
)


class Message(Struct, tag_field="type", frozen=True, kw_only=True):
    """Base of everything that travels on its own."""


class Logged(Message, frozen=True, kw_only=True):
    """A message of a run: kept in the run log, stored, and sent to every viewer."""

    run: str
    incarnation: int
    seq: int
    step: int
    time: float
    """Wall time, seconds since 1970."""


class RunStarted(Logged, tag="run-started", frozen=True, kw_only=True):
    """First message of a run: what is trained, on what, with which configuration."""

    name: str
    model: str
    data: str
    total_steps: int
    """0: until stopped."""
    config: dict[str, Any]
    class_names: list[str]
    layers: list[ZLayer]
    environment: dict[str, str]


class SeriesDeclared(Logged, tag="series-declared", frozen=True, kw_only=True):
    """The curves of the run."""

    series: list[SeriesSpec]


class KnobsDeclared(Logged, tag="knobs-declared", frozen=True, kw_only=True):
    """The knobs of the run with the values in force."""

    knobs: list[KnobSpec]
    rev: int
    """Number of changes applied so far in this run."""


class KnobsMoved(Logged, tag="knobs-moved", frozen=True, kw_only=True):
    """Knobs that have moved without a command, by a schedule or by auto-gain; now and then, not at every step.

    ``step`` is the update that comes next, the first under these values.
    """

    changes: list[Change]


class GuardsDeclared(Logged, tag="guards-declared", frozen=True, kw_only=True):
    """The guard rules in force; said again whenever one of them is changed."""

    guards: list[GuardSpec]


class StatusChanged(Logged, tag="status-changed", frozen=True, kw_only=True):
    """What the engine is doing; with ``done`` of ``total`` where that can be told."""

    status: RunStatus
    done: int
    total: int
    detail: str


class Frame(Logged, tag="frame", frozen=True, kw_only=True):
    """The numbers of one step. ``values[k]`` belongs to the series ``index[k]``; a series may be left out."""

    index: Array
    """(K,) ``<u2``, ascending."""
    values: Array
    """(K,) ``<f8``; NaN and infinity are values."""


class Strip(Logged, tag="strip", frozen=True, kw_only=True):
    """Relative radii (0 to 1) in a Z-space layer: ``zspace/zbn1/feature_radius``, or ``zspace/zln1/sample_radius``.

    One number for each feature of a layer that norms features, for each sample of the batch of one that norms samples.
    """

    name: str
    values: Array
    """(F,) or (N,) ``<f4``"""


class ProbeBatch(Logged, tag="probe-batch", frozen=True, kw_only=True):
    """The held-out images that every probe looks at; sent once.

    A run whose model has nothing to map sends none, and declares no series ``xai/...`` and no knob ``xai.every``.
    """

    images: Array
    """(N, H, W, C) ``<f4``, scaled for display to 0..1; sequences of T steps are (N, 1, T, C)."""
    labels: list[int]
    masks: Array | None
    """(N, H, W) ``|u1``: 1 where the object is, where the data set knows it."""


class HeatMaps(Logged, tag="heat-maps", frozen=True, kw_only=True):
    """Class activation maps of the probe batch, computed with the weights after ``step``."""

    method: Literal["gradcam"]
    layer: str
    maps: Array
    """(N, h, w) ``<f4``: signed, before ReLU, at the layer's own resolution."""
    raw_min: list[float]
    raw_max: list[float]
    logit: list[float]
    """Of the predicted class."""
    probability: list[float]
    predicted: list[int]
    labels: list[int]
    pointing: list[float] | None
    """1 where the peak lies on the object, else 0."""
    energy_over_area: list[float] | None
    """Share of the positive map on the object, over the object's share of the image; NaN for an empty map."""


class Ack(Logged, tag="ack", frozen=True, kw_only=True):
    """What became of a command. ``step`` is the first update under the new values, or the one that is marked."""

    number: int
    """Below 0 for what no server has numbered: the deeds of guards, and what was asked for by file."""
    id: str
    verb: Verb
    state: Literal["applied", "rejected", "superseded"]
    by: int | None = None
    """Number of the command that took the place of a superseded one."""
    changes: list[Change]
    reason: str
    rev: int
    actor: str
    source: str


CheckpointReason: TypeAlias = Literal["every", "steer", "asked", "end"]
"""``every``: their time had come; ``steer``: before the first update under a new value; ``end``: of the run."""


class CheckpointSaved(Logged, tag="checkpoint-saved", frozen=True, kw_only=True):
    """A checkpoint of the state after ``step`` is on the engine's disk; the run can be resumed from it."""

    file: str
    """Its name in the folder ``checkpoints`` of the run."""
    size: int
    """In bytes."""
    digest: str
    """SHA-256 of its contents, in hexadecimal."""
    reason: CheckpointReason
    rev: int
    """Number of changes applied to the state that it holds."""
    files: list[str]
    """All checkpoints that are there now; one that is missing has been deleted to make room."""


class Thinned(Logged, tag="thinned", frozen=True, kw_only=True):
    """Frames from ``first_step`` to ``step`` were merged before they left: the run log had outgrown its bound.

    Of each series, in each stretch of sequence numbers, the least and the greatest value are there still.
    """

    first_step: int
    frames: int
    """That there had been between these steps."""
    stretch: int
    """Sequence numbers of which the extremes have stayed."""


RunMessage: TypeAlias = (
    RunStarted
    | SeriesDeclared
    | KnobsDeclared
    | KnobsMoved
    | GuardsDeclared
    | StatusChanged
    | Frame
    | Strip
    | ProbeBatch
    | HeatMaps
    | Ack
    | CheckpointSaved
    | Thinned
)
"""All that a run may say."""
