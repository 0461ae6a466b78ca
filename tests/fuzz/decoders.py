"""Everything that reads bytes which others have written, with the errors that each may answer with.

Each reader takes arbitrary bytes. Whatever it lets in is also used the way the program uses it, because a value that
fails where it is used is as bad as one that fails where it is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import msgspec
import numpy as np

from spiral_core.cli_sync import token_of
from spiral_core.engine.config import for_data
from spiral_core.errors import CheckpointError, ConfigError, DecodeError, RunLogError
from spiral_core.link import applied
from spiral_core.link.checkpoints import CheckpointFolder
from spiral_core.link.resume import config_from
from spiral_core.link.rundir import RunDir
from spiral_core.link.runlog import RunLogReader
from spiral_core.link.triggers import FileTriggers
from spiral_core.wire import codec, records
from spiral_core.wire.messages import CommandRequest, Logged
from spiral_core.wire.parts import Array
from spiral_core.wire.requests import malformed
from spiral_server.launch import listening, tokens
from spiral_server.live.soundness import unsound
from spiral_server.store import blocks, pyramid, spool

from .noise import ALL, message

GOLDEN = Path(__file__).parents[1] / "golden" / "wire"


class Reader(NamedTuple):
    """One way in.

    ``read`` takes the bytes and raises nothing but ``errors``; ``seeds`` are bytes that it takes.
    """

    name: str
    read: Callable[[bytes], object]
    errors: tuple[type[Exception], ...]
    seeds: list[bytes]


def arrays(part: object) -> Iterator[Array]:
    """Give the arrays of a message."""
    if isinstance(part, Array):
        yield part
    elif isinstance(part, msgspec.Struct):
        for name in part.__struct_fields__:
            yield from arrays(getattr(part, name))
    elif isinstance(part, (list, tuple)):
        for one in part:
            yield from arrays(one)


def read_message(data: bytes) -> None:
    """Decode a message, then do with it what is done with messages."""
    read = codec.decode(data)
    again = codec.encode(read)
    assert codec.encode(codec.decode(again)) == again, "a message changes on its way"
    for array in arrays(read):
        assert array.numpy().nbytes == len(array.data)
    json.loads(codec.to_json(read))
    if isinstance(read, Logged):
        assert codec.sequence_number(data) == read.seq
        unsound(read, run="r1", incarnation=0)


def read_packet(data: bytes) -> None:
    """Decode a packet; its messages are those of its parts."""
    read = codec.decode_packet(data)
    assert len(read) == len(list(codec.split(data)))


def read_command(data: bytes) -> None:
    """Read a command as HTTP takes it, and write it as the answer does."""
    asked = codec.from_json(data, CommandRequest)
    if malformed(asked) is None:
        json.loads(codec.to_json(asked))
        codec.encode_packet([])
        msgspec.msgpack.encode(asked)


class Folder:
    """A directory of a run, for the readers of files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run = RunDir(path, "r1")

    def put(self, name: str, data: bytes) -> Path:
        """Write a file."""
        path = self.path / name
        path.write_bytes(data)
        return path

    def run_log(self, data: bytes) -> int:
        """Read a run log, once as the courier does and once as the mending does."""
        path = self.put("frames.log", data)
        reader = None
        try:
            list(spool.entries(self.path, 0, lambda _: True))
            reader = RunLogReader(path)
            return len(list(reader.records()))
        finally:
            if reader is not None:
                reader.close()

    def lines(self, data: bytes) -> None:
        """Read commands by file, until nothing is left."""
        self.put("commands.jsonl", data)
        files = FileTriggers(self.run, [])
        for _ in range(4):
            for found in files.look(0.0, at_once=True):
                assert found.reason is None or isinstance(found.reason, str)
                json.loads(codec.to_json(found.request))

    def access(self, data: bytes) -> None:
        """Read what a server writes down for itself and for programs beside it."""
        self.put("server.json", data)
        listening.announced(self.path)
        listening.forget(self.path)
        token_of(self.path, "http://127.0.0.1:1")
        self.put("access.json", data)
        listening.lasting_access(self.path, None)

    def tokens(self, data: bytes) -> None:
        """Read the named tokens."""
        self.put(tokens.FILE, data)
        tokens.read(self.path)

    def checkpoint(self, data: bytes) -> None:
        """List and read a checkpoint."""
        path = self.put("step-00000001.safetensors", data)
        folder = CheckpointFolder(self.path)
        folder.listed()
        folder.load(path)

    def config(self, data: bytes) -> None:
        """Read a configuration."""
        config_from(self.put("config.json", data))

    def applied(self, data: bytes) -> None:
        """Read an applied log."""
        applied.read(self.put("applied.log", data))


