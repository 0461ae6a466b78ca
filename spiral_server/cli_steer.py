"""Steering and watching by hand and by script: ``spiral set``, ``pause``, ``watch`` and their like."""

from __future__ import annotations

import asyncio
import getpass
import json
import secrets
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
import typer

from spiral_core.cli import reads_environment
from spiral_core.wire.messages import CommandRecord, CommandRequest
from spiral_core.wire.parts import KnobSpec, RunSummary, Setting, Verb
from spiral_server.remote import telling
from spiral_server.remote.choosing import choose_run, settings_of
from spiral_server.remote.client import Answer, AskingError, Client, LostError
from spiral_server.remote.effects import SENTENCES, await_effect

WAIT_SECONDS = 60.0
"""A command is in force after a step; a busy machine or a server that is started again takes longer."""


class Exit(IntEnum):
    """Exit codes of the commands that steer; 2 is also that of every command that was written wrongly."""

    APPLIED = 0
    FAILED = 1
    NOT_ASKED = 2
    REFUSED = 3
    SUPERSEDED = 4
    EXPIRED = 5
    UNKNOWN = 6
    INTERRUPTED = 130


_OF_STATE = {
    "applied": Exit.APPLIED,
    "rejected": Exit.REFUSED,
    "superseded": Exit.SUPERSEDED,
    "expired": Exit.EXPIRED,
    "accepted": Exit.UNKNOWN,
}

_CODES = """Exit codes: 0 applied; 1 something failed; 2 not asked (words, run, knob, server, token); 3 refused;
4 superseded; 5 expired; 6 what became of it is not known yet."""

SET_HELP = f"""Set knobs of a run that trains, and say from which step on they are in force.

All of them come into force before the same update, or none does. `spiral knobs` lists them.

Examples:

  spiral set optim.lr=3e-4

  spiral set optim.lr=3e-4 zspace.gain=0.6 --at-step 500

  spiral set zspace.gain=0.6 --expect 12 --json

  spiral set run.rate=0 --run 20260101-120000-needle-ab12

{_CODES}
"""

STEP_HELP = f"""Let a run do some updates, then pause.

Examples:

  spiral step

  spiral step 10

{_CODES}
"""

WATCH_HELP = """Follow a run: its status, its loss and what becomes of commands, until it ends or Ctrl-C.

Examples:

  spiral watch

  spiral watch 20260101-120000-needle-ab12 --every 10

  spiral watch --json --every 0 | jq -c 'select(.type == "command-record")'

Exit codes: 0 the run is finished or stopped; 1 it has failed; 2 not asked; 130 left with Ctrl-C.
"""

KNOBS_HELP = """List the knobs of a run: the value in force and since which step, the bounds, and what they are.

Examples:

  spiral knobs

  spiral knobs 20260101-120000-needle-ab12 --json
"""

_PLAIN_VERBS: dict[Verb, str] = {
    "pause": "Pause a run before its next update.",
    "resume": "Let a paused run train on.",
    "stop": "End a run for good, before its next update.",
    "checkpoint": "Have a run take a checkpoint now, and name its file.",
    "evaluate": "Have a run evaluate now, and give the numbers.",
}

Run = Annotated[str | None, typer.Option(help="Id of the run; the newest one that trains by default.")]
OneRun = Annotated[str | None, typer.Argument(help="Id of the run; the newest one that trains by default.")]
AtStep = Annotated[int | None, typer.Option(min=0, help="Apply before this update, or the first one after it.")]
Expect = Annotated[int | None, typer.Option(min=0, help="Apply only if this revision is in force.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the end, or only until it is accepted.")]
Timeout = Annotated[float, typer.Option(min=0, help="Seconds to wait; 0: no limit.")]
Identity = Annotated[str, typer.Option("--id", help="Id of the command; the same one again is the same command.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object on each line.")]
Logdir = Annotated[Path, typer.Option(help="Run folder of the server, whose server.json tells address and token.")]
Server = Annotated[str | None, typer.Option(help="Address of the server, if it is elsewhere.")]
Token = Annotated[str | None, typer.Option(help="Its token.")]


