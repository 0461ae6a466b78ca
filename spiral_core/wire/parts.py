"""The parts that messages are made of: arrays, declarations of curves and knobs, settings and changes.

Not sent on their own; `messages` says what is.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec
import numpy as np

from spiral_core.arrays import AnyArray
from spiral_core.errors import DecodeError
from spiral_core.wire.limits import MAX_MESSAGE_BYTES, MOST_AXES

Value: TypeAlias = bool | int | float | str
"""What a knob can hold."""

DType: TypeAlias = Literal["<f4", "<f8", "<u2", "<i4", "|u1"]

_ITEM_BYTES: dict[DType, int] = {"<f4": 4, "<f8": 8, "<u2": 2, "<i4": 4, "|u1": 1}

RunStatus: TypeAlias = Literal["starting", "compiling", "training", "paused", "finished", "stopped", "failed", "lost"]
"""``finished``: all steps done; ``stopped``: by a command or Ctrl-C; ``lost``: said by the server of a mute engine."""

FINAL_STATUSES: frozenset[str] = frozenset({"finished", "stopped", "failed"})

Verb: TypeAlias = Literal["set", "pause", "resume", "step", "stop", "checkpoint", "evaluate", "mark", "rollback"]
"""``step``: do some updates, then pause. ``checkpoint`` and ``evaluate``: once, at the boundary of being applied.
Guards alone say ``mark`` (an alarm, nothing changes) and ``rollback`` (to the weights of an earlier step)."""

GUARD_VERBS: frozenset[str] = frozenset({"mark", "rollback"})

CommandState: TypeAlias = Literal["accepted", "applied", "rejected", "superseded", "expired"]
"""``accepted`` waits for the engine; every other state is final. ``expired``: the run ended before its turn came."""


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every part of a message: immutable, named fields, unknown fields refused."""


class Array(Struct, frozen=True, kw_only=True):
    """An array as little-endian raw bytes in C order.

    ``data`` has exactly ``itemsize * prod(shape)`` bytes.
    """

    dtype: DType
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, values: AnyArray, dtype: DType) -> Array:
        """Pack a NumPy array, converting it to ``dtype``."""
        packed = np.ascontiguousarray(values, dtype=np.dtype(dtype))
        return cls(dtype=dtype, shape=packed.shape, data=packed.tobytes())

    def numpy(self) -> AnyArray:
        """Give the array as a read-only NumPy view.

        Raises
        ------
        DecodeError
            The bytes do not fill the shape.
        """
        self.check()
        return np.frombuffer(self.data, dtype=self.dtype).reshape(self.shape)

    def check(self) -> None:
        """Look whether the bytes fill the shape, and whether NumPy can make an array of it.

        Raises
        ------
        DecodeError
            They do not, or it cannot.
        """
        if len(self.shape) > MOST_AXES:
            raise DecodeError(f"an array of {len(self.shape)} axes; there are at most {MOST_AXES}")
        size = _ITEM_BYTES[self.dtype]
        for extent in self.shape:
            # The bound counts where another extent is 0: then there are no bytes to be compared with.
            if not 0 <= extent <= MAX_MESSAGE_BYTES:
                raise DecodeError(f"array shape {self.shape} has a negative extent, or one beyond any message")
            size *= extent
        if size != len(self.data):
            raise DecodeError(f"array of shape {self.shape} and dtype {self.dtype} cannot hold {len(self.data)} bytes")


class SeriesSpec(Struct, frozen=True, kw_only=True):
    """One curve, declared once; frames refer to it by ``index``."""

    index: int
    name: str
    """``group/name``, such as ``train/loss`` or ``zspace/zbn1/radius_mean``."""
    unit: str
    group: str
    """The chart that draws it."""
    scale: Literal["linear", "log"]
    help: str


class Need(Struct, frozen=True, kw_only=True):
    """What another knob must hold for a knob to be set."""

    knob: str
    holds: list[Value]
    """Any one of these."""


class KnobSpec(Struct, frozen=True, kw_only=True):
    """One thing that a person may steer: its meaning, its bounds and the value in force."""

    name: str
    type: Literal["float", "int", "choice", "bool"]
    unit: str
    scale: Literal["linear", "log"]
    low: float
    high: float
    """Both bounds are allowed values. A log scale has both on one side of zero, or ``low`` at zero."""
    step: float
    """What an arrow key moves: an amount on a linear scale, a factor on a log scale."""
    choices: list[str] = []
    """What a knob of type ``choice`` may hold; its bounds are those of the position in this list."""
    needs: list[Need] = []
    """All of these must be met, in force or by the same command, or a setting is refused."""
    boundary: Literal["step"]
    """Where a new value takes effect."""
    group: str
    help: str
    value: Value | None
    """In force; None means mixed: the parts that this knob drives hold different values."""
    since: int
    """The first step that was computed under this value."""


class GuardSpec(Struct, frozen=True, kw_only=True):
    """One guard rule as it is in force; its switch is the knob ``guard.NAME.on``, its limit ``guard.NAME``."""

    name: str
    text: str
    """The rule's line, such as ``when train.loss > 4 x its median of 50 mark``."""
    on: bool


class ZLayer(Struct, frozen=True, kw_only=True):
    """One Z-space layer of the model."""

    name: str
    features: int


class Setting(Struct, frozen=True, kw_only=True):
    """A value asked for."""

    knob: str
    value: Value


class Change(Struct, frozen=True, kw_only=True):
    """A value that has changed."""

    knob: str
    old: Value | None
    in_force: Value | None


class RunSummary(Struct, frozen=True, kw_only=True):
    """One line of the list of runs."""

    id: str
    name: str
    status: RunStatus
    step: int
    total_steps: int
    model: str
    data: str
    created: float
    updated: float
    detail: str
    connected: bool
    """Whether the run's engine is connected to the server."""
    trouble: str = ""
    """Why the server cannot write what the engine brings, such as a full disk, or cannot read the run; empty else."""


class Column(Struct, frozen=True, kw_only=True):
    """Points of one series, steps ascending.

    When the series has more points than asked for, each bucket of steps is drawn by its least and its greatest point
    (first point first), and every non-finite point is kept.
    """

    index: int
    steps: Array
    """(M,) ``<f8``"""
    values: Array
    """(M,) ``<f8``"""
    reduced: bool
