"""What the fuzzers share: a server for each module, and those who behave well on it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from .besieged import Besieged, Good, besieged


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Besieged]:
    # No visitor starts an engine: as many as may run do so.
    with besieged(tmp_path_factory.mktemp("besieged"), "--max-engines", "0") as server:
        yield server


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def good(server: Besieged, runner: asyncio.Runner) -> Iterator[Good]:
    """Those who behave well, all the while."""
    good = Good(server)
    runner.run(good.__aenter__())
    yield good
    runner.run(good.__aexit__())
