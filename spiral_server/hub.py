"""The single writer of live state: what engines say goes in here, what viewers see and engines are told comes out.

Decides nothing by itself: the rules stand in `live`, the disk in `store`. All methods run on one event loop; what may
wait for a disk runs on a thread, but for single commands while the disk is quick (`RunStore.journal`). Frames are shown
at once; `Stored` and commands wait for the disk.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec
import structlog

from spiral_core.errors import RemoteError
from spiral_core.wire import codec
from spiral_core.wire.limits import CLOSE_GOING_AWAY, CLOSE_PROTOCOL, CLOSE_REPLACED, CLOSE_TRY_AGAIN
from spiral_core.wire.messages import (
    Ack,
    AnyMessage,
    CommandRequest,
    EngineHello,
    Frame,
    HeatMaps,
    Logged,
    Message,
    RunChanged,
)
from spiral_core.wire.parts import RunSummary
from spiral_server.audience import Audience
from spiral_server.calling import Calling
from spiral_server.comparing import Comparisons
from spiral_server.journal import Journal
from spiral_server.live import commands, snapshot
from spiral_server.live.channel import Outlet
from spiral_server.live.parties import Bell, EngineLink, LiveRun, Viewer
from spiral_server.live.run_view import RunView
from spiral_server.live.soundness import unsound
from spiral_server.loaded import LoadedRuns
from spiral_server.metrics import Present
from spiral_server.reading import reading
from spiral_server.settings import Pace
from spiral_server.showing import Showing
from spiral_server.store.errors import BusyRunError, StoreError, UnknownRunError
from spiral_server.store.protocol import Damage, Entry, RunStore, SeriesQuery, SeriesRead, is_run_id

log = structlog.get_logger(__name__)

BACKLOG_BYTES = 8 * 1024 * 1024
"""An engine's bytes that may wait for the disk; beyond, its courier is not read, and keeps them in its log."""
REPORT_SECONDS = 0.1
"""After a commit, before a courier is told of it: the next one may be over by then."""
LEAVE_SECONDS = 1.0
"""How long a stopping server waits for its connections to be closed."""
CLOSE_INTERNAL = 1011
"""RFC 6455: the server met a condition that it cannot handle; a disk that is full is no such one (1013)."""

T = TypeVar("T")


def _notable(summary: RunSummary) -> tuple[object, ...]:
    """Give what everybody is told of when it changes."""
    return (summary.status, summary.connected, summary.name, summary.trouble)


def _can_wait(link: EngineLink, messages: Sequence[AnyMessage]) -> bool:
    """Tell whether messages can come behind a command that is being written."""
    return link.live.journaling > 0 and not any(isinstance(message, Ack) for message in messages)


