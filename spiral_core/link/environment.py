"""What a run is computed with, besides its inputs: looked at when two computations differ."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import msgspec

from spiral_core import __version__, kernels
from spiral_core.errors import RunLogError

_OWN = frozenset({"pid"})
"""Differs between any two processes and explains nothing."""


def environment() -> dict[str, str]:
    """Describe what a run's numbers may depend on besides its inputs."""
    return {
        "spiral": __version__,
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "numba": version("numba"),
        "kernels": kernels.cache_directory().name,
        "machine": platform.machine(),
        "processor": _of_processor("model name"),
        "features": _of_processor("flags"),
        "threads": str(kernels.get_num_threads()),
        "pid": str(os.getpid()),
    }


def _of_processor(field: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(field)), "")


def note(path: Path) -> None:
    """Write our environment down.

    Raises
    ------
    RunLogError
        The disk is full or gone.
    """
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(environment())) + b"\n")
    except OSError as error:
        raise RunLogError(f"cannot write {path}: {error.strerror}; free some space") from error


def differences(path: Path) -> list[str]:
    """Tell in what the environment that was written down differs from ours; nothing where it cannot be read."""
    try:
        theirs = msgspec.json.decode(path.read_bytes(), type=dict[str, str])
    except (OSError, msgspec.MsgspecError):
        return []
    ours = environment()
    told = []
    for name in sorted((theirs.keys() | ours.keys()) - _OWN):
        there, here = theirs.get(name, ""), ours.get(name, "")
        if name == "features":
            only_there, only_here = set(there.split()) - set(here.split()), set(here.split()) - set(there.split())
            there, here = " ".join(sorted(only_there)), " ".join(sorted(only_here))
        if there != here:
            told.append(f"{name}: {there or 'nothing'} then, {here or 'nothing'} now")
    return told
