"""What the server needs of a machine, looked at one by one: each finding names its remedy."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
from pathlib import Path
from typing import NamedTuple

import psutil

from spiral_server.launch import tokens
from spiral_server.launch.listening import announced, living_server
from spiral_server.settings import LOOPBACK_HOSTS

FULL_BYTES = 100 * 1024 * 1024
"""Less free space than this: a run of an hour no longer fits."""
SCARCE_BYTES = 2 * 1024**3
"""A run log alone may grow to this."""
PAGE = Path(__file__).parent / "page" / "index.html"


class Found(NamedTuple):
    """One thing that was looked at; ``state`` is good, note or bad."""

    what: str
    state: str
    found: str
    remedy: str = ""


def look(logdir: Path, host: str, port: int) -> list[Found]:
    """Look at page, directory of runs, disk, tokens, port, and the server that has announced itself."""
    server = _server(logdir)
    return [_page(), *_directory(logdir), _tokens(logdir), server, _port(logdir, host, port)]


def _page() -> Found:
    if PAGE.is_file():
        return Found("page", "good", str(PAGE.parent))
    return Found("page", "bad", f"{PAGE} is missing", "run `make page` in the checkout, or install the wheel")


def _directory(logdir: Path) -> list[Found]:
    # A directory that is not there yet is made by the first server; what counts is the one that it is made in.
    there = logdir.absolute()
    while not there.exists():
        there = there.parent
    probe = there / f".spiral-probe-{os.getpid()}"
    try:
        probe.write_bytes(b"\0" * 4096)
        probe.unlink()
    except OSError as error:
        reason = f"{logdir} cannot be written: {error.strerror}"
        return [Found("runs", "bad", reason, "mend its permissions, free some space, or choose another --logdir")]
    writable = Found("runs", "good", str(logdir) if there == logdir.absolute() else f"{logdir} will be made")
    free = shutil.disk_usage(there).free
    said = f"{free / 1024**3:.1f} GB free"
    if free < FULL_BYTES:
        return [writable, Found("disk", "bad", said, "free some space: delete runs or checkpoints")]
    if free < SCARCE_BYTES:
        return [writable, Found("disk", "note", said, "a long run may fill it: free some space")]
    return [writable, Found("disk", "good", said)]


def _tokens(logdir: Path) -> Found:
    path = logdir / tokens.FILE
    try:
        number = len(tokens.read(logdir))
    except ValueError as error:
        return Found("tokens", "bad", str(error), f"delete {path} and make the tokens anew with `spiral token new`")
    secret = [one for one in (path, logdir / "access.json", logdir / "server.json") if one.exists()]
    open_to_others = [str(one) for one in secret if one.stat().st_mode & 0o077]
    if open_to_others:
        return Found(
            "tokens", "bad", f"others can read {', '.join(open_to_others)}", f"chmod 600 {' '.join(open_to_others)}"
        )
    return Found("tokens", "good", f"{number} named")


def _server(logdir: Path) -> Found:
    path = logdir / "server.json"
    told = announced(logdir)
    if told is None:
        if path.exists():
            return Found("server", "bad", f"{path} cannot be read", f"delete {path} unless a server runs")
        return Found("server", "good", "none runs here")
    if living_server(logdir) is not None:
        return Found("server", "good", f"answers at {told.url}")
    pid = _pid(path)
    if pid is not None and psutil.pid_exists(pid):
        remedy = "wait, or end it and start it again"
        return Found("server", "bad", f"process {pid} is there but does not answer at {told.url}", remedy)
    return Found("server", "note", f"{path} is left over from a server that died", "nothing: the next one replaces it")


def _pid(path: Path) -> int | None:
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["pid"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _port(logdir: Path, host: str, port: int) -> Found:
    there = announced(logdir)
    if there is not None and there.url.endswith(f":{port}"):
        return Found("port", "good", f"{port} is our server's")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return Found("port", "note", f"{port} is taken", "the next free one is used; or choose one with --port")
            return Found(
                "port", "bad", f"{host}:{port} cannot be used: {error.strerror}", "choose another --host or --port"
            )
    if host not in LOOPBACK_HOSTS:
        return Found("port", "note", f"{host}:{port} is free; others can reach it", "use TLS: --tls-cert and --tls-key")
    return Found("port", "good", f"{port} is free")
