"""Takes commands in: judged at the door, on disk, then on their way to the engine.

The rules stand in `live.commands`; what follows from an engine's answer is folded by `live.run_view`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from spiral_core.wire.messages import CommandRecord, CommandRequest, Message
from spiral_core.wire.requests import MAX_WAITING
from spiral_server.live import commands
from spiral_server.live.parties import LiveRun
from spiral_server.store.protocol import RunStore

HOLD_SECONDS = 0.05
"""For so long frames wait for a command, unless it or another one is acknowledged before."""


class Journal:
    """The way of commands into the store. All methods run on one event loop.

    Parameters
    ----------
    store : RunStore
    clock : callable
        Wall time in seconds.
    start : callable
        Starts a task that outlives the one who asked for it.
    tell : callable
        Tells those who watch a run.
    """

    def __init__(
        self,
        store: RunStore,
        *,
        clock: Callable[[], float],
        start: Callable[[Coroutine[Any, Any, CommandRecord]], asyncio.Task[CommandRecord]],
        tell: Callable[[LiveRun, Message], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._start = start
        self._tell = tell
        self._writing: dict[tuple[str, str], asyncio.Task[CommandRecord]] = {}

    async def submit(self, live: LiveRun, request: CommandRequest) -> commands.Answer:
        """Judge a command, put it on disk, then hand it to the engine; the same id again gives the same record.

        Raises
        ------
        EndedError
            The run has ended.
        StaleError
            Something was applied since the revision that the command expects.
        BusyError
            Too many commands wait.
        StoreError
            The journal cannot be written; then the command has not been given.
        """
        view = live.view
        known = view.ledger.find(request.id)
        if known is not None:
            return commands.Answer(known, True)
        key = (view.run, request.id)
        task = self._writing.get(key)
        if task is not None:
            return commands.Answer(await asyncio.shield(task), True)
        if view.ended:
            raise commands.EndedError(f"run {view.run!r} is {view.state}: it takes no more commands")
        commands.check_revision(request, rev=view.rev, knobs=view.knobs)
        if view.ledger.waiting + live.journaling >= MAX_WAITING:
            raise commands.BusyError(f"{MAX_WAITING} commands wait for the engine of run {view.run!r} already")
        record = commands.judge(
            request,
            run=view.run,
            incarnation=view.incarnation,
            number=view.ledger.reserve(),
            knobs=view.knobs,
            time=self._clock(),
        )
        live.journaling += 1
        self._store.hold(HOLD_SECONDS)
        task = self._writing[key] = self._start(self._write(live, record))
        task.add_done_callback(lambda _: self._writing.pop(key))
        # The one who asked may hang up; the command goes on.
        return commands.Answer(await asyncio.shield(task), False)

    async def _write(self, live: LiveRun, record: CommandRecord) -> CommandRecord:
        try:
            await asyncio.wrap_future(self._store.journal(record))
        finally:
            live.journaling -= 1
        live.view.ledger.add(record)
        if live.engine is not None:
            live.engine.bell.ring()
        self._tell(live, record)
        # The run may have ended while the disk was busy.
        for expired in live.view.expire():
            self._tell(live, expired)
        return record
