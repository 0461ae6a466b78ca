"""Engines on the server's machine: ``spiral runs start``, ``stop``, ``restart`` and ``engines``.

The server does all of it; here it is only asked, as the page asks it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
import typer

from spiral_core.cli import given_by, reads_environment, takes_training
from spiral_core.wire.parts import RunSummary
from spiral_core.wire.training import training_options
from spiral_server.cli_steer import Exit, Json, Logdir, Server, Timeout, Token
from spiral_server.remote.choosing import choose_run
from spiral_server.remote.client import Client, LostError

START_SECONDS = 90.0
"""The server itself waits a minute for an engine to say which run it trains."""
STOP_SECONDS = 60.0
"""An engine that heeds neither the command nor SIGTERM is ended by SIGKILL after some 20 s."""
LOOK_SECONDS = 0.1

_CODES = """Exit codes: 0 done; 1 something failed; 2 not asked (words, run, server, token); 3 refused;
6 what became of it is not known yet."""

START_HELP = f"""Start a run on the server's machine, and print its id.

Takes what `spiral train` takes to say what is trained. The engine outlives the server: one that is started again with
the same LOGDIR takes it back.

Examples:

  spiral runs start --data fashion --lr 3e-3 --epochs 5

  spiral runs start --data digits --steps 0 --rate 40 --name "by hand" --json

  spiral runs start --server https://train.example.org --token "$TOKEN" --data needle

{_CODES}
"""

STOP_HELP = f"""Stop a run for good, wherever its engine was started.

It is told by a command, as by `spiral stop`; an engine that this server has started and that does not heed it gets
SIGTERM after 10 s and SIGKILL after 20.

Examples:

  spiral runs stop 20260101-120000-needle-ab12

  spiral runs stop 20260101-120000-needle-ab12 --no-wait --json

{_CODES}
"""

RESTART_HELP = f"""Go on with a run whose engine has ended, from its newest checkpoint, on the server's machine.

Examples:

  spiral runs restart 20260101-120000-needle-ab12

{_CODES}
"""

ENGINES_HELP = """List the engines that are connected, or that this server has started.

`launched` ones were started by a server of this LOGDIR, `adopted` ones elsewhere, with `spiral train --server`.

Examples:

  spiral runs engines

  spiral runs engines --json | jq -r '.engines[] | select(.running) | .pid'
"""

Run = Annotated[str, typer.Argument(metavar="RUN", help="Id of a run.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it has ended, or only until it is told.")]


def _post(client: Client, path: str, body: object, *, plain: bool) -> dict[str, Any]:
    """Ask for something to be done; a refusal is told, and ends the command."""
    try:
        status, told = client.post(path, json.dumps(body).encode(), START_SECONDS)
    except LostError as error:
        typer.echo(f"spiral: {error}; what became of it is not known: look at `spiral runs engines`", err=True)
        raise typer.Exit(Exit.UNKNOWN) from None
    if status >= 400:
        if plain:
            typer.echo(json.dumps(told))
        typer.echo(f"spiral: refused: {told.get('error', f'the server answered with HTTP {status}')}", err=True)
        raise typer.Exit(Exit.REFUSED)
    line: dict[str, Any] = told
    return line


def _run(client: Client, wanted: str) -> str:
    """Check the id of a run, so that a slip of the pen is told with what was meant."""
    started = {one["run"] for one in client.get("/engines")["engines"]}
    return wanted if wanted in started else choose_run(_summaries(client), wanted).id


def _begun(told: dict[str, Any], *, plain: bool) -> None:
    typer.echo(json.dumps(told) if plain else told["run"])
    sys.stdout.flush()


@takes_training
def start(
    context: typer.Context,
    plain: Json = False,
    logdir: Logdir = Path("runs"),
    server: Server = None,
    token: Token = None,
    **_training: object,
) -> None:
    """Start a run on the server's machine."""
    given = given_by(context)
    asked = {option.name: given[option.name] for option in training_options() if option.name in given}
    _begun(_post(Client(logdir, server, token), "/runs", asked, plain=plain), plain=plain)


@reads_environment
def restart(
    run: Run, plain: Json = False, logdir: Logdir = Path("runs"), server: Server = None, token: Token = None
) -> None:
    """Go on with a run whose engine has ended."""
    client = Client(logdir, server, token)
    path = f"/runs/{quote(_run(client, run), safe='')}/restart"
    _begun(_post(client, path, {}, plain=plain), plain=plain)


@reads_environment
def stop(
    run: Run,
    wait: Wait = True,
    timeout: Timeout = STOP_SECONDS,
    plain: Json = False,
    logdir: Logdir = Path("runs"),
    server: Server = None,
    token: Token = None,
) -> None:
    """Stop a run for good."""
    client = Client(logdir, server, token)
    told = _post(client, f"/runs/{quote(_run(client, run), safe='')}/stop", {}, plain=plain)
    if wait:
        told = _ended(client, told, timeout)
    if plain:
        typer.echo(json.dumps(told))
    else:
        typer.echo(f"{run}: {told['status']}" if wait else f"{run}: told to stop")


def _ended(client: Client, told: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Wait until a run that was told to stop is over; give its engine's line then."""
    run = told["run"]

    def over() -> dict[str, Any] | None:
        line = next((one for one in client.get("/engines")["engines"] if one["run"] == run), None)
        # One that was started elsewhere is in the list for as long as it is connected.
        if line is None:
            return {**told, "status": choose_run(_summaries(client), run).status, "connected": False}
        return line if line["running"] is False and not line["connected"] else None

    line = _until(over, seconds)
    if line is None:
        typer.echo(f"spiral: {run} was told to stop, and goes on after {seconds:g} s: look at `spiral watch`", err=True)
        raise typer.Exit(Exit.UNKNOWN)
    return line


def _summaries(client: Client) -> list[RunSummary]:
    return msgspec.convert(client.get("/runs")["runs"], list[RunSummary])


def _until(ask: Callable[[], dict[str, Any] | None], seconds: float) -> dict[str, Any] | None:
    deadline = time.monotonic() + seconds if seconds else float("inf")
    while (found := ask()) is None and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    return found


@reads_environment
def engines(plain: Json = False, logdir: Logdir = Path("runs"), server: Server = None, token: Token = None) -> None:
    """List the engines."""
    told = Client(logdir, server, token).get("/engines")
    if plain:
        typer.echo(json.dumps(told))
        return
    for one in told["engines"]:
        end = "" if one["exit"] in (None, 0) else f"  {_ending(one['exit'])}"
        process = "-" if one["pid"] is None else one["pid"]
        typer.echo(f"{one['run']}  {one['origin']:<8}  {one['status']:<9}  process {process:>8}{end}  {one['name']}")
    if not told["engines"]:
        typer.echo("no engine is connected, and none was started here", err=True)


def _ending(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit {status}"


def add_commands(app: typer.Typer) -> None:
    """Add the commands to the group ``spiral runs``."""
    app.command("start", help=START_HELP)(start)
    app.command("stop", help=STOP_HELP)(stop)
    app.command("restart", help=RESTART_HELP)(restart)
    app.command("engines", help=ENGINES_HELP)(engines)
