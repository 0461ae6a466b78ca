"""Runs in memory: read back from the store when somebody asks, forgotten when nobody trains or watches them.

All methods run on one event loop; what may wait for a disk runs on a thread.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from spiral_server.live.parties import LiveRun
from spiral_server.live.run_view import RunView
from spiral_server.store.errors import UnknownRunError
from spiral_server.store.protocol import RunStore, check_run_id
from spiral_server.store.rebuild import view_of

IDLE_VIEWS = 8
"""Runs kept in memory that nobody trains or watches."""


class LoadedRuns:
    """The runs that are in memory.

    Parameters
    ----------
    store : RunStore
    knows : callable
        Tells whether there is such a run.
    loaded : callable
        Told of each run that was read back.
    """

    def __init__(self, store: RunStore, knows: Callable[[str], bool], loaded: Callable[[LiveRun], None]) -> None:
        self._store = store
        self._knows = knows
        self._loaded = loaded
        self._runs: OrderedDict[str, LiveRun] = OrderedDict()
        self._loading: dict[str, asyncio.Task[LiveRun]] = {}
        self._leaving: set[str] = set()

    def __iter__(self) -> Iterator[LiveRun]:
        return iter(self._runs.values())

    def get(self, run: str) -> LiveRun | None:
        """Give a run if it is in memory."""
        return self._runs.get(run)

    def staying(self, run: str) -> LiveRun | None:
        """Give a run if it is in memory and not about to be deleted."""
        return None if run in self._leaving else self._runs.get(run)

    def forget(self, run: str) -> None:
        """Have a run read anew when it is asked for next."""
        self._runs.pop(run, None)

    def check(self, run: str) -> None:
        """Look whether there is such a run, and whether it is going to stay.

        Raises
        ------
        UnknownRunError
        """
        self._check_stays(run)
        if not self._knows(run):
            raise UnknownRunError(f"there is no run {check_run_id(run)!r}; GET api/runs lists those that there are")

    def _check_stays(self, run: str) -> None:
        if run in self._leaving:
            raise UnknownRunError(f"run {run!r} is being deleted")

    @contextmanager
    def leaving(self, run: str) -> Iterator[None]:
        """Keep everybody off a run while it is deleted: nobody may be told that something of it is on disk."""
        self._leaving.add(run)
        try:
            yield
            self.forget(run)
        finally:
            self._leaving.discard(run)

    async def live(self, run: str, *, create: bool = False) -> LiveRun:
        """Give a run as it is now, read back where need be; with ``create`` also one that is new.

        Raises
        ------
        StoreError
            There is no such run, or it cannot be read.
        """
        self._check_stays(run)
        if run not in self._runs:
            if not create:
                self.check(run)
            loading = self._loading.get(run)
            if loading is None:
                loading = self._loading[run] = asyncio.create_task(self._load(run))
                loading.add_done_callback(lambda _: self._loading.pop(run))
            live = await asyncio.shield(loading)
            self._check_stays(run)
            self._runs.setdefault(run, live)
        self._runs.move_to_end(run)
        return self._runs[run]

    async def _load(self, run: str) -> LiveRun:
        view = RunView(run)
        if self._knows(run):
            view = view_of(run, await asyncio.to_thread(self._store.history, run))
            # It may have been deleted meanwhile.
            self.check(run)
        live = self._runs[run] = LiveRun(view)
        idle = [name for name, other in self._runs.items() if other.idle and other is not live]
        for name in idle[:-IDLE_VIEWS]:
            del self._runs[name]
        self._loaded(live)
        return live
