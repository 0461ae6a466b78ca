"""Some series of some runs, for all viewers that compare the same: collected between two ticks, packed once.

A slow viewer needs no mailbox here: what it could not take is forgotten, and it gets the whole anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from spiral_core.arrays import AnyArray
from spiral_core.errors import RemoteError
from spiral_core.wire import codec
from spiral_core.wire.limits import CLOSE_PROTOCOL, MOST_COMPARED
from spiral_core.wire.messages import Compare, Compared, Frame, Points
from spiral_core.wire.parts import Array, RunSummary, SeriesSpec
from spiral_server.live.channel import Parcel, Reader
from spiral_server.live.decimation import Points as Curve
from spiral_server.live.decimation import decimate
from spiral_server.live.merging import column, columns_of

TICK_POINTS = 16
"""Points of a curve that are sent in one tick: a run that makes more steps is drawn by least and greatest values."""
PENDING_FRAMES = 2000
"""Frames that wait for the tick, of all runs together; beyond, the tick comes early."""
WAITING_TICKS = 40
"""Packets of points that may wait for a slow viewer: ten seconds."""

Subject = tuple[tuple[str, ...], tuple[str, ...]]
"""What is compared: runs and series."""


def subject_of(compare: Compare) -> Subject:
    """Tell what is compared.

    Raises
    ------
    RemoteError
        Too much at once.
    """
    if len(compare.runs) * len(compare.series) > MOST_COMPARED:
        raise RemoteError(CLOSE_PROTOCOL, f"a comparison holds at most {MOST_COMPARED} curves")
    return tuple(dict.fromkeys(compare.runs)), tuple(dict.fromkeys(compare.series))


@dataclass
class _Seat:
    """How a viewer stands with a comparison."""

    waiting: deque[Parcel] = field(default_factory=deque)
    held: bool = True
    """Its curves are being read; new points wait behind them."""
    stale: bool = False
    """Points were forgotten: it needs the whole anew."""


class Comparison:
    """One subject and its viewers."""

    def __init__(self, subject: Subject) -> None:
        self.runs, self.series = subject
        self.pending = 0
        """Frames that wait for the tick."""
        self.packed = 0
        """Packets of points made for all viewers."""
        self._seats: dict[Reader, _Seat] = {}
        self._position = {run: place * len(self.series) for place, run in enumerate(self.runs)}
        self._frames: dict[str, list[Frame]] = {}
        self._specs: dict[str, Mapping[int, SeriesSpec]] = {}

    @property
    def watched(self) -> bool:
        """Whether anybody looks."""
        return bool(self._seats)

    @property
    def readers(self) -> list[Reader]:
        """Those who look."""
        return list(self._seats)

    def join(self, reader: Reader) -> None:
        """Take in a viewer; new points wait until its curves have been read."""
        self._seats[reader] = _Seat()

    def leave(self, reader: Reader) -> None:
        """Let a viewer go."""
        self._seats.pop(reader, None)

    def open_with(self, reader: Reader, parcels: Iterable[Parcel]) -> None:
        """Hand over the curves; the points that came meanwhile follow, some perhaps for the second time."""
        seat = self._seats.get(reader)
        if seat is not None:
            seat.waiting.extendleft(reversed(list(parcels)))
            seat.held = False
            self.catch_up(reader)

    def catch_up(self, reader: Reader) -> bool:
        """Send what waits for a viewer, as far as it can leave now; tell whether it needs the whole anew."""
        seat = self._seats.get(reader)
        if seat is None or seat.held:
            return False
        while seat.waiting and reader.outlet.ready:
            reader.outlet.send(seat.waiting.popleft())
        return seat.stale and reader.visible and not seat.waiting

    def indices(self, specs: Mapping[int, SeriesSpec]) -> dict[int, int]:
        """Give for the indices of a run's series their places in the comparison."""
        wanted = {name: place for place, name in enumerate(self.series)}
        return {index: wanted[spec.name] for index, spec in specs.items() if spec.name in wanted}

    def compared(self, summary: RunSummary, curves: Mapping[int, Curve], indices: Mapping[int, int]) -> Parcel:
        """Pack what there is of one run."""
        columns = [column(indices[index], curve) for index, curve in sorted(curves.items())]
        return Parcel(codec.join([codec.encode(Compared(run=summary, columns=columns))]))

    def add(self, frame: Frame, specs: Mapping[int, SeriesSpec]) -> None:
        """Keep a frame for the tick."""
        self._frames.setdefault(frame.run, []).append(frame)
        self._specs[frame.run] = specs
        self.pending += 1

    def flush(self) -> None:
        """Send the points of all frames that wait."""
        message = self._points()
        if message is None:
            return
        parcel = Parcel(codec.join([codec.encode(message)]))
        self.packed += 1
        for reader, seat in self._seats.items():
            if seat.stale:
                continue
            if not reader.visible or len(seat.waiting) > len(self.runs) + WAITING_TICKS:
                seat.stale = True
            elif seat.held or seat.waiting or not reader.outlet.ready:
                seat.waiting.append(parcel)
            else:
                reader.outlet.send(parcel)

    def _points(self) -> Points | None:
        places: list[AnyArray] = []
        parts: list[Curve] = []
        for run, frames in self._frames.items():
            indices = self.indices(self._specs[run])
            for index, (steps, values) in columns_of(frames).items():
                if index in indices:
                    parts.append(decimate(steps, values, TICK_POINTS, nonfinite=TICK_POINTS))
                    places.append(np.full(len(parts[-1].steps), self._position[run] + indices[index]))
        self._frames, self.pending = {}, 0
        if not parts:
            return None
        return Points(
            place=Array.of(np.concatenate(places), "<u2"),
            steps=Array.of(np.concatenate([part.steps for part in parts]), "<f8"),
            values=Array.of(np.concatenate([part.values for part in parts]), "<f8"),
        )
