"""A run that is being deleted is nobody's: neither a courier nor a person is told that something of it is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

from spiral_core.wire.limits import CLOSE_TRY_AGAIN, PROTOCOL
from spiral_core.wire.messages import EngineHello, EngineWelcome, RunsListed, Snapshot, Steer, Steered, Stored, Watch
from spiral_server.store.writing import Job

from .asking import give, play, stored
from .house import House, courier, dial, viewer
from .saying import asking, frame, opening


@contextmanager
def held_up(house: House, run: str) -> Iterator[None]:
    """Keep the thread that writes busy, as a slow disk does."""
    go_on = Event()
    house.app.state.hub._store._writing.submit(Job(run, lambda _: go_on.wait(20)))
    try:
        yield
    finally:
        go_on.set()


def test_who_comes_while_a_run_is_deleted_is_asked_to_come_back(house: House) -> None:
    async def story() -> None:
        async with viewer(house) as page:
            async with courier(house) as engine:
                await engine.say(*opening(), frame(4, 1))
                await stored(engine, 4)
            # The connection is gone for the server, too.
            await page.next_of(RunsListed, lambda listed: [one.connected for one in listed.runs] == [False])
            with house.http() as http:
                with held_up(house, "r1"):
                    deleting = asyncio.create_task(asyncio.to_thread(http.delete, "/api/runs/r1"))
                    while "r1" not in house.app.state.hub._runs._leaving:
                        assert not deleting.done()
                        await asyncio.sleep(0.005)
                    async with dial(house, "engine") as late:
                        await late.say(EngineHello(protocol=PROTOCOL, run="r1", incarnation=0))
                        assert await late.closed() == CLOSE_TRY_AGAIN
                    assert (await give(house, asking())).status_code == 404
                    await page.say(Steer(run="r1", request=asking("c2")))
                    assert (await page.next_of(Steered)).status == 404
                    await page.say(Watch(run="r1", width=800))
                    assert not deleting.done()
                assert (await deleting).is_success
            await page.next_of(RunsListed, lambda listed: not listed.runs)
            # It begins anew, and is shown to the one who waits for it.
            async with dial(house, "engine") as again:
                await again.say(EngineHello(protocol=PROTOCOL, run="r1", incarnation=0))
                assert (await again.next_of(EngineWelcome)).stored == -1
                await again.say(*opening())
                await again.next_of(Stored, lambda message: message.seq == 3)
                assert (await page.next_of(Snapshot)).run.id == "r1"

    play(story())
