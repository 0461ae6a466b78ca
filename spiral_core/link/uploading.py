"""Carries the logs of a run that nobody trains to a server, with the courier's own code."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from spiral_core.errors import RunLogError
from spiral_core.link.courier import Courier
from spiral_core.link.rundir import RunDir
from spiral_core.link.runlog import RunLogReader, parts_of
from spiral_core.link.spawn import engine_socket
from spiral_core.wire import codec


def last_numbers(rundir: RunDir) -> dict[int, int]:
    """Give the last sequence number of each run log that can be read, by incarnation; for progress.

    Raises
    ------
    RunLogError
        There is no run log.
    """
    found: dict[int, int] = {}
    for incarnation, path in rundir.logs():
        last = -1
        # The courier brings home what stands before any damage, and says so.
        with suppress(RunLogError), RunLogReader(path) as reader:
            reader.enter(len(parts_of(path)) - 1)
            for record in reader.records():
                last = codec.sequence_number(record.data)
        found[incarnation] = last
    if not found:
        raise RunLogError(f"there is no run log in {rundir.path}: nothing can be uploaded from there")
    return found


async def upload(rundir: RunDir, *, server: str, token: str, listen: Callable[[int, int], None]) -> bool:
    """Upload everything that a server does not have yet; tell whether it has all of it now.

    The caller holds the run (`RunDir.hold`): a log that nobody writes any more is completed with a last word.

    Parameters
    ----------
    rundir : RunDir
    server : str
        ``http://host:port``.
    token : str
    listen : callable
        Told incarnation and sequence number whenever the server has put more on its disk.

    Raises
    ------
    ArgumentError
        The address is none.
    RunLogError
        No log can be read.
    """
    url = engine_socket(server)
    doorbell, bell = os.pipe()
    # The engine is gone, as far as the courier is concerned: the bell has hung up, and nobody takes commands.
    os.close(bell)
    commands = os.open(os.devnull, os.O_WRONLY)
    newest = rundir.logs()[-1][0]
    try:
        courier = Courier(
            rundir, incarnation=newest, url=url, token=token, doorbell=[doorbell], commands=commands, listen=listen
        )
        return await courier.run() == 0
    finally:
        os.close(doorbell)
        os.close(commands)
