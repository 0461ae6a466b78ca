"""The command that uploads run logs: ``spiral sync``."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spiral_core.errors import ArgumentError, RunLogError, SpiralError

if TYPE_CHECKING:
    from spiral_core.link.rundir import RunDir

SYNC_HELP = """Upload runs from their run logs to a server: runs that were trained offline, or that the server has lost.

What the server has already is not sent again, so that it can be interrupted and given again at any time.

Examples:

  spiral sync 20260101-120000-needle-ab12 --server http://127.0.0.1:8787

  spiral sync --all --server https://spiral.example.org --token TOKEN

  spiral train --data fashion --epochs 10 --offline && spiral sync --all --server http://127.0.0.1:8787

The exit status is 1 when a run could not be uploaded whole; what was uploaded stays.
"""


def token_of(logdir: Path, server: str) -> str:
    """Find the token of a server on this machine that keeps its runs in the same directory."""
    try:
        told = json.loads((logdir / "server.json").read_text(encoding="utf-8"))
        url, token = str(told["url"]), str(told["token"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""
    return token if url.rstrip("/") == server.rstrip("/") else ""


def sync(
    runs: Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="Ids below --logdir, or paths.")] = None,
    server: Annotated[str | None, typer.Option(help="Address of a Spiral server.")] = None,
    token: Annotated[str | None, typer.Option(help="Token that the server printed.")] = None,
    logdir: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
    every: Annotated[bool, typer.Option("--all", help="All runs below --logdir.")] = False,
    quiet: Annotated[bool, typer.Option(help="Print nothing but errors.")] = False,
) -> None:
    """Upload run logs to a server."""
    # Imported here: --help should not wait for the courier's libraries.
    from spiral_core.link import rundir

    if server is None:
        raise ArgumentError("name the server to upload to: --server http://HOST:PORT, or SPIRAL_SERVER")
    if bool(runs) == every:
        raise ArgumentError("name the runs to upload, or --all for all of them")
    found = rundir.every(logdir) if every else [rundir.find(logdir, run) for run in runs or []]
    if not found:
        raise RunLogError(f"there is no run in {logdir} to upload; name another --logdir")
    failed = 0
    for one in found:
        try:
            whole = _upload(one, server, token or token_of(logdir, server), quiet=quiet)
        except SpiralError as error:
            typer.echo(f"spiral sync: {error}", err=True)
            whole = False
        failed += not whole
    if failed:
        typer.echo(f"spiral sync: {failed} of {len(found)} runs are not uploaded whole; the logs are kept", err=True)
        raise typer.Exit(1)


def _upload(run: RunDir, server: str, token: str, *, quiet: bool) -> bool:
    """Upload one run; tell whether the server has all of it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from spiral_core.link import uploading

    held = run.hold()
    try:
        last = uploading.last_numbers(run)
        total = sum(seq + 1 for seq in last.values())
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, disable=quiet or not sys.stderr.isatty()) as progress:
            task = progress.add_task(run.id, total=total)

            def listen(incarnation: int, stored: int) -> None:
                before = sum(seq + 1 for number, seq in last.items() if number < incarnation)
                progress.update(task, completed=before + stored + 1)

            whole = asyncio.run(uploading.upload(run, server=server, token=token, listen=listen))
    finally:
        os.close(held)
    if whole and not quiet:
        typer.echo(f"{run.id}: the server has all of it")
    return whole
