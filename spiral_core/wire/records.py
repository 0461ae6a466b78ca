"""The form of a run log: a header, then messages with checksums. Bytes in, bytes out.

A record is ::

    length  uint32   bytes of the message
    crc     uint32   CRC-32 of the message
    check   uint32   CRC-32 of the two numbers before it: a damaged length must not look like a record half written
    message          MessagePack, as it goes on the wire

behind an eight-byte header. A log goes on in further files once it has grown large: ``frames.log``, ``frames.log.1``,
``frames.log.2`` and so on; later incarnations have ``frames-001.log`` in its place.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import NamedTuple

from spiral_core.errors import DecodeError
from spiral_core.wire.limits import MAX_MESSAGE_BYTES

MAGIC = b"SPIRLOG1"
_HEAD = struct.Struct("<II")
_CHECK = struct.Struct("<I")
HEAD_BYTES = _HEAD.size + _CHECK.size
LOG_NAME = re.compile(r"frames(?:-(?P<incarnation>\d{3,}))?\.log(?:\.(?P<part>\d+))?", re.ASCII)
"""Names of the files of run logs in a run directory."""


class Parsed(NamedTuple):
    """A record, and where it ends."""

    data: bytes
    end: int


def record(data: bytes) -> bytes:
    """Make a record of an encoded message."""
    head = _HEAD.pack(len(data), zlib.crc32(data))
    return b"".join((head, _CHECK.pack(zlib.crc32(head)), data))


def parse(data: bytes, offset: int) -> Parsed | None:
    """Read the record at an offset; None when it is not whole.

    Raises
    ------
    DecodeError
        It is damaged.
    """
    body = offset + HEAD_BYTES
    if len(data) < body:
        return None
    length, crc = _HEAD.unpack_from(data, offset)
    if _CHECK.unpack_from(data, offset + _HEAD.size)[0] != zlib.crc32(data[offset : offset + _HEAD.size]):
        raise DecodeError("its length cannot be trusted")
    if length > MAX_MESSAGE_BYTES:
        raise DecodeError(f"a record of {length} bytes exceeds the limit of {MAX_MESSAGE_BYTES}")
    if len(data) < body + length:
        return None
    message = data[body : body + length]
    if zlib.crc32(message) != crc:
        raise DecodeError("checksum does not match")
    return Parsed(message, body + length)
