"""The one place that imports numba: the ``kernel`` decorator, its registry, the disk cache, and warming.

A kernel is a plain loop nest over arrays that has been declared with `kernel`. It knows nothing of layers, and it
allocates nothing large. What is deliberately absent: parallel loops (see `spiral_core.kernels.pool`) and any flag that
would let the compiler assume that a number is finite, so that a NaN is always seen.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import llvmlite.binding
import numba
import numba.extending
import numpy as np
import platformdirs
from numpy.typing import DTypeLike

from spiral_core.errors import ArgumentError

P = ParamSpec("P")
R = TypeVar("R")

FASTMATH = {"contract", "reassoc"}
"""Fused multiply-add and reordered sums only; ``nnan`` and ``ninf`` would hide a diverged run."""

FLOAT = "{f}"
"""The placeholder for the float type in a signature template."""

JIT_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": FASTMATH, "boundscheck": False}

CACHE_DIR_VARIABLE = "SPIRAL_CACHE_DIR"


@dataclass(frozen=True)
class KernelEntry:
    """One declared kernel.

    Parameters
    ----------
    name : str
        The name of the function.
    template : str
        Its numba signature with ``{f}`` where the float type goes.
    dispatcher : object
        What numba made of it.
    """

    name: str
    template: str
    dispatcher: Any

    def signature(self, dtype: DTypeLike) -> str:
        """Return the numba signature for one float dtype."""
        return self.template.replace(FLOAT, float_name(dtype))


_REGISTRY: dict[str, KernelEntry] = {}


def float_name(dtype: DTypeLike) -> str:
    """Return ``"float32"`` or ``"float64"``.

    Raises
    ------
    ArgumentError
        Any other dtype.
    """
    name = np.dtype(dtype).name
    if name not in ("float32", "float64"):
        raise ArgumentError(f"dtype {name} has no kernels: use float32 or float64")
    return name


def _source_digest() -> str:
    """Hash everything that decides what machine code a kernel becomes.

    Numba's own cache looks only at the file of the outermost function, so an edit to a function that is called from
    another file would be missed; hence one digest over all kernel sources.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    for distribution in ("numba", "numpy", "llvmlite"):
        digest.update(importlib.metadata.version(distribution).encode())
    digest.update(llvmlite.binding.get_host_cpu_name().encode())
    digest.update(llvmlite.binding.get_host_cpu_features().flatten().encode())
    return digest.hexdigest()[:16]


def cache_directory() -> Path:
    """Return the folder that holds the compiled kernels of exactly this source, numba and processor.

    The root is ``SPIRAL_CACHE_DIR`` where that is set, else the user's cache folder.
    """
    root = os.environ.get(CACHE_DIR_VARIABLE) or platformdirs.user_cache_dir("spiral")
    return Path(root) / "kernels" / _DIGEST


_DIGEST = _source_digest()
_DIRECTORY = cache_directory()


def _writable(directory: Path) -> bool:
    """Try it out: permissions do not tell, for a file system may be read-only or a parent may be a file."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError:
        return False


_CACHED = _writable(_DIRECTORY)
"""Where our folder cannot be written, numba is told to cache nothing: it would look for a folder of its own, beside
the sources, and raise where there is none."""


@contextmanager
def _our_cache() -> Iterator[None]:
    """Point numba's cache at our folder, for the moment of decoration only: other users of numba keep theirs."""
    config = cast("Any", numba.config)
    before = config.CACHE_DIR
    config.CACHE_DIR = str(_DIRECTORY)
    try:
        yield
    finally:
        config.CACHE_DIR = before


