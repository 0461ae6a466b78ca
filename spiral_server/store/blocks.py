"""Frames to columnar blocks and back, each with a checksum.

Bytes in, bytes out: knows no database. A block holds at most `BLOCK_STEPS` frames of one incarnation. Beside its full
columns it has a summary, which is the block decimated, so that a far view of a long run reads little.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Sequence
from typing import Any

import msgspec
import numpy as np

from spiral_core.arrays import F64
from spiral_core.errors import DecodeError
from spiral_core.wire import codec
from spiral_core.wire.messages import Frame
from spiral_server.live.decimation import decimate
from spiral_server.live.merging import columns_of

BLOCK_STEPS = 256
"""Frames in a block: 2 KiB a column, about what one page of the database takes compressed."""
SUMMARY_POINTS = 18
"""Points of a series in a summary: eight buckets of two, and both ends. A view of P points uses summaries from P / 16
blocks on, and then still has a bucket for each two points."""
SUMMARY_NONFINITE = 32
_LEVEL = 1
"""Compression level of zlib: floats of a training run hardly shrink further, at four times the cost."""

Columns = dict[int, tuple[F64, F64]]
"""Series index to steps and values, both (M,)."""


class _Packed(msgspec.Struct, frozen=True, array_like=True):
    """A set of columns: where each begins and ends, then steps and values, compressed one by one."""

    index: list[int]
    counts: list[int]
    steps: list[bytes]
    """Empty for a column that has the steps of ``all_steps``."""
    values: list[bytes]
    all_steps: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Packed)


def checksum(data: bytes, *numbers: int) -> int:
    """Sum up bytes (CRC-32) together with the numbers that say what they are, so that swapped rows are found too."""
    return zlib.crc32(data, zlib.crc32(struct.pack(f"<{len(numbers)}q", *numbers)))


def pack(columns: Columns, all_steps: F64) -> bytes:
    """Pack columns; those that have exactly ``all_steps`` do not repeat them."""
    index = sorted(columns)
    steps = [b"" if np.array_equal(columns[i][0], all_steps) else _squeeze(columns[i][0]) for i in index]
    return _encoder.encode(
        _Packed(
            index=index,
            counts=[len(columns[i][0]) for i in index],
            steps=steps,
            values=[_squeeze(columns[i][1]) for i in index],
            all_steps=_squeeze(all_steps),
        )
    )


def unpack(data: bytes, wanted: Collection[int] | None = None) -> Columns:
    """Unpack columns, only the wanted ones when given.

    Raises
    ------
    DecodeError
        The bytes are not packed columns.
    """
    try:
        packed = _decoder.decode(data)
        all_steps = _stretch(packed.all_steps)
        columns: Columns = {}
        rows = zip(packed.index, packed.counts, packed.steps, packed.values, strict=True)
        for index, count, steps, values in rows:
            if wanted is None or index in wanted:
                column = (_stretch(steps) if steps else all_steps, _stretch(values))
                if not len(column[0]) == len(column[1]) == count:
                    raise DecodeError(f"series {index} of a block has parts of different lengths")
                columns[index] = column
    except (msgspec.MsgspecError, zlib.error, ValueError) as error:
        raise DecodeError(f"not a block: {error}") from error
    return columns


def _squeeze(values: F64) -> bytes:
    return zlib.compress(np.ascontiguousarray(values, dtype="<f8").tobytes(), _LEVEL)


def _stretch(data: bytes) -> F64:
    values: np.ndarray[Any, np.dtype[np.float64]] = np.frombuffer(zlib.decompress(data), dtype="<f8")
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
    data: bytes
    summary: bytes

    @property
    def numbers(self) -> tuple[int, ...]:
        """What the checksums cover beside the bytes."""
        return (self.incarnation, self.first_seq, self.last_seq, self.first_step, self.last_step, self.count)


def build(frames: Sequence[Frame]) -> Block:
    """Make a block of frames of one incarnation, given in the order of their sequence numbers."""
    steps = np.array([frame.step for frame in frames], dtype=np.float64)
    columns = columns_of(frames)
    summary: Columns = {}
    for index, (at, values) in columns.items():
        points = decimate(at, values, SUMMARY_POINTS, nonfinite=SUMMARY_NONFINITE)
        summary[index] = (points.steps, points.values)
    return Block(
        incarnation=frames[0].incarnation,
        first_seq=frames[0].seq,
        last_seq=frames[-1].seq,
        first_step=int(steps.min()),
        last_step=int(steps.max()),
        count=len(frames),
        data=pack(columns, steps),
        summary=pack(summary, steps[:0]),
    )
