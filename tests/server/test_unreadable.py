"""A run whose database cannot be read costs nobody the others, and everybody hears of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from spiral_core.wire import codec
from spiral_core.wire.messages import Compare, Compared, RunsListed, Snapshot, Watch
from spiral_core.wire.parts import RunSummary
from spiral_server.store.protocol import Entry
from spiral_server.store.sqlite_store import SqliteStore

from .asking import play, shown
from .house import Peer, courier, serving, viewer
from .saying import frame, opening


def two_runs(logdir: Path) -> None:
    """Leave a directory with the runs a and b; b is the newer one."""
    store = SqliteStore(logdir)
    for seconds, run in enumerate(("a", "b")):
        said = [*opening(run=run), frame(4, 1, run=run)]
        said = [replace(one, time=one.time + 100 * seconds) for one in said]
        store.append(run, [Entry(one, codec.encode(one)) for one in said]).result(5)
    store.close()


def overwrite(file: Path) -> None:
    file.write_bytes(b"this is no database " * 100)


def take_a_table(file: Path) -> None:
    """Leave what a view is made from, and nothing that tells of curves."""
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("DROP TABLE lost")


async def line_of(page: Peer, run: str, *, troubled: bool) -> RunSummary:
    """Wait until the list of runs says of one that it is in trouble, or is not."""

    def fits(listed: RunsListed) -> bool:
        return any(one.id == run and bool(one.trouble) == troubled for one in listed.runs)

    listed: RunsListed = await page.next_of(RunsListed, fits)
    return next(one for one in listed.runs if one.id == run)


@pytest.mark.parametrize("spoil", [overwrite, take_a_table])
def test_a_run_that_cannot_be_read_shuts_nobody_out(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    two_runs(tmp_path)
    file = tmp_path / "b" / "run.db"
    whole = file.read_bytes()
    with serving(tmp_path) as house:
        spoil(file)

        async def story() -> None:
            async with viewer(house) as page:
                await page.say(Watch(run="b", width=800))
                assert "cannot be read" in (await line_of(page, "b", troubled=True)).trouble
                assert (await shown(page, "a")).run.id == "a"
                await page.say(Compare(runs=["a", "b"], series=["train/s0"], width=800))
                assert (await page.next_of(Compared)).run.id == "a"
            async with viewer(house) as page:
                # The newest that can be read.
                assert (await shown(page, "")).run.id == "a"
                file.write_bytes(whole)
                await page.say(Watch(run="b", width=800))
                await line_of(page, "b", troubled=False)
                assert (await page.next_of(Snapshot)).run.id == "b"

        play(story())


def test_who_waits_for_a_run_that_cannot_be_read_sees_the_next_that_comes(tmp_path: Path) -> None:
    two_runs(tmp_path)
    with serving(tmp_path) as house:
        for run in ("a", "b"):
            overwrite(tmp_path / run / "run.db")

        async def story() -> None:
            async with viewer(house) as page:
                await page.say(Watch(run="", width=800))
                await line_of(page, "a", troubled=True)
                async with courier(house, run="c") as engine:
                    await engine.say(*opening(run="c"))
                    assert (await page.next_of(Snapshot)).run.id == "c"

        play(story())