def golden() -> list[bytes]:
    """Give the packets that the page's own codec is tested with."""
    return [path.read_bytes() for path in sorted(GOLDEN.glob("*.bin"))]


def said(random: Random) -> list[bytes]:
    """Give messages of every kind."""
    drawn = [codec.encode(message(random, [kind])) for kind in ALL]
    return drawn + [data for packet in golden() for data in codec.split(packet)]


def _checkpoint(folder: Path) -> bytes:
    told = {"values": {"step": 3, "rev": 0}}
    made = CheckpointFolder(folder / "made")
    saved = made.save({"w": np.arange(3.0)}, told, incarnation=0, position=0, reason="every")
    return saved.checkpoint.path.read_bytes()


def _applied(folder: Path) -> bytes:
    path = folder / "made.log"
    log = applied.AppliedLog(path)
    log.begin(applied.Origin(run="r1", name="n", config="0"))
    log.resume(applied.Resumed(resumed=0, rev=0, kept=0, incarnation=1))
    log.close()
    return path.read_bytes()


def readers(path: Path) -> list[Reader]:
    """List every reader of outside bytes; those of files read them in a directory."""
    random, folder = Random(0), Folder(path)
    words = said(random)
    steps = np.arange(3.0)
    columns = {0: (steps, steps), 2: (np.ones(1), np.ones(1))}
    command = b'{"id":"a","verb":"set","sets":[{"knob":"optim.lr","value":0.1}],"at_step":3}'
    kept = {"tokens": [{"name": "a", "role": "viewer", "sha256": "00", "created": 1.0}]}
    access = {"token": "t", "instance": "i", "url": "http://127.0.0.1:1"}
    log = records.MAGIC + b"".join(records.record(data) for data in words[:4])
    config = msgspec.json.encode(for_data("needle"))
    return [
        Reader("message", read_message, (DecodeError,), words),
        Reader("packet", read_packet, (DecodeError,), golden()),
        Reader("command", read_command, (DecodeError,), [command]),
        Reader("block", blocks.unpack, (DecodeError,), [blocks.pack(columns, steps)]),
        Reader("node", pyramid.unpack, (DecodeError,), [pyramid.pack(pyramid.summed_up(columns))]),
        Reader("run-log", folder.run_log, (RunLogError,), [log]),
        Reader("lines", folder.lines, (), [command + b"\n"]),
        Reader("tokens", folder.tokens, (ConfigError,), [json.dumps(kept).encode()]),
        Reader("access", folder.access, (), [json.dumps(access).encode()]),
        Reader("checkpoint", folder.checkpoint, (CheckpointError,), [_checkpoint(folder.path)]),
        Reader("config", folder.config, (ConfigError,), [config]),
        Reader("applied-log", folder.applied, (RunLogError,), [_applied(folder.path)]),
    ]


def any_of(every: Sequence[Reader]) -> Reader:
    """Make one reader of all: the first byte of what it reads chooses among them."""

    def read(data: bytes) -> bool:
        return held_to(every[data[0] % len(every)], data[1:]) if data else False

    seeds = [bytes([place]) + data for place, reader in enumerate(every) for data in reader.seeds]
    return Reader("any", read, (), seeds)


def held_to(reader: Reader, data: bytes) -> bool:
    """Let a reader read; tell whether it took the bytes. Anything but its documented errors escapes."""
    try:
        reader.read(data)
    except reader.errors:
        return False
    return True
