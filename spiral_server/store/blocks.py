"""Frames to columnar blocks and back, each with a checksum.

Bytes in, bytes out: knows no database. A block holds at most `BLOCK_STEPS` frames of one incarnation, at full
resolution; the pyramid over the blocks stands in `pyramid`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Sequence
from typing import Any

import msgspec
import numpy as np

from spiral_core.arrays import F64, AnyArray
from spiral_core.errors import DecodeError
from spiral_core.wire import codec
from spiral_core.wire.messages import Frame
from spiral_server.live.merging import columns_of

BLOCK_STEPS = 256
"""Frames in a block: 2 KiB a column, about what one page of the database takes compressed."""
CHUNK_COLUMNS = 16
"""Columns that are compressed together: few enough to read one series, enough to pay for a call of zlib (10 us)."""
FRAME_KINDS = 8
"""Sets of series among the frames of a block up to which they are sorted table by table."""
_LEVEL = 1
"""Compression level of zlib: floats of a training run hardly shrink further, at four times the cost."""

Columns = dict[int, tuple[F64, F64]]
"""Series index to steps and values, both (M,)."""


class _Chunk(msgspec.Struct, frozen=True, array_like=True):
    """Columns of equal steps."""

    index: list[int]
    steps: bytes
    """Empty for the steps of all frames of the block."""
    values: bytes
    """(columns, steps)"""


class _Packed(msgspec.Struct, frozen=True, array_like=True):
    steps: bytes
    chunks: list[_Chunk]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Packed)


def checksum(data: bytes, *numbers: int) -> int:
    """Sum up bytes (CRC-32) together with the numbers that say what they are, so that swapped rows are found too.

    What a damaged database gives may be neither bytes nor numbers; then the sum is -1, which is nobody's.
    """
    try:
        return zlib.crc32(data, zlib.crc32(struct.pack(f"<{len(numbers)}q", *numbers)))
    except (struct.error, TypeError):
        return -1


def pack(columns: Columns, all_steps: F64) -> bytes:
    """Pack columns; those of equal steps stand together, and those that have ``all_steps`` do not repeat them."""
    everywhere = all_steps.tobytes()
    together: dict[bytes, list[int]] = {everywhere: []}
    for index in sorted(columns):
        together.setdefault(columns[index][0].tobytes(), []).append(index)
    chunks: list[_Chunk] = []
    for key, series in together.items():
        steps = b"" if key == everywhere else _squeeze(columns[series[0]][0])
        groups = [series[at : at + CHUNK_COLUMNS] for at in range(0, len(series), CHUNK_COLUMNS)]
        chunks += [_Chunk(group, steps, _squeeze(np.stack([columns[i][1] for i in group]))) for group in groups]
    return _encoder.encode(_Packed(_squeeze(all_steps), chunks))


def unpack(data: bytes, wanted: Collection[int] | None = None) -> Columns:
    """Unpack columns, only the wanted ones when given.

    Raises
    ------
    DecodeError
        The bytes are not packed columns.
    """
    columns: Columns = {}
    try:
        packed = _decoder.decode(data)
        known = {b"": _stretch(packed.steps)}
        for chunk in packed.chunks:
            if wanted is None or any(index in wanted for index in chunk.index):
                if chunk.steps not in known:
                    known[chunk.steps] = _stretch(chunk.steps)
                steps = known[chunk.steps]
                rows = _stretch(chunk.values).reshape(len(chunk.index), len(steps))
                columns |= {
                    index: (steps, row)
                    for index, row in zip(chunk.index, rows, strict=True)
                    if wanted is None or index in wanted
                }
    except (msgspec.MsgspecError, zlib.error, ValueError) as error:
        raise DecodeError(f"not a block: {error}") from error
    return columns


def _squeeze(values: AnyArray) -> bytes:
    """Compress numbers byte plane by byte plane: what is noise in a float stays apart from what is not."""
    plain = np.ascontiguousarray(values, dtype="<f8")
    return zlib.compress(plain.view(np.uint8).reshape(-1, 8).T.tobytes(), _LEVEL)


def _stretch(data: bytes) -> F64:
    planes = np.frombuffer(zlib.decompress(data), dtype=np.uint8).reshape(8, -1)
    values: np.ndarray[Any, np.dtype[np.float64]] = np.ascontiguousarray(planes.T).reshape(-1).view("<f8")
    return values


def decode_frame(incarnation: int, seq: int, step: int, data: bytes, crc: int) -> Frame | None:
    """Decode a frame that is stored by itself; None when it is damaged."""
    if checksum(data, incarnation, seq, step) != crc:
        return None
    try:
        message = codec.decode(data)
    except DecodeError:
        return None
    return message if isinstance(message, Frame) else None


class Block(msgspec.Struct, frozen=True):
    """Frames of one incarnation, ready to be stored."""

    incarnation: int
    first_seq: int
    last_seq: int
    first_step: int
    last_step: int
    count: int
    columns: Columns
    data: bytes

    @property
    def numbers(self) -> tuple[int, ...]:
        """What the checksums cover beside the bytes."""
        return (self.incarnation, self.first_seq, self.last_seq, self.first_step, self.last_step, self.count)


def build(frames: Sequence[Frame]) -> Block:
    """Make a block of frames of one incarnation, given in the order of their sequence numbers."""
    steps = np.array([frame.step for frame in frames], dtype=np.float64)
    columns = _columns_of_kinds(frames, steps) or columns_of(frames)
    return Block(
        incarnation=frames[0].incarnation,
        first_seq=frames[0].seq,
        last_seq=frames[-1].seq,
        first_step=int(steps.min()),
        last_step=int(steps.max()),
        count=len(frames),
        columns=columns,
        data=pack(columns, steps),
    )


def _columns_of_kinds(frames: Sequence[Frame], steps: F64) -> Columns | None:
    """Sort the numbers of frames by series, table by table; None where frames of too many kinds make that slow.

    Frames of one kind have the same series. Series that the same kinds of frames have share their array of steps.
    """
    names = [frame.index.data for frame in frames]
    kinds: dict[bytes, list[int]] = {name: [] for name in names}
    if len(kinds) > FRAME_KINDS:
        return None
    for place, name in enumerate(names):
        kinds[name].append(place)
    tables: list[F64] = []
    found: dict[int, dict[int, int]] = {}
    for kind, places in enumerate(kinds.values()):
        series = frames[places[0]].index.numpy().tolist()
        if len(set(series)) < len(series):
            return None
        numbers = np.frombuffer(b"".join([frames[place].values.data for place in places]), dtype="<f8")
        tables.append(numbers.reshape(len(places), len(series)))
        if len(kinds) == 1:
            return _shared(series, steps, tables[0])
        for at, one in enumerate(series):
            found.setdefault(one, {})[kind] = at
    alike: dict[tuple[int, ...], list[int]] = {}
    for one, where in found.items():
        alike.setdefault(tuple(where), []).append(one)
    members = list(kinds.values())
    columns: Columns = {}
    for own, series in alike.items():
        rows = np.concatenate([members[kind] for kind in own])
        order = np.argsort(rows)
        table = np.concatenate([tables[kind][:, [found[one][kind] for one in series]] for kind in own])[order]
        columns |= _shared(series, steps if len(rows) == len(frames) else steps[rows[order]], table)
    return columns


def _shared(series: Sequence[int], steps: F64, table: F64) -> Columns:
    """Part a table (steps, series) into columns that share the array of their steps."""
    return {one: (steps, row) for one, row in zip(series, np.ascontiguousarray(table.T), strict=True)}
