"""What training needs of a machine, looked at one by one: each finding names its remedy.

Loads the kernels, for they are what is looked at; `spiral doctor` prints the findings.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, NamedTuple, TypeAlias

State: TypeAlias = Literal["good", "note", "bad"]

LEAST_PYTHON = (3, 11)
PACKAGES = ("numpy", "numba", "scipy", "msgspec", "websockets", "fastapi", "uvicorn", "safetensors")


class Finding(NamedTuple):
    """One thing that was looked at."""

    what: str
    state: State
    """``note`` is worth knowing and hinders nothing."""
    found: str
    remedy: str = ""


def look() -> list[Finding]:
    """Look at interpreter, packages, threads and the cache of compiled kernels."""
    checks: tuple[tuple[str, Callable[[], Finding]], ...] = (
        ("python", _python),
        ("versions", _versions),
        ("threads", _threads),
        ("kernel cache", _kernel_cache),
        ("kernels", _kernels),
    )
    return [_tried(name, check) for name, check in checks]


def _tried(name: str, check: Callable[[], Finding]) -> Finding:
    """Look at one thing; what cannot be looked at is a finding too, and the others are still looked at."""
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - a broken installation raises anything
        return Finding(
            name,
            "bad",
            f"{type(error).__name__}: {error}",
            "install Spiral again: pip install --force-reinstall spiral",
        )


def _python() -> Finding:
    found = f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}"
    if sys.version_info < LEAST_PYTHON:
        return Finding("python", "bad", found, "install Python 3.11 or newer")
    return Finding("python", "good", found)


def _versions() -> Finding:
    found, missing = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        return Finding("versions", "bad", f"not installed: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    return Finding("versions", "good", ", ".join(found))


def _threads() -> Finding:
    from spiral_core import kernels

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = kernels.get_num_threads()
    found = f"{threads} of {cores} cores compute"
    if cores < 2:
        return Finding("threads", "note", found, "give the process two cores: server and page need one of their own")
    if threads > cores:
        return Finding("threads", "note", found, f"set SPIRAL_THREADS to {cores - 1}: more threads than cores fight")
    return Finding("threads", "good", found)


def _kernel_cache() -> Finding:
    from spiral_core import kernels

    directory = kernels.cache_directory()
    probe = directory / f".probe-{os.getpid()}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        remedy = "set SPIRAL_CACHE_DIR to a folder that can be written; without it each start compiles anew"
        return Finding("kernel cache", "bad", f"{directory} cannot be written: {error.strerror}", remedy)
    kept = sum(1 for _ in directory.rglob("*.nbi"))
    if not kept:
        return Finding(
            "kernel cache", "note", f"{directory} is empty", "the first run compiles for about half a minute"
        )
    return Finding("kernel cache", "good", f"{directory}: {kept} functions")


def _kernels() -> Finding:
    import numpy as np

    from spiral_core import nn

    norm = nn.ZSpaceBatchNorm1d("checkup", 4, -1.0, 0.1, 1e-5)
    out = norm.forward(np.arange(8, dtype=np.float32).reshape(2, 4))
    if not np.isfinite(out).all():
        return Finding("kernels", "bad", "a compiled kernel computes what is not finite", "delete the kernel cache")
    return Finding("kernels", "good", "compiled, and compute")
