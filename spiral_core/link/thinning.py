"""Merges the frames of the oldest files of a run log that has outgrown its bound.

A process of its own (``python -m spiral_core.link.thinning``), started by the engine when it begins another file; the
loop never waits for it. A file is replaced as a whole by its thinned form, so that a courier that reads it is not
disturbed.

Merged frames are frames still: of each series, in each stretch of sequence numbers, the least and the greatest value
stay at the steps where they stood, and the first and last NaN and infinity. A `Thinned` message says where that was
done. Acknowledgements, statuses and declarations stay, and so do the heat maps around a steer; of the others every
eighth.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from spiral_core.arrays import AnyArray
from spiral_core.errors import RunLogError
from spiral_core.link.rundir import RunDir
from spiral_core.link.runlog import RunLogReader, parts_of
from spiral_core.wire import codec, records
from spiral_core.wire.messages import Ack, Frame, HeatMaps, Logged, Strip, Thinned
from spiral_core.wire.parts import Array

FIRST_STRETCH = 512
"""Sequence numbers of which the extremes stay: a file shrinks to a twentieth, and 1,000 pixels still show 4 million
steps without loss."""
NEXT_FACTOR = 8
"""A file that is thinned once more is thinned by this."""
LAST_STRETCH = FIRST_STRETCH * NEXT_FACTOR**4
"""Beyond there is nothing to be gained."""
HEAT_MAPS_EVERY = 8
NICENESS = 19


def thin_files(rundir: RunDir, limit: int) -> bool:
    """Thin out the oldest files of a run's logs until all fit into a bound; tell whether they do.

    The file that is written now is never touched.
    """
    logs = [parts_of(path) for _, path in rundir.logs()]
    files = [file for parts in logs for file in parts]
    over = sum(file.stat().st_size for file in files) - limit
    stretch = FIRST_STRETCH
    while over > 0 and stretch <= LAST_STRETCH:
        for file in files[:-1]:
            before = file.stat().st_size
            if over > 0 and _stretch_of(file) < stretch:
                thin_file(file, stretch)
                over -= before - file.stat().st_size
        stretch *= NEXT_FACTOR
    return over <= 0


def _stretch_of(file: Path) -> int:
    """Give how far a file was thinned out already."""
    return max((message.stretch for message in _messages(file) if isinstance(message, Thinned)), default=0)


def thin_file(file: Path, stretch: int) -> None:
    """Replace a file of a run log by its thinned form.

    Raises
    ------
    RunLogError
        It is damaged, or there is no room for its new form; then it stays as it is.
    """
    thinned = _Thinned(stretch, _heat_maps_kept(file))
    for message in _messages(file):
        thinned.add(message)
    part = file.with_name(f"thinning-{file.name}")
    try:
        with part.open("wb") as target:
            target.write(records.MAGIC)
            target.writelines(records.record(data) for data in thinned.finish())
            target.flush()
            os.fsync(target.fileno())
        part.replace(file)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RunLogError(f"the run log {file} cannot be thinned out: {error}") from error


def _messages(file: Path) -> Iterator[Logged]:
    with RunLogReader(file) as reader:
        for record in reader.records_of_part():
            message = codec.decode(record.data)
            if isinstance(message, Logged):
                yield message


def _heat_maps_kept(file: Path) -> set[int]:
    """Choose heat maps by sequence number: the last before each steer, two after it, and every eighth."""
    maps: list[int] = []
    kept: set[int] = set()
    close = 0
    for message in _messages(file):
        if isinstance(message, Ack):
            kept.update(maps[-1:])
            close = 2
        elif isinstance(message, HeatMaps):
            maps.append(message.seq)
            if close > 0:
                kept.add(message.seq)
                close -= 1
    return kept | set(maps[::HEAT_MAPS_EVERY])


class _Thinned:
    """What stays of the messages of a file, in order."""

    def __init__(self, stretch: int, heat_maps: set[int]) -> None:
        self._stretch = stretch
        self._heat_maps = heat_maps
        self._group: list[Logged] = []
        self._kept: list[tuple[int, bytes]] = []
        self._steps: list[int] = []
        """First and last step of the frames of the file."""
        self._frames = 0
        self._before: Thinned | None = None
        """What was said when the file was thinned out last."""
        self._gone: Logged | None = None
        """The last message that does not stay."""

    def add(self, message: Logged) -> None:
        """Take the next message of the file."""
        if self._group and message.seq // self._stretch != self._group[0].seq // self._stretch:
            self._merge()
        self._group.append(message)

    def finish(self) -> list[bytes]:
        """Give what stays, encoded, with one `Thinned` in the place of a message that does not."""
        self._merge()
        gone, before = self._gone, self._before
        if gone is not None and self._steps:
            told = Thinned(
                run=gone.run,
                incarnation=gone.incarnation,
                seq=gone.seq,
                step=self._steps[1],
                time=gone.time,
                first_step=self._steps[0],
                frames=self._frames if before is None else before.frames,
                stretch=self._stretch,
            )
            self._kept.append((told.seq, codec.encode(told)))
            self._kept.sort(key=lambda one: one[0])
        return [data for _, data in self._kept]

    def _merge(self) -> None:
        group, self._group = self._group, []
        strips = {message.name: message.seq for message in group if isinstance(message, Strip)}
        frames = [message for message in group if isinstance(message, Frame)]
        if frames:
            self._frames += len(frames)
            self._steps = [self._steps[0] if self._steps else frames[0].step, frames[-1].step]
        merged = {frame.seq: frame for frame in merge(frames)} if frames else {}
        for message in group:
            stays: Logged | None = message
            match message:
                case Frame():
                    stays = merged.get(message.seq)
                case Thinned():
                    self._before, stays = message, None
                case Strip():
                    stays = message if strips[message.name] == message.seq else None
                case HeatMaps():
                    stays = message if message.seq in self._heat_maps else None
                case _:
                    pass
            if stays is None:
                self._gone = message
            else:
                self._kept.append((stays.seq, codec.encode(stays)))


def merge(frames: Sequence[Frame]) -> list[Frame]:
    """Merge frames: of each series the least and the greatest value stay, and the ends of what is not finite.

    Parameters
    ----------
    frames : sequence of Frame
        Of one incarnation, in order.

    Returns
    -------
    list of Frame
        Some of the frames, with what stays of their numbers.
    """
    counts = [len(frame.index.data) // 2 for frame in frames]
    index = np.concatenate([frame.index.numpy() for frame in frames])
    values = np.concatenate([frame.values.numpy() for frame in frames])
    owner = np.repeat(np.arange(len(frames)), counts)
    stays = np.zeros(len(values), dtype=np.bool_)
    for series in np.unique(index):
        stays[_ends_and_extremes(np.flatnonzero(index == series), values)] = True
    merged: list[Frame] = []
    for place in np.unique(owner[stays]):
        own = stays & (owner == place)
        merged.append(
            msgspec.structs.replace(
                frames[place], index=Array.of(index[own], "<u2"), values=Array.of(values[own], "<f8")
            )
        )
    return merged


def _ends_and_extremes(places: AnyArray, values: AnyArray) -> list[int]:
    """Give the places of one series that stay."""
    own = values[places]
    finite = places[np.isfinite(own)]
    found: list[int] = []
    if len(finite):
        found += [int(finite[np.argmin(values[finite])]), int(finite[np.argmax(values[finite])])]
    for kind in (np.isnan(own), np.isposinf(own), np.isneginf(own)):
        odd = places[kind]
        found += [int(odd[0]), int(odd[-1])] if len(odd) else []
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Thin out a run's logs; started by the engine, not by people."""
    parser = argparse.ArgumentParser(prog="spiral-thinning", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--limit", type=int, required=True)
    options = parser.parse_args(argv)
    os.nice(NICENESS)
    try:
        fits = thin_files(RunDir(path=options.folder, id=options.run), options.limit)
    except RunLogError as error:
        print(f"spiral: {error}", file=sys.stderr)  # noqa: T201 - a process's own voice
        return 1
    return 0 if fits else 1


if __name__ == "__main__":
    sys.exit(main())