@dataclass(frozen=True)
class _How:
    """How a command is to be given, besides what it asks for."""

    client: Client
    run: str | None
    wait: bool
    seconds: float
    plain: bool
    identity: str
    at_step: int | None
    expect: int | None

    def runs(self) -> list[RunSummary]:
        return _runs(self.client)


def _ask(client: Client, path: str) -> Any:  # noqa: ANN401 - JSON's own types have no better name
    """Ask before anything is changed: a server that is not there is a mistake of whoever calls."""
    try:
        return client.get(path)
    except LostError as error:
        raise AskingError(f"{error}: start it again, or name another with --logdir or --server") from error


def _runs(client: Client) -> list[RunSummary]:
    return msgspec.convert(_ask(client, "/runs")["runs"], list[RunSummary])


def _knobs(client: Client, run: str) -> tuple[dict[str, KnobSpec], Any]:
    told = _ask(client, f"/runs/{quote(run, safe='')}/knobs")
    return {spec.name: spec for spec in msgspec.convert(told["knobs"], list[KnobSpec])}, told


def _actor() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""


def _say(line: str) -> None:
    typer.echo(line)
    sys.stdout.flush()


def _warn(line: str) -> None:
    typer.echo(f"spiral: {line}", err=True)


def _steer(how: _How, verb: Verb, *, words: list[str] | None = None, steps: int = 1, supersede: bool = False) -> None:
    """Give a command, say what has become of it, and leave with the code of that."""
    run = choose_run(how.runs(), how.run).id
    sets: list[Setting] = settings_of(words, _knobs(how.client, run)[0]) if words else []
    request = CommandRequest(
        id=how.identity or secrets.token_hex(8),
        verb=verb,
        sets=sets,
        steps=steps,
        at_step=how.at_step,
        expected_rev=how.expect,
        supersede=supersede,
        actor=_actor(),
        source="cli",
    )
    begun = time.monotonic()
    try:
        answer = how.client.settle(run, request, wait=how.wait, seconds=how.seconds, waiting=_tell_waiting)
    except LostError as error:
        _warn(f"{error}; what became of the command is not known: ask again with --id {request.id}")
        raise typer.Exit(Exit.UNKNOWN) from None
    code = _tell(answer, request, how)
    if code is Exit.APPLIED and how.wait and verb in SENTENCES and answer.record is not None:
        _tell_effect(how, answer.record, max(0.1, how.seconds - (time.monotonic() - begun)) if how.seconds else 0.0)
    raise typer.Exit(code)


def _tell_waiting(record: CommandRecord) -> None:
    _warn(f"{telling.outcome(record)[0]}; Ctrl-C leaves it so")


def _tell(answer: Answer, request: CommandRequest, how: _How) -> Exit:
    """Say what has become of a command; give the exit code."""
    record = answer.record
    if record is None:
        if how.plain:
            _say(json.dumps(answer.body))
        _warn(f"refused: {answer.error}")
        for knob, value in dict(answer.body.get("values", {})).items():
            _warn(f"{knob} is {telling.value(value)}")
        return Exit.REFUSED
    lines = telling.outcome(record)
    if how.plain:
        _say(json.dumps(msgspec.to_builtins(record)))
    code = Exit.APPLIED if record.state == "accepted" and not how.wait else _OF_STATE[record.state]
    if code is Exit.UNKNOWN:
        _warn(f"{lines[0]}; {how.seconds:g} s are over: ask again with --id {request.id}, or look at `spiral watch`")
    elif code is not Exit.APPLIED:
        _warn(lines[0])
    elif not how.plain:
        for line in lines:
            _say(line)
    return code


def _tell_effect(how: _How, record: CommandRecord, seconds: float) -> None:
    """Say what an applied command has led to."""
    try:
        told = await_effect(how.client, record, seconds)
    except LostError as error:
        _warn(str(error))
        raise typer.Exit(Exit.FAILED) from None
    if told is None:
        _warn(f"the {record.verb} was asked for, and is not there after {how.seconds:g} s")
        raise typer.Exit(Exit.UNKNOWN)
    _say(json.dumps(told) if how.plain else SENTENCES[record.verb](told))


