"""What an import loads, seen from a fresh interpreter: counted in modules, never in seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

COSTLY = ("numba", "llvmlite", "scipy", "plotly")
# FastAPI and its own dependencies load several hundred modules; the ceiling is there to notice a whole library more.
SERVER_MODULES = 2_000


def loaded_by(statement: str, root: Path) -> set[str]:
    """Return the names of all modules in an interpreter that ran `statement` and nothing else."""
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["spiral_core", "spiral_core.wire.messages", "spiral_core.wire.codec"])
def test_the_public_name_and_the_wire_load_neither_numba_nor_plotly(module: str, root: Path) -> None:
    assert not loaded_by(f"import {module}", root).intersection(COSTLY)


def test_the_server_loads_neither_numba_nor_plotly(root: Path) -> None:
    loaded = loaded_by("import spiral_server.app", root)
    assert not loaded.intersection(COSTLY)
    assert len(loaded) < SERVER_MODULES


def test_the_public_name_alone_does_not_load_numpy(root: Path) -> None:
    assert "numpy" not in loaded_by("import spiral_core", root)