class Hub:
    """Live state of all runs.

    Parameters
    ----------
    store : RunStore
        Owned: closed with the hub.
    pace : Pace
        Times that conversations keep.
    clock : callable
        Wall time in seconds.
    """

    def __init__(self, store: RunStore, *, pace: Pace | None = None, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        pace = pace or Pace()
        comparisons = Comparisons(self, pace.compare_tick, self._start)
        self.audience = Audience(pace, lambda viewer: self.showing.refresh(viewer), comparisons)
        self.showing = Showing(self, store, self.audience, self._start)
        self.journal = Journal(store, clock=clock, tell=self._tell)
        self._runs = LoadedRuns(store, self.knows, self._loaded)
        self._summaries = {summary.id: snapshot.unplugged(summary) for summary in store.runs()}
        self._links: set[EngineLink] = set()
        self._calling = Calling()
        self._tasks: set[asyncio.Task[Any]] = set()

    # --- runs

    def summaries(self) -> list[RunSummary]:
        """List the runs, newest first."""
        return snapshot.listing(self._summaries.values())

    def knows(self, run: str) -> bool:
        """Tell whether there is such a run."""
        return run in self._summaries

    async def view(self, run: str) -> RunView:
        """Give the view of a run, read back from the store where need be; to be looked at, not changed."""
        return (await self.live(run)).view

    async def live(self, run: str) -> LiveRun:
        """Give a run as it is now (see `LoadedRuns.live`)."""
        return await self._runs.live(run)

    def _loaded(self, live: LiveRun) -> None:
        known = self._summaries.get(live.view.run)
        if known is not None and known.trouble:
            # It can be read again.
            self._changed(live)

    def _changed(self, live: LiveRun) -> None:
        """Look whether a run's line in the list has changed, and tell."""
        new, old = live.view.summary, self._summaries.get(live.view.run)
        self._summaries[new.id] = new
        if old is not None and _notable(old) == _notable(new):
            return
        self._store.note(new)
        self.audience.announce(snapshot.listed(self._summaries.values()))
        if old is None:
            self.showing.invite(self.audience.viewers)
        elif (old.connected, old.trouble) != (new.connected, new.trouble):
            self._tell(live, RunChanged(run=new))

    def unreadable(self, run: str, reason: str) -> None:
        """Tell everybody that a run cannot be read."""
        live, known = self._runs.get(run), self._summaries.get(run)
        if known is not None and known.trouble != reason:
            log.error("a run cannot be read", run=run, error=reason)
        if live is not None and not live.idle:
            self._troubled(live, reason)
        elif known is not None and known.trouble != reason:
            # Whoever asks for it next reads it anew.
            self._runs.forget(run)
            self._summaries[run] = msgspec.structs.replace(known, trouble=reason)
            self.audience.announce(snapshot.listed(self._summaries.values()))

    def _tell(self, live: LiveRun, message: Message, data: bytes | None = None) -> None:
        self.audience.tell(live, message, data)

    # --- engines

    async def join(self, hello: EngineHello, bell: Bell) -> EngineLink:
        """Take in a courier; the older connection of its run is replaced.

        Raises
        ------
        RemoteError
            The courier cannot be taken in.
        """
        if not is_run_id(hello.run) or hello.incarnation < 0:
            raise RemoteError(CLOSE_PROTOCOL, f"{hello.run[:100]!r} is no run id, or its incarnation is negative")
        try:
            live = await self._runs.live(hello.run, create=True)
        except UnknownRunError as error:
            raise RemoteError(CLOSE_TRY_AGAIN, f"{error}; come back later") from error
        except StoreError as error:
            self.unreadable(hello.run, str(error))
            raise RemoteError(CLOSE_TRY_AGAIN, "the server cannot read what it has of this run") from error
        if live.engine is not None:
            if hello.incarnation < live.engine.incarnation:
                raise RemoteError(CLOSE_REPLACED, "a newer incarnation of this run is connected")
            live.engine.bell.leave(CLOSE_REPLACED, "a newer connection of this run has taken over")
        link = live.engine = EngineLink(live, hello.incarnation, bell)
        self._links.add(link)
        try:
            link.stored = await asyncio.wrap_future(self._store.stored(hello.run, hello.incarnation))
        except StoreError as error:
            self.leave(link)
            self._troubled(live, str(error))
            raise RemoteError(CLOSE_TRY_AGAIN, "the server cannot write; come back later") from error
        except BaseException:
            self.leave(link)
            raise
        link.told = link.stored
        if live.engine is link:
            live.view.connected = True
            live.view.trouble = ""
            self._changed(live)
            bell.ring()
        return link

    async def ingest(self, link: EngineLink, messages: Sequence[AnyMessage]) -> None:
        """Take in messages of a run: show them, then have them stored.

        Waits only while too much is on its way to the disk, and a moment while a command is.

        Raises
        ------
        RemoteError
            A message that no engine of ours sends, or a link that has been replaced.
        """
        if _can_wait(link, messages):
            await self.journal.written(link.live)
        self.take_in(link, messages)
        if link.backlog > BACKLOG_BYTES:
            await asyncio.gather(asyncio.wrap_future(link.newest), return_exceptions=True)

    def takes_at_once(self, link: EngineLink, messages: Sequence[AnyMessage]) -> bool:
        """Tell whether `ingest` would not wait."""
        return link.backlog <= BACKLOG_BYTES and not _can_wait(link, messages)

    def take_in(self, link: EngineLink, messages: Sequence[AnyMessage]) -> None:
        """Take in messages of a run without waiting, where `takes_at_once`; see `ingest`.

        Raises
        ------
        RemoteError
            As `ingest`.
        """
        live = link.live
        if live.engine is not link:
            raise RemoteError(CLOSE_REPLACED, "a newer connection of this run has taken over")
        entries: list[Entry] = []
        for message in messages:
            if isinstance(message, Logged):
                reason = unsound(message, run=live.view.run, incarnation=link.incarnation)
                if reason is not None:
                    raise RemoteError(CLOSE_PROTOCOL, reason)
                entries.append(Entry(message, codec.encode(message)))
        settled = [self._show(live, message, data) for message, data in entries]
        self._changed(live)
        self.audience.urge(live)
        if any(settled):
            self.journal.settled()
        if entries:
            size = sum(len(data) for _, data in entries)
            link.backlog += size
            link.newest = self._store.append(live.view.run, entries)
            link.newest.add_done_callback(self._calling.back(partial(self._kept, link, entries[-1].message, size)))

    def _show(self, live: LiveRun, message: Logged, data: bytes) -> bool:
        """Show a message to those who watch; tell whether a command of theirs is over."""
        if not live.view.admits(message):
            return False
        settled = live.view.fold(message)
        if isinstance(message, Frame):
            live.tail.append(message)
        self._tell(live, message, data)
        if settled is not None:
            self._tell(live, settled)
        return settled is not None and settled.number > 0

    def _kept(self, link: EngineLink, last: Logged, size: int, error: BaseException | None) -> None:
        link.backlog -= size
        if error is not None:
            link.bell.leave(CLOSE_TRY_AGAIN, "the server cannot write; it will ask for these messages again")
            self._troubled(link.live, str(error))
            return
        link.live.kept(last.incarnation, last.seq)
        for expired in link.live.view.kept(last.incarnation, last.seq):
            self._tell(link.live, expired)
        if last.incarnation == link.incarnation:
            link.stored = max(link.stored, last.seq)
            self._report(link)

    def _report(self, link: EngineLink) -> None:
        """Tell a courier what is on disk, in a moment: a commit ends many jobs, and nothing waits for it."""
        if link.told < link.stored and not link.reporting:
            link.reporting = True
            asyncio.get_running_loop().call_later(REPORT_SECONDS, self._reported, link)

    def _reported(self, link: EngineLink) -> None:
        link.reporting = False
        link.bell.ring()

    def _troubled(self, live: LiveRun, reason: str) -> None:
        """Tell those who watch that nothing can be written now; it ends when the engine is taken in again."""
        if not live.view.trouble:
            live.view.trouble = reason
            self._changed(live)

    def leave(self, link: EngineLink) -> None:
        """Let a courier go; without a final word its run is lost until it comes back."""
        self._links.discard(link)
        if link.live.engine is link:
            link.live.engine = None
            link.live.view.connected = False
            self._changed(link.live)

    # --- viewers

    def arrive(self, outlet: Outlet) -> Viewer:
        """Take in a viewer and send the list of runs."""
        viewer = self.audience.arrive(outlet)
        self.audience.announce(snapshot.listed(self._summaries.values()), [viewer])
        return viewer

    # --- questions

    async def series(self, run: str, query: SeriesQuery) -> SeriesRead:
        """Read points of a run's series."""
        return await asyncio.to_thread(reading(self._store, await self.live(run), query))

    async def heat_maps(self, run: str, step: int | None) -> HeatMaps | None:
        """Give the newest heat maps at or before a step."""
        newest = (await self.live(run)).view.newest_heat_maps
        if newest is not None and (step is None or newest.step <= step):
            return newest
        return await asyncio.to_thread(self._store.heat_maps, run, step)

    # --- upkeep

    async def delete(self, run: str) -> None:
        """Delete a run with everything that belongs to it, and tell everyone.

        Raises
        ------
        BusyRunError
            Its engine is connected.
        UnknownRunError
            There is none, or it is being deleted already.
        """
        self._runs.check(run)
        live = self._runs.get(run)
        if live is not None and (live.engine is not None or live.journaling):
            raise BusyRunError(f"run {run!r} is being trained: stop it first, with `spiral stop --run {run}`")
        with self._runs.leaving(run):
            await asyncio.to_thread(self._store.delete, run)
            self._summaries.pop(run, None)
        if live is not None:
            self.audience.dismiss(live)
        self.audience.announce(snapshot.listed(self._summaries.values()))

    async def verify(self, run: str, *, repair: bool) -> list[Damage]:
        """Read everything of a run and give what is damaged (see `RunStore.verify`)."""
        return await asyncio.to_thread(partial(self._store.verify, run, repair=repair))

    async def compact(self, run: str) -> tuple[int, int]:
        """Pack a run (see `RunStore.compact`)."""
        return await asyncio.to_thread(self._store.compact, run)

    def present(self) -> Present:
        """Tell how things stand, for those who watch over the server."""
        return Present(
            runs=dict(Counter(summary.status for summary in self._summaries.values())),
            engines=len(self._links),
            viewers=len(self.audience.viewers),
            backlog_bytes=sum(link.backlog for link in self._links),
            mailbox=[viewer.mailbox.depth for viewer in self.audience.viewers],
            merged=self.audience.merged,
            waiting=sum(live.view.ledger.waiting for live in self._runs),
        )

    # --- commands

    def loaded(self, run: str) -> LiveRun | None:
        """Give a run where it is in memory, as one whose engine is connected."""
        return self._runs.staying(run)

    async def submit(self, run: str, request: CommandRequest) -> commands.Answer:
        """Take in a command, and wait until it is on disk (see `Journal.give` and `LoadedRuns.live`)."""
        record, repeated = self.journal.give(await self.live(run), request)
        # The one who asked may hang up; the command goes on.
        return commands.Answer(await asyncio.shield(record), repeated)

    # --- the end

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a task of the hub failed", error=str(task.exception()))

    async def part(self) -> None:
        """Ask every connection to end, and wait for that a moment."""
        for viewer in self.audience.viewers:
            viewer.outlet.leave(CLOSE_GOING_AWAY, "the server is going away")
        for link in self._links:
            link.bell.leave(CLOSE_GOING_AWAY, "the server is going away")
        deadline = time.monotonic() + LEAVE_SECONDS
        while (self.audience.viewers or self._links) and time.monotonic() < deadline:
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """End what is under way and close the store."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LEAVE_SECONDS)
        for live in self._runs:
            self._store.note(snapshot.unplugged(live.view.summary))
        await asyncio.to_thread(self._store.close)