@reads_environment
def set_knobs(
    settings: Annotated[list[str], typer.Argument(metavar="KNOB=VALUE", help="What to set.")],
    run: Run = None,
    at_step: AtStep = None,
    expect: Expect = None,
    supersede: Annotated[
        bool, typer.Option("--supersede", help="Take the place of sets of the same knobs that wait still.")
    ] = False,
    wait: Wait = True,
    timeout: Timeout = WAIT_SECONDS,
    identity: Identity = "",
    plain: Json = False,
    logdir: Logdir = Path("runs"),
    server: Server = None,
    token: Token = None,
) -> None:
    """Set knobs of a run."""
    how = _How(Client(logdir, server, token), run, wait, timeout, plain, identity, at_step, expect)
    _steer(how, "set", words=settings, supersede=supersede)


@reads_environment
def step(
    count: Annotated[int, typer.Argument(min=1, metavar="N", help="Updates to do.")] = 1,
    run: Run = None,
    at_step: AtStep = None,
    expect: Expect = None,
    wait: Wait = True,
    timeout: Timeout = WAIT_SECONDS,
    identity: Identity = "",
    plain: Json = False,
    logdir: Logdir = Path("runs"),
    server: Server = None,
    token: Token = None,
) -> None:
    """Let a run do some updates, then pause."""
    how = _How(Client(logdir, server, token), run, wait, timeout, plain, identity, at_step, expect)
    _steer(how, "step", steps=count)


def _add_plain(app: typer.Typer, verb: Verb, words: str) -> None:
    """Add a command for a verb that takes nothing but a run."""

    @reads_environment
    def give(
        run: Run = None,
        at_step: AtStep = None,
        expect: Expect = None,
        wait: Wait = True,
        timeout: Timeout = WAIT_SECONDS,
        identity: Identity = "",
        plain: Json = False,
        logdir: Logdir = Path("runs"),
        server: Server = None,
        token: Token = None,
    ) -> None:
        how = _How(Client(logdir, server, token), run, wait, timeout, plain, identity, at_step, expect)
        _steer(how, verb)

    examples = f"Examples:\n\n  spiral {verb}\n\n  spiral {verb} --at-step 500 --json"
    app.command(verb, help=f"{words}\n\n{examples}\n\n{_CODES}\n")(give)


@reads_environment
def watch(
    run: OneRun = None,
    every: Annotated[
        float, typer.Option(min=0, help="Least seconds between two lines of numbers; 0: each step.")
    ] = 1.0,
    plain: Json = False,
    logdir: Logdir = Path("runs"),
    server: Server = None,
    token: Token = None,
) -> None:
    """Follow a run until it ends."""
    # Imported here: the other commands need no websocket.
    from spiral_server.remote.watching import Follower, follow

    client = Client(logdir, server, token)
    chosen = choose_run(_runs(client), run).id
    follower = Follower(chosen, _say, plain=plain, every=every)
    if not plain:
        _say(f"run {chosen}")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        asyncio.run(follow(client, chosen, follower, _warn))
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None
    raise typer.Exit(Exit.FAILED if follower.status == "failed" else Exit.APPLIED)


@reads_environment
def knobs(
    run: OneRun = None,
    plain: Json = False,
    logdir: Logdir = Path("runs"),
    server: Server = None,
    token: Token = None,
) -> None:
    """List the knobs of a run."""
    client = Client(logdir, server, token)
    chosen = choose_run(_runs(client), run).id
    specs, told = _knobs(client, chosen)
    if plain:
        _say(json.dumps(told))
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    _say(f"run {chosen}, revision {told['rev']}")
    _say(telling.table(list(specs.values()), width))


def add_commands(app: typer.Typer) -> None:
    """Add the commands to a command line."""
    app.command("set", help=SET_HELP)(set_knobs)
    app.command("step", help=STEP_HELP)(step)
    for verb, words in _PLAIN_VERBS.items():
        _add_plain(app, verb, words)
    app.command("watch", help=WATCH_HELP)(watch)
    app.command("knobs", help=KNOBS_HELP)(knobs)
