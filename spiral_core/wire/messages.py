"""The messages that engine, server and browser exchange.

This file states what is said, not how it is packed (`codec`) nor when it may be said (`session`). The TypeScript types
of the browser and ``docs/protocol.md`` are generated from it.

Messages of a run (`Logged`) are written by the engine into its run log and travel unchanged to the store and to every
viewer. They carry the run, the incarnation (one more at each resume from a checkpoint), a sequence number without gaps
within the incarnation, the step that they speak of and the wall time.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from spiral_core.wire.parts import (
    Array,
    Change,
    CheckpointReason,
    Column,
    CommandState,
    GuardSpec,
    KnobSpec,
    RunStatus,
    RunSummary,
    SeriesSpec,
    Setting,
    Struct,
    Verb,
    ZLayer,
)

# --- messages of a run, in the order in which a run says them -----------------------------------------------------


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
    """Knobs moved by a schedule or by auto-gain, said now and then; ``step`` is the first update under these values."""

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
    """The run log had outgrown its bound: of ``frames`` from ``first_step`` to ``step`` only the extremes are there."""

    first_step: int
    frames: int
    stretch: int
    """Sequence numbers of which the least and the greatest value of each series have stayed."""


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

# --- between courier and server -----------------------------------------------------------------------------------


class EngineHello(Message, tag="engine-hello", frozen=True, kw_only=True):
    """Courier to server, first: who speaks."""

    protocol: int
    run: str
    incarnation: int


class EngineWelcome(Message, tag="engine-welcome", frozen=True, kw_only=True):
    """Server to courier, first: the last sequence number that is on the server's disk; -1 for none."""

    protocol: int
    stored: int


class Stored(Message, tag="stored", frozen=True, kw_only=True):
    """Server to courier: everything up to ``seq`` is on disk."""

    seq: int


class Asked(Message, frozen=True, kw_only=True):
    """What a command asks for, and on whose behalf."""

    id: str
    """Chosen by the client; the same id twice is the same command."""
    verb: Verb
    sets: list[Setting]
    """All of them come into force at the same boundary, or none does."""
    steps: int = 1
    """Updates until ``step`` pauses."""
    at_step: int | None = None
    """The update before which the command is to be applied, or the first one after it; None: the next one."""
    expected_rev: int | None = None
    """Apply only if this is the revision in force."""
    supersede: bool = False
    """Take the place of earlier sets of the same knobs that have not been applied by then."""
    actor: str
    source: str
    """``ui``, ``cli``, ``api``, ``file`` or ``guard``."""


class Command(Asked, tag="command", frozen=True, kw_only=True):
    """Server to courier to engine: a command that is in the journal. An engine answers each ``number`` once."""

    run: str
    number: int
    """Counts up from 1 within a run."""
    time: float


class Ping(Message, tag="ping", frozen=True, kw_only=True):
    """Either side: are you there? Answered by `Pong` with the same time."""

    time: float


class Pong(Message, tag="pong", frozen=True, kw_only=True):
    """Answer to `Ping`."""

    time: float


# --- between server and viewer ------------------------------------------------------------------------------------


class CommandRecord(Asked, tag="command-record", frozen=True, kw_only=True):
    """A command and what has become of it so far; sent again at each change of state."""

    run: str
    number: int
    time: float
    incarnation: int
    """The newest one when the command was accepted; the end of that one or of a later one lets it expire."""
    state: CommandState
    by: int | None
    """Number of the command that took the place of a superseded one."""
    step: int | None
    """The first update computed under the new values; None until applied."""
    changes: list[Change]
    reason: str
    rev: int | None
    """After the command was answered; None until then."""


class ViewHello(Message, tag="view-hello", frozen=True, kw_only=True):
    """Viewer to server, first."""

    protocol: int


class ViewWelcome(Message, tag="view-welcome", frozen=True, kw_only=True):
    """Server to viewer, first."""

    protocol: int
    instance: str
    server: str


class Watch(Message, tag="watch", frozen=True, kw_only=True):
    """Viewer to server: show me this run. ``run`` "" means the newest; ``width`` is the chart width in pixels."""

    run: str
    width: int


class RunsListed(Message, tag="runs-listed", frozen=True, kw_only=True):
    """Server to viewer: the runs, newest first; sent at the start and at each change of the list."""

    runs: list[RunSummary]


class Snapshot(Message, tag="snapshot", frozen=True, kw_only=True):
    """Server to viewer: the whole state of a run; deltas that follow begin after ``seq``."""

    run: RunSummary
    incarnation: int
    seq: int
    """Of the last message folded in; -1 for none."""
    rev: int
    started: RunStarted | None
    status: StatusChanged | None
    series: list[SeriesSpec]
    columns: list[Column]
    knobs: list[KnobSpec]
    guards: list[GuardSpec]
    thinned: list[Thinned]
    commands: list[CommandRecord]
    """The journal, oldest first."""
    probe: ProbeBatch | None
    heat_maps: HeatMaps | None
    strips: list[Strip]
    checkpoints: list[CheckpointSaved]
    """Those that are there, oldest first."""


class Tick(Message, tag="tick", frozen=True, kw_only=True):
    """Server to viewer: opens each packet of deltas. The run's messages follow in the same packet."""

    run: str
    number: int
    """Counts up by one for each packet of a watch."""
    merged: int
    """Frames merged so far because this viewer read too slowly."""


class Merged(Message, tag="merged", frozen=True, kw_only=True):
    """Server to viewer: frames that were merged for a slow viewer, as points with minimum and maximum kept."""

    run: str
    step: int
    time: float
    columns: list[Column]


class RunChanged(Message, tag="run-changed", frozen=True, kw_only=True):
    """Server to viewer: the summary of the watched run, such as its engine being lost or back."""

    run: RunSummary


EngineToServer: TypeAlias = EngineHello | Ping | Pong | RunMessage
ServerToEngine: TypeAlias = EngineWelcome | Stored | Command | Ping | Pong
ViewerToServer: TypeAlias = ViewHello | Watch | Ping | Pong
ServerToViewer: TypeAlias = (
    ViewWelcome | RunsListed | Snapshot | Tick | Merged | RunChanged | CommandRecord | Ping | Pong | RunMessage
)
AnyMessage: TypeAlias = EngineToServer | ServerToEngine | ViewerToServer | ServerToViewer

# --- REST ---------------------------------------------------------------------------------------------------------


class CommandRequest(Struct, frozen=True, kw_only=True):
    """Body of ``POST /api/runs/{id}/commands``; the fields mean what they mean in `Asked`."""

    id: str
    """Chosen by the client, 1 to 64 characters; the same id twice is the same command."""
    verb: Verb
    sets: list[Setting] = msgspec.field(default_factory=list)
    steps: int = 1
    at_step: int | None = None
    expected_rev: int | None = None
    supersede: bool = False
    actor: str = ""
    source: Literal["ui", "cli", "api"] = "api"
