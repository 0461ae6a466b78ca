"""``spiral token``: who may watch, steer, or bring runs, and who may no longer."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from spiral_core.cli import reads_environment
from spiral_core.errors import ConfigError
from spiral_server.launch import tokens
from spiral_server.launch.listening import living_server, page_address
from spiral_server.live.tokens import Role

GROUP_HELP = """Make tokens for others, list them, and take them back.

A viewer watches, an operator also steers, an engine brings a run. A running server takes a new token at once, and
closes the connections of one that is revoked. The token that the server prints is the owner's, and may do everything.
"""

NEW_HELP = """Make a token. It is printed once, and only its digest is kept.

Examples:

  spiral token new --role viewer

  spiral token new --role operator --name alice

  SPIRAL_TOKEN=$(spiral token new --role engine --name node7) spiral train --server https://cockpit.example.org
"""

LIST_HELP = """List the tokens, without what opens the door.

Examples:

  spiral token list

  spiral token list --json
"""

REVOKE_HELP = """Take a token back; whoever is connected with it is disconnected.

The owner's token is in LOGDIR/access.json; to have another one drawn, delete that file and start the server again.

Examples:

  spiral token revoke alice
"""

Logdir = Annotated[Path, typer.Option(help="Where the server keeps its runs.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _new(
    role: Annotated[str, typer.Option(help=f"What it is for: {', '.join(tokens.named_roles())}.")],
    name: Annotated[str | None, typer.Option(help="Name that the journal shows; by default role and number.")] = None,
    logdir: Logdir = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Make a token."""
    if role not in tokens.named_roles():
        raise ConfigError(f"there is no role {role!r}; choose one of {', '.join(tokens.named_roles())}")
    token, record = tokens.make(logdir, Role(role), name)
    there = living_server(logdir)
    opens = None if there is None or record.role is Role.ENGINE else page_address(there.url, token)
    if as_json:
        told = {"name": record.name, "role": role, "token": token, "url": opens}
        typer.echo(json.dumps(told))
        return
    typer.echo(token)
    typer.echo(f"The token {record.name!r} ({role}) is above, for the only time.", err=True)
    if opens is not None:
        typer.echo(f"It opens the page: {opens}", err=True)


def _list(logdir: Logdir = Path("runs"), as_json: AsJson = False) -> None:
    """List the tokens."""
    records = tokens.read(logdir)
    if as_json:
        told: list[dict[str, Any]] = [
            {"name": one.name, "role": one.role.value, "created": one.created} for one in records
        ]
        typer.echo(json.dumps(told))
        return
    if not records:
        typer.echo(f"There are no named tokens in {logdir}; `spiral token new` makes one.", err=True)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for heading in ("name", "role", "made"):
        table.add_column(heading)
    for one in records:
        table.add_row(one.name, one.role.value, datetime.fromtimestamp(one.created).strftime("%Y-%m-%d %H:%M"))
    Console().print(table)


def _revoke(name: Annotated[str, typer.Argument(help="Name of the token.")], logdir: Logdir = Path("runs")) -> None:
    """Take a token back."""
    record = tokens.revoke(logdir, name)
    typer.echo(f"The token {record.name!r} ({record.role.value}) no longer opens anything.", err=True)


def tokens_application() -> typer.Typer:
    """Build the commands below ``spiral token``."""
    app = typer.Typer(help=GROUP_HELP, no_args_is_help=True, rich_markup_mode=None)
    app.command("new", help=NEW_HELP)(reads_environment(_new))
    app.command("list", help=LIST_HELP)(reads_environment(_list))
    app.command("revoke", help=REVOKE_HELP)(reads_environment(_revoke))
    return app
