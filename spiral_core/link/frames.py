"""What earlier incarnations of a run have said of a step."""

from __future__ import annotations

from contextlib import suppress

import msgspec

from spiral_core.errors import RunLogError
from spiral_core.link.rundir import RunDir
from spiral_core.link.runlog import RunLogReader
from spiral_core.wire import codec
from spiral_core.wire.messages import Frame

_FRAME = str(Frame.__struct_config__.tag).encode()


class _Place(msgspec.Struct):
    step: int


def values_at(directory: RunDir, incarnation: int, step: int) -> dict[int, float]:
    """Give the values of a step by index of their series, from the newest log before an incarnation that has any."""
    decoder = msgspec.msgpack.Decoder(_Place)
    for _, path in reversed(directory.segments(incarnation - 1)):
        found: dict[int, float] = {}
        with suppress(RunLogError), RunLogReader(path) as reader:
            for record in reader.records():
                # Decoding every frame of a long run would take minutes.
                if _FRAME in record.data and decoder.decode(record.data).step == step:
                    message = codec.decode(record.data)
                    if isinstance(message, Frame):
                        found.update(zip(message.index.numpy().tolist(), message.values.numpy().tolist(), strict=True))
        if found:
            return found
    return {}
