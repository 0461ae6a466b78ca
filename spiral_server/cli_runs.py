"""Looking after runs on disk: ``spiral runs list``, ``show``, ``delete``, ``compact``, ``verify`` and ``backup``.

Where a server keeps the directory, it is asked; where none does, the store is opened for the moment of the command.
Starting and ending runs is in `cli_launch`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Protocol
from urllib.parse import quote

import msgspec
import typer

from spiral_core.cli import reads_environment
from spiral_core.errors import SpiralError
from spiral_core.wire.parts import RunSummary
from spiral_server import cli_launch
from spiral_server.launch.listening import living_server
from spiral_server.remote.choosing import choose_run
from spiral_server.remote.client import Client

HELP = """Start, stop and restart runs on a server; list, show, delete, pack, verify and back up those on disk.

The latter works beside a running server, which is asked then, and without one.

Examples:

  spiral runs start --data fashion --lr 3e-3

  spiral runs restart 20260101-120000-needle-ab12

  spiral runs list

  spiral runs show 20260101-120000-needle-ab12

  spiral runs verify --repair

  spiral runs backup 20260101-120000-needle-ab12 /mnt/backup

  spiral runs delete 20260101-120000-needle-ab12 --yes
"""
FOREVER = 2**62
"""A last step at or beyond: to the end."""

Run = Annotated[str, typer.Argument(help="Id of a run.")]
OneRun = Annotated[str | None, typer.Argument(help="Id of a run; all of them by default.")]
Logdir = Annotated[Path, typer.Option(help="Where runs are kept.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Keeper(Protocol):
    """Whoever keeps the runs now: a server, or the store itself."""

    def runs(self) -> list[RunSummary]:
        """List the runs, newest first."""

    def series(self, run: str) -> list[dict[str, Any]]:
        """Give for each series its name, how many points there are, and what they range over."""

    def delete(self, run: str) -> None:
        """Delete a run."""

    def compact(self, run: str) -> tuple[int, int]:
        """Pack a run; give bytes before and after."""

    def verify(self, run: str, *, repair: bool) -> list[dict[str, Any]]:
        """Give what is damaged."""


class _Served:
    """The runs of a server that runs."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def runs(self) -> list[RunSummary]:
        return msgspec.convert(self._client.get("/runs")["runs"], list[RunSummary])

    def series(self, run: str) -> list[dict[str, Any]]:
        told = self._client.get(f"/runs/{quote(run, safe='')}/series?width=1000")["series"]
        return [_ranging(one["name"], one["values"], reduced=one["reduced"]) for one in told]

    def delete(self, run: str) -> None:
        self._client.ask("DELETE", f"/runs/{quote(run, safe='')}")

    def compact(self, run: str) -> tuple[int, int]:
        told = self._client.ask("POST", f"/runs/{quote(run, safe='')}/compact")
        return told["before"], told["after"]

    def verify(self, run: str, *, repair: bool) -> list[dict[str, Any]]:
        told = self._client.ask("POST", f"/runs/{quote(run, safe='')}/verify?repair={'true' if repair else 'false'}")
        found: list[dict[str, Any]] = told["damaged"]
        return found


class _Stored:
    """The runs of a directory that no server keeps."""

    def __init__(self, logdir: Path) -> None:
        # Imported here: a server that is asked needs no database of ours.
        from spiral_server import logs
        from spiral_server.store.sqlite_store import SqliteStore

        # Standard output is for what was asked for.
        logs.configure(level="warning")
        self._store = SqliteStore(logdir)

    def runs(self) -> list[RunSummary]:
        from spiral_server.live.snapshot import listing, unplugged

        return listing(unplugged(one) for one in self._store.runs())

    def series(self, run: str) -> list[dict[str, Any]]:
        from spiral_server.store.protocol import SeriesQuery
        from spiral_server.store.rebuild import view_of

        specs = view_of(run, self._store.history(run)).series
        read = self._store.series(run, SeriesQuery(None, None, None, 2000))
        return [
            _ranging(
                specs[index].name if index in specs else str(index), points.values.tolist(), reduced=points.reduced
            )
            for index, points in read.columns.items()
        ]

    def delete(self, run: str) -> None:
        self._store.delete(run)

    def compact(self, run: str) -> tuple[int, int]:
        return self._store.compact(run)

    def verify(self, run: str, *, repair: bool) -> list[dict[str, Any]]:
        return [msgspec.to_builtins(one) for one in self._store.verify(run, repair=repair)]

    def close(self) -> None:
        self._store.close()


def _ranging(name: str, values: list[Any], *, reduced: bool) -> dict[str, Any]:
    """Say what the values of a series range over; extremes are in reduced points too."""
    numbers = [value for value in values if isinstance(value, (int, float)) and abs(value) < float("inf")]
    return {
        "name": name,
        "points": None if reduced else len(values),
        "lowest": min(numbers, default=None),
        "highest": max(numbers, default=None),
        "last": values[-1] if values and isinstance(values[-1], str) else numbers[-1] if numbers else None,
    }


