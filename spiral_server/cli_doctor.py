"""``spiral doctor``: what is wrong with this machine, and what to do about it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from spiral_core.cli import EXIT_FAILED, reads_environment
from spiral_server import checkup

DOCTOR_HELP = """Look at what Spiral needs: Python, packages, threads, kernel cache, page, port, disk, server.

Prints one line for each, with a remedy where there is something to mend. Compiles a kernel when the cache is empty.

Examples:

  spiral doctor

  spiral doctor --logdir /data/runs --port 9000

  spiral doctor --json

Exit codes: 0 all is well; 1 something must be mended.
"""

_SIGNS = {"good": "[green]ok[/]", "note": "[yellow]note[/]", "bad": "[red]BAD[/]"}


@reads_environment
def doctor(
    logdir: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
    host: Annotated[str, typer.Option(help="Address that a server is to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port that it is to listen on.")] = 8787,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look at what Spiral needs, and say what to do."""
    # The kernels load NumPy and Numba; no other command of the server's may wait for that.
    from spiral_core import checkup as engine

    findings = [checkup.Found(*one) for one in engine.look()] + checkup.look(logdir, host, port)
    if as_json:
        told = [one._asdict() for one in findings]
        typer.echo(json.dumps({"healthy": _healthy(findings), "findings": told}))
    else:
        _print(findings)
    if not _healthy(findings):
        sys.exit(EXIT_FAILED)


def _healthy(findings: list[checkup.Found]) -> bool:
    return all(one.state != "bad" for one in findings)


def _print(findings: list[checkup.Found]) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for heading in ("", "what", "found", "remedy"):
        table.add_column(heading, overflow="fold")
    for one in findings:
        table.add_row(_SIGNS[one.state], one.what, escape(one.found), escape(one.remedy))
    Console().print(table)