def kernel(template: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Declare a compiled loop.

    Parameters
    ----------
    template : str
        The numba signature, with ``{f}`` for the float type: ``"void(int64, {f}[::1])"``.

    Returns
    -------
    decorator
        Gives back something callable with the signature of the function, both from Python and from other kernels.
        Nothing is compiled until `warm` or the first call.
    """

    def declare(function: Callable[P, R]) -> Callable[P, R]:
        with _our_cache():
            dispatcher = numba.njit(cache=_CACHED, **JIT_OPTIONS)(function)
        name = function.__name__
        if name in _REGISTRY:
            raise ArgumentError(f"two kernels are called {name!r}: rename one")
        _REGISTRY[name] = KernelEntry(name, template, dispatcher)
        return cast("Callable[P, R]", dispatcher)

    return declare


def choose_by_dtype(function: Callable[P, R], *, float32: Callable[P, R], float64: Callable[P, R]) -> None:
    """Let compiled code that calls ``function`` run one of two bodies, by the dtype of the (single) argument.

    Outside compiled code ``function`` itself runs, so it must be a correct definition too.
    """

    def choose(x: Any) -> Callable[P, R]:  # noqa: ANN401 - a numba type object, which has no stubs
        return float32 if x == numba.types.float32 else float64

    options = {"error_model": "numpy", "fastmath": FASTMATH}
    cast("Any", numba.extending).overload(function, jit_options=options)(choose)


def scalar(value: float, dtype: DTypeLike) -> float:
    """Return a number in the float type of a kernel's arrays, which is what its signature takes."""
    return cast("float", np.array(value, dtype)[()])


def registered() -> dict[str, KernelEntry]:
    """Return every declared kernel by name."""
    return dict(_REGISTRY)


def python_function(function: Callable[P, R]) -> Callable[P, R]:
    """Return the plain Python loop behind a kernel, for tests."""
    return cast("Callable[P, R]", cast("Any", function).py_func)


def _entries(names: Sequence[str]) -> list[KernelEntry]:
    unknown = [name for name in names if name not in _REGISTRY]
    if unknown:
        raise ArgumentError(f"no kernel is called {unknown[0]!r}; there are {', '.join(sorted(_REGISTRY))}")
    return [_REGISTRY[name] for name in dict.fromkeys(names)]


def compile_plan(names: Sequence[str], dtype: DTypeLike) -> list[tuple[str, str]]:
    """Return ``(name, signature)`` of each kernel that `warm` would make ready, in order and without repeats.

    Raises
    ------
    ArgumentError
        An unknown kernel name, or a dtype other than float32 and float64.
    """
    return [(entry.name, entry.signature(dtype)) for entry in _entries(names)]


def _mark(name: str, dtype: DTypeLike) -> Path:
    return _DIRECTORY / f"{name}.{float_name(dtype)}.ready"


def cold_count(names: Sequence[str], dtype: DTypeLike) -> int:
    """Return how many of these kernels have not been compiled on this machine yet (0: a warm start)."""
    return sum(not _mark(entry.name, dtype).exists() for entry in _entries(names))


def warm(names: Sequence[str], dtype: DTypeLike, on_progress: Callable[[int, int, str], None] | None = None) -> None:
    """Compile kernels ahead of use, or load them from the disk cache.

    Parameters
    ----------
    names : sequence of str
        Kernel names, as `spiral_core.nn.Sequential.kernels` gives them; repeats are compiled once.
    dtype : float32 or float64
    on_progress : callable, optional
        Called as ``on_progress(done, total, name)`` before each kernel, and once more at the end with
        ``done == total`` and an empty name.

    Raises
    ------
    ArgumentError
        An unknown kernel name or dtype. Nothing was compiled.
    """
    entries = _entries(names)
    float_name(dtype)
    report = on_progress or (lambda _done, _total, _name: None)
    for done, entry in enumerate(entries):
        report(done, len(entries), entry.name)
        # The one input and output here is writing the cache, after the kernel is ready for use: a full disk costs time
        # at the next start and nothing else.
        with suppress(OSError):
            entry.dispatcher.compile(entry.signature(dtype))
        _note_ready(entry.name, dtype)
    report(len(entries), len(entries), "")


def _note_ready(name: str, dtype: DTypeLike) -> None:
    mark = _mark(name, dtype)
    if mark.exists():
        return
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError:
        return
