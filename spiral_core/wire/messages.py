"""The messages that engine, server and browser exchange.

This file states what is said, not how it is packed (`codec`) nor when it may be said (`session`). The TypeScript types
of the browser and ``docs/protocol.md`` are generated from it.

Messages of a run (`Logged`) are written by the engine into its run log and travel unchanged to the store and to every
viewer. They carry the run, the incarnation (one more at each resume from a checkpoint), a sequence number without gaps
within the incarnation, the step that they speak of and the wall time.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from spiral_core.wire.parts import (
    Array,
    Change,
    Column,
    CommandState,
    GuardSpec,
    KnobSpec,
    RunSummary,
    SeriesSpec,
    Setting,
    Struct,
    Value,
    Verb,
)
from spiral_core.wire.run_messages import Ack as Ack
from spiral_core.wire.run_messages import CheckpointReason as CheckpointReason
from spiral_core.wire.run_messages import CheckpointSaved as CheckpointSaved
from spiral_core.wire.run_messages import Frame as Frame
from spiral_core.wire.run_messages import GuardsDeclared as GuardsDeclared
from spiral_core.wire.run_messages import HeatMaps as HeatMaps
from spiral_core.wire.run_messages import KnobsDeclared as KnobsDeclared
from spiral_core.wire.run_messages import KnobsMoved as KnobsMoved
from spiral_core.wire.run_messages import Logged as Logged
from spiral_core.wire.run_messages import Message as Message
from spiral_core.wire.run_messages import ProbeBatch as ProbeBatch
from spiral_core.wire.run_messages import RunMessage as RunMessage
from spiral_core.wire.run_messages import RunStarted as RunStarted
from spiral_core.wire.run_messages import SeriesDeclared as SeriesDeclared
from spiral_core.wire.run_messages import StatusChanged as StatusChanged
from spiral_core.wire.run_messages import Strip as Strip
from spiral_core.wire.run_messages import Thinned as Thinned

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
    """Viewer to server: show me this run. ``run`` "" means the newest; ``width`` is the chart width in pixels.

    A viewer that comes back names what it has: ``epoch`` as the snapshot gave it, and ``since``, the number of the last
    `Tick`. Where the server still holds what came after, it answers with `Resumed`, else with a snapshot.
    """

    run: str
    width: int
    epoch: str = ""
    since: int | None = None


class Visibility(Message, tag="visibility", frozen=True, kw_only=True):
    """Viewer to server: whether anybody can see the page.

    A hidden viewer is sent nothing but what must not be lost. When it is visible again it gets what it missed, or a
    fresh snapshot.
    """

    visible: bool


class Compare(Message, tag="compare", frozen=True, kw_only=True):
    """Viewer to server: show these series of these runs, beside the run that is watched. No runs: no more of that.

    Answered by `Compared` for each run that exists, and then by `Points`. What cannot be sent in time is sent anew as a
    whole, and so it is after the page was hidden.
    """

    runs: list[str]
    series: list[str]
    """Names, such as ``train/loss``; a run may lack some of them."""
    width: int


class Compared(Message, tag="compared", frozen=True, kw_only=True):
    """Server to viewer: one of the runs compared. The ``index`` of a column is a place in `Compare.series`."""

    run: RunSummary
    columns: list[Column]


class Points(Message, tag="points", frozen=True, kw_only=True):
    """Server to viewer: new points of the runs compared, those of each place in ascending steps."""

    place: Array
    """(K,) ``<u2``: the place in `Compare.runs` times the number of series, plus the place in `Compare.series`."""
    steps: Array
    """(K,) ``<f8``"""
    values: Array
    """(K,) ``<f8``; least and greatest values are kept where there were too many."""


class RunsListed(Message, tag="runs-listed", frozen=True, kw_only=True):
    """Server to viewer: the runs, newest first; sent at the start and at each change of the list."""

    runs: list[RunSummary]


class Snapshot(Message, tag="snapshot", frozen=True, kw_only=True):
    """Server to viewer: the whole state of a run; deltas that follow begin after ``seq``."""

    run: RunSummary
    epoch: str
    """Names the series of numbers that deltas of this run are counted in."""
    number: int
    """Of the last delta folded in."""
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
    """Where the run log of the engine had been merged before it was sent."""
    commands: list[CommandRecord]
    """The journal, oldest first."""
    probe: ProbeBatch | None
    heat_maps: HeatMaps | None
    strips: list[Strip]
    checkpoints: list[CheckpointSaved]
    """Those that are there, oldest first."""


class Resumed(Message, tag="resumed", frozen=True, kw_only=True):
    """Server to viewer, in place of a snapshot: what this viewer has stays; all deltas after ``since`` follow."""

    run: str
    since: int


class Tick(Message, tag="tick", frozen=True, kw_only=True):
    """Server to viewer: opens each packet of deltas. The run's messages follow in the same packet."""

    run: str
    number: int
    """With this packet the viewer has every delta up to this one, some of them perhaps merged."""


class Merged(Message, tag="merged", frozen=True, kw_only=True):
    """Server to viewer: frames that were merged for a slow viewer, as points with minimum and maximum kept."""

    run: str
    step: int
    time: float
    frames: int
    """How many frames were merged into these points."""
    columns: list[Column]


class RunChanged(Message, tag="run-changed", frozen=True, kw_only=True):
    """Server to viewer: the summary of the watched run, such as its engine being lost or back."""

    run: RunSummary


class CommandRequest(Struct, frozen=True, kw_only=True):
    """A command as people ask for it, in a `Steer` or as the body of ``POST /api/runs/{id}/commands``.

    The fields mean what they mean in `Asked`.
    """

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


class Steer(Message, tag="steer", frozen=True, kw_only=True):
    """Viewer to server: a command, over a connection that is open already; `Steered` answers it."""

    run: str
    request: CommandRequest


class Steered(Message, tag="steered", frozen=True, kw_only=True):
    """Server to viewer: what has become of a `Steer` at the door; what the engine makes of it follows as `Ack`."""

    id: str
    """Of the request."""
    status: int
    """What HTTP would answer: 202 accepted, 200 the same as before, 409 ended or stale, 422 refused, and so on."""
    record: CommandRecord | None
    """The journal's record, where there is one."""
    reason: str
    """Why not; "" where it is accepted."""
    rev: int | None
    """Where it is stale, the revision in force."""
    values: dict[str, Value | None]
    """Where it is stale, the values in force of the knobs that were asked for."""


EngineToServer: TypeAlias = EngineHello | Ping | Pong | RunMessage
ServerToEngine: TypeAlias = EngineWelcome | Stored | Command | Ping | Pong
ViewerToServer: TypeAlias = ViewHello | Watch | Compare | Visibility | Steer | Ping | Pong
ServerToViewer: TypeAlias = (
    ViewWelcome
    | RunsListed
    | Snapshot
    | Resumed
    | Tick
    | Merged
    | RunChanged
    | Compared
    | Points
    | CommandRecord
    | Steered
    | Ping
    | Pong
    | RunMessage
)
AnyMessage: TypeAlias = EngineToServer | ServerToEngine | ViewerToServer | ServerToViewer
