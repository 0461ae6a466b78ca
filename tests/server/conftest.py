"""What the tests of the server share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from spiral_server.store.sqlite_store import SqliteStore

from .house import House, page, serving


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with serving(tmp_path / "runs", page_dir=page(tmp_path)) as house:
        yield house


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One server for a whole module, where tests do not disturb each other: starting and stopping takes 0.2 s."""
    parent = tmp_path_factory.mktemp("shared")
    with serving(parent / "runs", page_dir=page(parent)) as house:
        yield house


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    kept = SqliteStore(tmp_path / "runs")
    yield kept
    kept.close()
