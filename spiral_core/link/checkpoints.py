"""Checkpoints on disk: ``RUN/checkpoints/step-00001234.safetensors``, whole or not at all.

The arrays are those of `spiral_core.engine.checkpoint`; the metadata is JSON in the file's own metadata, beside a
SHA-256 over it and over every array. A file is written under another name, synced, and renamed; when it is read, its
digest is computed anew, so that no damaged number is ever trained on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors import numpy as tensors

from spiral_core.arrays import AnyArray
from spiral_core.errors import CheckpointError
from spiral_core.link import durable

SUFFIX = ".safetensors"
_LENGTH_BYTES = 8
MOST_HEADER_BYTES = 100_000_000
"""As the format's own library has it."""

_MALFORMED = (ValueError, KeyError, TypeError, OverflowError, RecursionError)
"""What reading JSON of anybody's making may raise, and taking numbers out of it."""

KEPT_FOR_GOOD = "steer"
"""Checkpoints that were taken for this reason are not pruned."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says of itself, without its arrays."""

    path: Path
    step: int
    rev: int
    incarnation: int
    position: int
    """How many of the commands in the applied log the state has behind it."""
    reason: str
    """``"every"``, ``"steer"``, ``"asked"`` or ``"end"``."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint that has just been written."""

    checkpoint: Checkpoint
    size: int
    """In bytes."""
    digest: str
    """SHA-256 of metadata and arrays, in hexadecimal."""


def _digest(told: str, arrays: Mapping[str, AnyArray]) -> str:
    content = hashlib.sha256(told.encode())
    for name, array in sorted(arrays.items()):
        content.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        content.update(np.asarray(array, order="C").tobytes())
    return content.hexdigest()


def _header(data: bytes) -> tuple[str, str]:
    """Give what was written beside the arrays: metadata and digest.

    Raises
    ------
    ValueError, KeyError, TypeError, RecursionError
        There is no such header.
    """
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    if not 2 <= length <= min(MOST_HEADER_BYTES, len(data) - _LENGTH_BYTES):
        raise ValueError("its header does not fit into it")
    words = json.loads(data[_LENGTH_BYTES : _LENGTH_BYTES + length])["__metadata__"]
    return str(words["run"]), str(words["digest"])


def _described(path: Path, metadata: Mapping[str, Any]) -> Checkpoint:
    values = metadata["values"]
    return Checkpoint(
        path=path,
        step=int(values["step"]),
        rev=int(values["rev"]),
        incarnation=int(metadata["incarnation"]),
        position=int(metadata["position"]),
        reason=str(metadata["reason"]),
    )


class CheckpointFolder:
    """The checkpoints of one run.

    Parameters
    ----------
    path : Path
        Made when the first one is written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def file(self, step: int) -> Path:
        """Give where the checkpoint of a step lies, or would lie."""
        return self._path / f"step-{step:08d}{SUFFIX}"

    def save(
        self,
        arrays: Mapping[str, AnyArray],
        metadata: Mapping[str, Any],
        *,
        incarnation: int,
        position: int,
        reason: str,
    ) -> Saved:
        """Write a checkpoint; when this returns, the disk has it under its name. An older one of the step gives way.

        Raises
        ------
        CheckpointError
            The disk is full or gone. Nothing is left behind, and an older checkpoint of the step is still there.
        """
        metadata = {**metadata, "incarnation": incarnation, "position": position, "reason": reason}
        path = self.file(int(metadata["values"]["step"]))
        told = json.dumps(metadata, allow_nan=False, sort_keys=True)
        digest = _digest(told, arrays)
        plain = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        data = tensors.save(plain, metadata={"run": told, "digest": digest})
        part = path.with_suffix(".part")
        try:
            if not self._path.is_dir():
                durable.make_folder(self._path)
            durable.write(part, data)
            part.replace(path)
            durable.sync_folder(self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink()
            raise CheckpointError(
                f"the checkpoint {path} cannot be written: {error.strerror}; free some space"
            ) from error
        return Saved(_described(path, metadata), len(data), digest)

    def load(self, path: Path) -> tuple[dict[str, AnyArray], dict[str, Any]]:
        """Read a checkpoint and check every bit of it.

        Raises
        ------
        CheckpointError
            The file is missing or damaged; names it, and an older one.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise CheckpointError(f"cannot read {path}: {error.strerror}{self._instead(path)}") from error
        try:
            told, digest = _header(data)
            arrays: dict[str, AnyArray] = tensors.load(data)
        except (*_MALFORMED, safetensors.SafetensorError) as error:
            raise CheckpointError(f"{path} is damaged: {error}{self._instead(path)}") from error
        if _digest(told, arrays) != digest:
            raise CheckpointError(f"{path} is damaged: its contents do not match its SHA-256{self._instead(path)}")
        return arrays, dict(json.loads(told))

    def _instead(self, path: Path) -> str:
        older = [one.path.name for one in self.listed() if one.path.name < path.name]
        return f"; use an older one: {older[-1]}" if older else "; there is no older one"

    def listed(self) -> list[Checkpoint]:
        """Give the checkpoints whose headers can be read, by step; their arrays are not looked at."""
        found = []
        for path in sorted(self._path.glob(f"step-*{SUFFIX}")):
            with contextlib.suppress(OSError, *_MALFORMED), path.open("rb") as file:
                length = file.read(_LENGTH_BYTES)
                rest = file.read(min(int.from_bytes(length, "little"), MOST_HEADER_BYTES))
                found.append(_described(path, json.loads(_header(length + rest)[0])))
        return found

    def prune(self, keep: int, holds: Callable[[Checkpoint], bool]) -> None:
        """Delete all but the last ``keep`` checkpoints of the run as it now is, and those taken at a steer.

        Parameters
        ----------
        keep : int
            At least 1.
        holds : callable
            Tells whether a checkpoint is part of the run as it now is; one of a future that was given up is deleted.
        """
        all_of_them = self.listed()
        current = [one for one in all_of_them if holds(one)]
        passing = [one for one in current if one.reason != KEPT_FOR_GOOD]
        spared = {one.path for one in current if one.reason == KEPT_FOR_GOOD} | {one.path for one in passing[-keep:]}
        for one in all_of_them:
            if one.path not in spared:
                with contextlib.suppress(OSError):
                    one.path.unlink()