@contextmanager
def keeper(logdir: Path) -> Iterator[Keeper]:
    """Find who keeps the runs of a directory.

    Raises
    ------
    SpiralError
        There is no such directory, or a server holds it and does not answer.
    """
    if living_server(logdir) is not None:
        yield _Served(Client(logdir))
        return
    if not logdir.is_dir():
        raise SpiralError(f"there is no directory {logdir}: name the one that holds the runs with --logdir")
    store = _Stored(logdir)
    try:
        yield store
    finally:
        store.close()


def _say(what: Any) -> None:  # noqa: ANN401 - JSON's own types have no better name
    typer.echo(json.dumps(what))


@reads_environment
def list_runs(logdir: Logdir = Path("runs"), plain: Json = False) -> None:
    """List the runs, newest first."""
    with keeper(logdir) as there:
        found = there.runs()
    if plain:
        _say([msgspec.to_builtins(one) for one in found])
        return
    for one in found:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.created))
        size = sum(file.stat().st_size for file in (logdir / one.id).rglob("*") if file.is_file())
        typer.echo(f"{one.id}  {when}  {one.status:<9} step {one.step:>9,}  {size / 1e6:>8,.1f} MB  {one.name}")
        if one.trouble:
            typer.echo(f"  {one.trouble}")
    if not found:
        typer.echo(f"there are no runs in {logdir}", err=True)


@reads_environment
def show(run: Run, logdir: Logdir = Path("runs"), plain: Json = False) -> None:
    """Show one run: what it is, and what its series range over."""
    with keeper(logdir) as there:
        one = choose_run(there.runs(), run)
        series = there.series(run)
    if plain:
        _say({**msgspec.to_builtins(one), "series": series})
        return
    typer.echo(
        f"{one.id}  {one.name}\n{one.model} on {one.data}, {one.status} at step {one.step:,}  {one.detail}".rstrip()
    )
    for line in series:
        ranging = "  ".join(f"{key} {_short(line[key])}" for key in ("lowest", "highest", "last"))
        typer.echo(f"  {line['name']:<36} {ranging}")


def _short(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else "-" if value is None else str(value)


@reads_environment
def delete(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Ids of runs.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    logdir: Logdir = Path("runs"),
) -> None:
    """Delete runs with everything that belongs to them: curves, checkpoints, journal, run log."""
    with keeper(logdir) as there:
        chosen = [choose_run(there.runs(), run) for run in runs]
        for one in chosen:
            if not yes and not typer.confirm(f"delete {one.id} ({one.status} at step {one.step:,}) for good?"):
                typer.echo(f"kept {one.id}", err=True)
                raise typer.Exit(1)
            there.delete(one.id)
            typer.echo(f"deleted {one.id}")


@reads_environment
def compact(run: OneRun = None, logdir: Logdir = Path("runs"), plain: Json = False) -> None:
    """Pack the data of runs, and give free space back to the file system."""
    failed = False
    with keeper(logdir) as there:
        for one in _chosen(there, run):
            try:
                before, after = there.compact(one)
            except SpiralError as error:
                typer.echo(f"spiral runs compact: {error}", err=True)
                failed = True
                continue
            if plain:
                _say({"run": one, "before": before, "after": after})
            else:
                typer.echo(f"{one}: {before / 1e6:.1f} MB before, {after / 1e6:.1f} MB now")
    if failed:
        raise typer.Exit(1)


@reads_environment
def verify(
    run: OneRun = None,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what the run log still holds.")] = False,
    logdir: Logdir = Path("runs"),
    plain: Json = False,
) -> None:
    """Read everything and tell what is damaged; exit status 1 when something is."""
    damaged = 0
    with keeper(logdir) as there:
        for one in _chosen(there, run):
            found = there.verify(one, repair=repair)
            damaged += len(found)
            if plain:
                _say({"run": one, "damaged": found})
                continue
            typer.echo(f"{one}: {'sound' if not found else f'{len(found)} damaged'}")
            for damage in found:
                last = "end" if damage["last_step"] >= FOREVER else damage["last_step"]
                typer.echo(f"  steps {damage['first_step']} to {last}: {damage['reason']}")
    if damaged and not repair:
        typer.echo("spiral runs verify: --repair mends what the run log still holds", err=True)
    if damaged:
        raise typer.Exit(1)


@reads_environment
def backup(
    run: Run,
    target: Annotated[Path, typer.Argument(help="Directory under which a copy of the run directory is made.")],
    logdir: Logdir = Path("runs"),
) -> None:
    """Copy a run while it is being trained; the copy can be served and resumed like the run itself."""
    from spiral_server.store.copying import back_up

    made = back_up(logdir, run, target)
    typer.echo(f"copied to {made}")


def _chosen(there: Keeper, run: str | None) -> list[str]:
    runs = there.runs()
    return [one.id for one in runs] if run is None else [choose_run(runs, run).id]


def application() -> typer.Typer:
    """Build the group of commands."""
    app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode=None)
    cli_launch.add_commands(app)
    app.command("list")(list_runs)
    for command in (show, delete, compact, verify, backup):
        example = f"Examples:\n\n  spiral runs {command.__name__} 20260101-120000-needle-ab12"
        example += " /mnt/backup" if command is backup else ""
        app.command(command.__name__, help=f"{command.__doc__}\n\n{example}\n")(command)
    return app
