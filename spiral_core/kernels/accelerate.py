"""The one place that imports numba: the ``kernel`` decorator, its registry, the disk cache, and warming.

A kernel is a plain loop nest over arrays that has been declared with `kernel`. It knows nothing of layers, and it
allocates nothing large. What is deliberately absent: parallel loops (see `spiral_core.kernels.pool`) and any flag that
would let the compiler assume that a number is finite, so that a NaN is always seen.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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

RANGED = "void(int64, int64, int64, "
"""How the template of a kernel begins that does chunks ``start`` to ``stop`` with the scratch of ``slot``."""

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

    @property
    def ranged(self) -> bool:
        """Whether it does a range of chunks, so that several threads can share it."""
        return self.template.startswith(RANGED)

    def kinds(self) -> list[str]:
        """Return the types of the parameters, as the template has them."""
        inside = self.template[self.template.index("(") + 1 : self.template.rindex(")")]
        return [kind.strip() for kind in re.split(r",(?![^\[(]*[\])])", inside)]

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
DIRECTORY = cache_directory()


def _writable(directory: Path) -> bool:
    """Try it out: permissions do not tell, for a file system may be read-only or a parent may be a file."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError:
        return False


_CACHED = _writable(DIRECTORY)
"""Where our folder cannot be written, numba is told to cache nothing: it would look for a folder of its own, beside
the sources, and raise where there is none."""


@contextmanager
def _our_cache() -> Iterator[None]:
    """Point numba's cache at our folder, for the moment of decoration only: other users of numba keep theirs."""
    config = cast("Any", numba.config)
    before = config.CACHE_DIR
    config.CACHE_DIR = str(DIRECTORY)
    try:
        yield
    finally:
        config.CACHE_DIR = before


def compiled(function: Callable[P, R], signature: str | None = None) -> Callable[P, R]:
    """Have a function compiled and kept on disk: at once for one signature, else when `warm` or a call asks for it."""
    with _our_cache():
        if signature is None:
            return cast("Callable[P, R]", numba.njit(cache=_CACHED, **JIT_OPTIONS)(function))
        return cast("Callable[P, R]", numba.njit(signature, cache=_CACHED, **JIT_OPTIONS)(function))


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
        dispatcher = compiled(function)
        name = function.__name__
        if name in _REGISTRY:
            raise ArgumentError(f"two kernels are called {name!r}: rename one")
        _REGISTRY[name] = KernelEntry(name, template, dispatcher)
        return dispatcher

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


def entry_of(function: Callable[..., object]) -> KernelEntry:
    """Return the entry of a declared kernel.

    Raises
    ------
    ArgumentError
        The function was never declared.
    """
    name = getattr(function, "__name__", repr(function))
    entry = _REGISTRY.get(name)
    if entry is None or entry.dispatcher is not function:
        raise ArgumentError(f"{name!r} is not a declared kernel: decorate it with kernel(...)")
    return entry


def entries_of(names: Sequence[str]) -> list[KernelEntry]:
    """Return the entries of these kernels, each once.

    Raises
    ------
    ArgumentError
        An unknown name.
    """
    unknown = [name for name in names if name not in _REGISTRY]
    if unknown:
        raise ArgumentError(f"no kernel is called {unknown[0]!r}; there are {', '.join(sorted(_REGISTRY))}")
    return [_REGISTRY[name] for name in dict.fromkeys(names)]
