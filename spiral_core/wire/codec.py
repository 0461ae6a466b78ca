"""Messages to bytes and back: MessagePack for the wire and the run log, JSON for HTTP.

Any bytes give a message or `DecodeError`; nothing else escapes.

A *packet* is what one websocket message carries: messages one after the other, each behind its length as an unsigned
32-bit little-endian number. The run log stores the same message bytes, so that a courier forwards without re-encoding.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import msgspec

from spiral_core.errors import DecodeError
from spiral_core.wire.limits import MAX_MESSAGE_BYTES, MAX_PACKET_BYTES, MOST_NESTED
from spiral_core.wire.messages import AnyMessage, Frame, Message
from spiral_core.wire.parts import Array

_LENGTH = struct.Struct("<I")
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)

T = TypeVar("T")


def encode(message: Message) -> bytes:
    """Pack one message."""
    return _encoder.encode(message)


def decode(data: bytes | memoryview) -> AnyMessage:
    """Unpack one message.

    Raises
    ------
    DecodeError
        The bytes are not exactly one message of the protocol, they exceed `MAX_MESSAGE_BYTES`, or they hold what
        nobody could use, such as an array that does not fill its shape.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise DecodeError(f"a message of {len(data)} bytes exceeds the limit of {MAX_MESSAGE_BYTES}")
    try:
        message = _decoder.decode(data)
        _check(message)
    except DecodeError:
        raise
    # RecursionError: deeply nested input; msgspec limits nothing but the interpreter's own stack.
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError, OverflowError) as error:
        raise DecodeError(f"not a message: {error}") from error
    return message


def _check(part: object) -> None:
    """Refuse what the types allow and nobody could use, at the door and not where it is first used.

    Arrays whose bytes do not fill their shape; configurations that JSON could not carry on.
    """
    if isinstance(part, Frame):
        # By far the most frequent message: nine of ten on the way to the disk.
        part.index.check()
        part.values.check()
    elif isinstance(part, Array):
        part.check()
    elif isinstance(part, msgspec.Struct):
        for name in part.__struct_fields__:
            value = getattr(part, name)
            if isinstance(value, (msgspec.Struct, list)):
                _check(value)
            elif isinstance(value, dict):
                _check_plain(value, 0)
    elif isinstance(part, list) and part and isinstance(part[0], msgspec.Struct):
        for item in part:
            _check(item)


def _check_plain(value: object, depth: int) -> None:
    """Refuse what JSON has no word for, and what is nested too deeply."""
    if isinstance(value, (dict, list)):
        if depth == MOST_NESTED:
            raise DecodeError(f"a configuration is nested more than {MOST_NESTED} deep")
        if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
            raise DecodeError("a configuration has a name that is no text")
        for item in value.values() if isinstance(value, dict) else value:
            _check_plain(item, depth + 1)
    elif value is not None and not isinstance(value, (bool, int, float, str)):
        raise DecodeError(f"a configuration holds a {type(value).__name__}, which JSON does not have")


class _Numbered(msgspec.Struct):
    seq: int


_numbered: msgspec.msgpack.Decoder[_Numbered] = msgspec.msgpack.Decoder(_Numbered)


def sequence_number(data: bytes) -> int:
    """Read the sequence number of an encoded `Logged` message and nothing else of it.

    Raises
    ------
    DecodeError
        The bytes are no message of a run.
    """
    try:
        return _numbered.decode(data).seq
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError, OverflowError) as error:
        raise DecodeError(f"not a message of a run: {error}") from error


def join(messages: Iterable[bytes]) -> bytes:
    """Make a packet of encoded messages."""
    parts: list[bytes] = []
    for data in messages:
        parts.append(_LENGTH.pack(len(data)))
        parts.append(data)
    return b"".join(parts)


def split(packet: bytes) -> Iterator[bytes]:
    """Take a packet apart into encoded messages.

    Raises
    ------
    DecodeError
        The packet is too large or a length runs past its end.
    """
    if len(packet) > MAX_PACKET_BYTES:
        raise DecodeError(f"a packet of {len(packet)} bytes exceeds the limit of {MAX_PACKET_BYTES}")
    position = 0
    while position < len(packet):
        if position + _LENGTH.size > len(packet):
            raise DecodeError("a packet ends within a length")
        (length,) = _LENGTH.unpack_from(packet, position)
        position += _LENGTH.size
        if position + length > len(packet):
            raise DecodeError(f"a message of {length} bytes runs past the end of its packet")
        yield packet[position : position + length]
        position += length


def encode_packet(messages: Iterable[Message]) -> bytes:
    """Encode messages into one packet."""
    return join(encode(message) for message in messages)


def decode_packet(packet: bytes) -> list[AnyMessage]:
    """Decode every message of a packet; all or `DecodeError`."""
    return [decode(data) for data in split(packet)]


def plain(value: Any) -> Any:  # noqa: ANN401 - JSON's own types have no better name
    """Turn structs into dicts and lists for JSON: arrays as nested lists, non-finite numbers as strings.

    JSON has no NaN and no infinity; they become ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``.
    """
    if isinstance(value, Array):
        return plain(value.numpy().tolist())
    if isinstance(value, msgspec.Struct):
        fields = {name: plain(getattr(value, name)) for name in value.__struct_fields__}
        tag = value.__struct_config__.tag
        return fields if tag is None else {"type": tag, **fields}
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def to_json(value: object) -> bytes:
    """Write structs, lists and dicts as JSON (see `plain`)."""
    return msgspec.json.encode(plain(value))


def from_json(data: bytes, kind: type[T]) -> T:
    """Read a struct from JSON.

    Raises
    ------
    DecodeError
        The text is not JSON or does not fit ``kind``; the message names the field.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise DecodeError(str(error)) from error
