"""Takes commands in: judged at the door, on disk, then on their way to the engine.

The rules stand in `live.commands`; what follows from an engine's answer is folded by `live.run_view`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from spiral_core.wire.messages import CommandRecord, CommandRequest, Message
from spiral_core.wire.requests import MAX_WAITING
from spiral_server.calling import Calling
from spiral_server.live import commands
from spiral_server.live.parties import LiveRun
from spiral_server.store.protocol import RunStore

HOLD_SECONDS = 0.05
"""For so long frames wait for a command, unless it or another one is acknowledged before."""
WRITE_SECONDS = 0.005
"""For so long, at most, they wait for one that is being written."""
TELL_SECONDS = 0.002
"""For so long they leave the cores to those who have just been told of an acknowledgement."""


class Journal:
    """The way of commands into the store. All methods run on one event loop.

    Parameters
    ----------
    store : RunStore
    clock : callable
        Wall time in seconds.
    tell : callable
        Tells those who watch a run.
    """

    def __init__(
        self,
        store: RunStore,
        *,
        clock: Callable[[], float],
        tell: Callable[[LiveRun, Message], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._tell = tell
        self._calling = Calling()
        self._writing: dict[tuple[str, str], asyncio.Future[CommandRecord]] = {}

    def give(self, live: LiveRun, request: CommandRequest) -> tuple[asyncio.Future[CommandRecord], bool]:
        """Judge a command, have it put on disk, then handed to the engine; the same id again gives the same record.

        The future is resolved with the record once that is on disk, or with a `StoreError` where the journal cannot be
        written; then the command has not been given. It is shared: who waits for it must not cancel it. Whether the
        command was known already is told at once.

        Raises
        ------
        EndedError
            The run has ended.
        StaleError
            Something was applied since the revision that the command expects.
        BusyError
            Too many commands wait.
        """
        loop = asyncio.get_running_loop()
        view = live.view
        known = view.ledger.find(request.id)
        if known is not None:
            there = loop.create_future()
            there.set_result(known)
            return there, True
        key = (view.run, request.id)
        writing = self._writing.get(key)
        if writing is not None:
            return writing, True
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
        # In the order of their numbers: behind one that is being written none is done at once.
        alone = not self._writing
        writing = self._writing[key] = loop.create_future()
        done = self._store.journal(record, at_once=alone)
        if alone and done.done():
            self._written(live, record, done.exception())
        else:
            done.add_done_callback(self._calling.back(partial(self._written, live, record)))
        return writing, False

    def _written(self, live: LiveRun, record: CommandRecord, error: BaseException | None) -> None:
        """Hand on what is on disk: to the engine first, for that is what everybody waits for."""
        live.journaling -= 1
        writing = self._writing.pop((live.view.run, record.id))
        if error is not None:
            writing.set_exception(error)
            # Where the one who asked has hung up, nobody else looks at it; the store has said it.
            writing.exception()
            return
        live.view.ledger.add(record)
        # The run may have ended while the disk was busy.
        expired = live.view.expire()
        if live.engine is not None:
            live.engine.bell.ring()
        writing.set_result(record)
        self._tell(live, record)
        for one in expired:
            self._tell(live, one)

    async def written(self, live: LiveRun) -> None:
        """Wait a moment for commands of a run that are on their way to the disk: frames can come behind them."""
        writing = [future for (run, _), future in self._writing.items() if run == live.view.run]
        if writing:
            await asyncio.wait(writing, timeout=WRITE_SECONDS)

    def settled(self) -> None:
        """Let frames go on: a command has been acknowledged, and those who watch have been told."""
        self._store.rest(TELL_SECONDS)
