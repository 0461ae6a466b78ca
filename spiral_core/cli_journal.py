"""The commands that look back at a run: ``spiral journal`` and ``spiral replay``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from spiral_core.link.applied import Entry, History

JOURNAL_HELP = """Print what was applied to a run: when, what, and by whom.

Examples:

  spiral journal 20260101-120000-fashion-ab12

  spiral journal runs/20260101-120000-fashion-ab12 --json

  spiral journal 20260101-120000-fashion-ab12 --as-config > again.json

  spiral train --config again.json

With --as-config the run's configuration is printed with all that was set as a plan, step by step: training it gives the
same run, bit for bit, with no one steering.
"""

REPLAY_HELP = """Train a run again from its configuration and its journal alone, and compare the weights.

Examples:

  spiral replay 20260101-120000-fashion-ab12 --verify

  spiral replay runs/20260101-120000-fashion-ab12

Without --verify it is told what would be compared, and nothing is trained. The exit status is 1 where the two differ;
then the first step and the first tensor are named, and in what the two machines differ.
"""

PROGRESS_SECONDS = 1.0

Run = Annotated[str, typer.Argument(help="Id of a run below --logdir, or its path.")]
Logdir = Annotated[Path, typer.Option(help="Where runs are kept.")]


def journal(
    run: Run,
    logdir: Logdir = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_config: Annotated[bool, typer.Option(help="Print a configuration that plans what was steered.")] = False,
) -> None:
    """Print what was applied to a run."""
    # Imported here: the engine loads NumPy and Numba, and --help should not.
    from spiral_core.link import applied, planning, rundir
    from spiral_core.wire import codec

    directory = rundir.find(logdir, run)
    history = applied.read(directory.applied)
    if as_config:
        typer.echo(planning.as_config(directory, history))
    elif as_json:
        held = set(map(id, history.entries))
        lines: list[dict[str, Any]] = [
            {**codec.plain(line), "holds": id(line) in held} if isinstance(line, applied.Entry) else codec.plain(line)
            for line in history.lines
        ]
        typer.echo(codec.to_json({"run": history.origin.run, "journal": lines}).decode())
    else:
        for row in _table(history):
            typer.echo(row)
    if history.torn:
        typer.echo("spiral journal: the last line was never finished; nobody was told of it", err=True)


def _table(history: History) -> Iterator[str]:
    from spiral_core.link.applied import Resumed

    held = set(map(id, history.entries))
    yield f"{'step':>10}  {'rev':>5}  {'by':<20}  what"
    for line in history.lines:
        if isinstance(line, Resumed):
            yield f"{line.resumed:>10}  {line.rev:>5}  {'':<20}  resumed"
            continue
        who = f"{line.actor} ({line.source})" if line.actor else line.source
        given_up = "" if id(line) in held else "  [given up]"
        yield f"{line.step:>10}  {line.rev:>5}  {who:<20}  {_what(line)}{given_up}"


def _what(entry: Entry) -> str:
    words = entry.verb if entry.to_step is None else f"back to the weights of step {entry.to_step}"
    if entry.verb == "step":
        words = f"step {entry.steps}"
    asked = {setting.knob for setting in entry.sets}
    moves = [
        f"{change.knob} {_value(change.old)} -> {_value(change.in_force)}"
        for change in entry.changes
        if change.knob in asked
    ]
    said = ", ".join(moves if entry.verb == "set" else [words, *moves])
    return f"{said}  ({entry.reason})" if entry.reason else said


def _value(value: object) -> str:
    return "mixed" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def replay(
    run: Run,
    logdir: Logdir = Path("runs"),
    verify: Annotated[bool, typer.Option("--verify", help="Train it again and compare.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Compute threads; any number gives the same bits.")] = None,
) -> None:
    """Train a run again and compare."""
    from spiral_core import kernels
    from spiral_core.link import replay as replaying
    from spiral_core.link import rundir

    directory = rundir.find(logdir, run)
    plan = replaying.plan(directory)
    counts = f"{plan.steps:,} steps, {plan.commands:,} commands"
    if not verify:
        typer.echo(f"{counts}, {plan.states:,} states to compare; add --verify to train and compare them")
        return
    if threads is not None:
        kernels.set_num_threads(threads)
    told = time.monotonic()

    def listen(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told >= PROGRESS_SECONDS:
            told = time.monotonic()
            typer.echo(f"  step {done:,} of {total:,}", err=True)

    result = replaying.replay(plan, listen)
    if result.difference is None:
        typer.echo(f"{counts}, identical")
        return
    typer.echo(f"{counts}: different at step {result.difference.step:,}: {result.difference.what}")
    typer.echo(f"the same up to step {result.difference.same_until:,}, as far as was compared")
    for line in result.explanations or ["nothing that is known of the two machines explains it"]:
        typer.echo(f"  {line}")
    raise typer.Exit(1)
