"""The tree under test: where it is, and which files belong to it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("spiral_core", "spiral_server")


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the folder that holds pyproject.toml."""
    return ROOT


@pytest.fixture(scope="session")
def modules() -> list[Path]:
    """Return every Python module that is shipped."""
    found = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    assert found, "no module found: the packages have moved"
    return found


@pytest.fixture(scope="session")
def tree() -> list[Path]:
    """Return every file that git tracks, or would track at the next `git add`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return sorted({path for name in listed.split("\0") if name and (path := ROOT / name).is_file()})
