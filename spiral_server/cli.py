"""The ``spiral`` command."""

from __future__ import annotations

# Heavy imports take a moment; a Ctrl-C that falls into it should end the process quietly, as it would a C program.
import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)

import json  # noqa: E402
import os  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
import urllib.error  # noqa: E402
import urllib.parse  # noqa: E402
import urllib.request  # noqa: E402
import webbrowser  # noqa: E402
from contextlib import suppress  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Annotated  # noqa: E402

import typer  # noqa: E402

from spiral_core.cli import EXIT_BAD_USE, TRAIN_HELP, reads_environment, run, train  # noqa: E402
from spiral_core.errors import ConfigError  # noqa: E402
from spiral_server.launch.engine import END_SECONDS, EngineProcess  # noqa: E402
from spiral_server.settings import Settings, new_instance, new_token  # noqa: E402

DEFAULT_PORT = 8787
PORTS_TRIED = 100
"""A taken port is not an error of the user's: the next free one is taken, as TensorBoard and others do."""

DEMO_RATE = 20.0
"""Steps per second of the demo: quick enough to see an effect, slow enough to see it happen."""

APP_HELP = """A live cockpit for training: watch and steer a network from the browser while it trains.

Examples:

  spiral demo                     the demo: server, engine and page in one

  spiral demo --data fashion      the same on real images

  spiral serve                    a server alone; runs come from elsewhere

  spiral train --help             train a run, watched or not
"""

DEMO_HELP = """Start a server, train a run and open the page to watch and steer it.

The needle task: a small network learns to find glyphs. Move the projector gain from 1 to 0.2 and see the heat maps snap
onto the object. Ctrl-C ends everything. When a server already keeps its runs in LOGDIR, the demo joins it.

Examples:

  spiral demo

  spiral demo --data fashion --port 9000 --no-open

  spiral demo --rate 0 --threads 2
"""

SERVE_HELP = """Start a server; engines connect with `spiral train --server URL`.

Prints one address with a token; open it in the browser. The same address and token are in LOGDIR/server.json.

Examples:

  spiral serve

  spiral serve --logdir /data/runs --port 9000

  spiral serve --host 0.0.0.0 --allowed-host train.example.org
"""

Port = Annotated[int, typer.Option(min=0, max=65535, help="Port; the next free one if taken, 0 for any.")]
Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")]
Logdir = Annotated[Path, typer.Option(help="Where runs are kept.")]
OpenPage = Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")]
Token = Annotated[str | None, typer.Option(help="Token to ask for; by default a random one that LOGDIR keeps.")]


def bind(host: str, port: int) -> socket.socket:
    """Open a listening socket on the port, or on the next free one.

    Raises
    ------
    SpiralError
        The address cannot be used, or no port near is free.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    last = min(port + PORTS_TRIED - 1, 65535) if port else 0
    for candidate in range(port, last + 1):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
            listener.listen(128)
        except OSError as error:
            listener.close()
            if error.errno in (98, 48):
                continue
            raise ConfigError(f"cannot listen on {host} port {candidate}: {error.strerror}") from error
        return listener
    raise ConfigError(f"no port from {port} to {last} is free on {host}; choose another with --port")


def page_address(url: str, token: str) -> str:
    """Give the address that lets a browser in."""
    return f"{url}/?token={urllib.parse.quote(token, safe='')}"


def _reach(settings: Settings) -> str:
    """Warn of what listening beyond this machine means."""
    if settings.host in ("127.0.0.1", "::1", "localhost"):
        return ""
    return (
        f"\nIt listens on {settings.host}: from elsewhere use this machine's name or address. Without TLS in front, "
        "the token can be read on the way."
    )


@dataclass(frozen=True)
class Living:
    """A server that runs already."""

    url: str
    token: str


def living_server(logdir: Path) -> Living | None:
    """Find the server that keeps its runs in this directory and answers."""
    try:
        told = json.loads((logdir / "server.json").read_text(encoding="utf-8"))
        found = Living(url=str(told["url"]), token=str(told["token"]))
        with urllib.request.urlopen(f"{found.url}/healthz", timeout=1) as answer:  # noqa: S310 - our own file's http URL
            return found if answer.status == 200 else None
    except (OSError, ValueError, KeyError, urllib.error.URLError):
        return None


def write_private(path: Path, content: dict[str, object]) -> None:
    """Write a JSON file that only this user can read, whole or not at all."""
    part = path.with_suffix(".part")
    with suppress(FileNotFoundError):
        part.unlink()
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "w", encoding="utf-8") as stream:
        json.dump(content, stream)
    part.replace(path)


def lasting_access(logdir: Path, token: str | None) -> tuple[str, str]:
    """Give token and instance id of the servers of this directory.

    Both outlive a restart, so that engines that train on and pages that are open find their way back. They lie in
    ``access.json``; delete it to draw new ones. A token from the command line is used as it is and not written down.
    """
    path = logdir / "access.json"
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        kept, instance = str(told["token"]), str(told["instance"])
    except (OSError, ValueError, KeyError, TypeError):
        kept, instance = new_token(), new_instance()
        write_private(path, {"token": kept, "instance": instance})
    return token or kept, instance


def forget(logdir: Path) -> None:
    """Take back the announcement, unless another server has made its own since."""
    path = logdir / "server.json"
    with suppress(OSError, ValueError, KeyError):
        if json.loads(path.read_text(encoding="utf-8"))["pid"] == os.getpid():
            path.unlink()


def _open_page(url: str) -> None:
    graphical = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if graphical:
        # In a thread: some browsers' launchers wait until the browser is closed.
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()


def _url(host: str, listener: socket.socket) -> str:
    everywhere = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
    name = everywhere.get(host, host)
    return f"http://{f'[{name}]' if ':' in name else name}:{listener.getsockname()[1]}"


def _run_server(
    settings: Settings, listener: socket.socket, url: str, *, show: bool, engine: EngineProcess | None
) -> None:
    """Serve until Ctrl-C; then end the engine first, so that its last words still arrive."""
    from spiral_server import app

    class Server(app.Server):
        leaving_at: float | None = None
        told = False
        failed = False

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started and not (engine is not None and engine.refused):
                where = {"url": url, "pid": os.getpid(), "token": settings.token}
                write_private(settings.logdir / "server.json", where)
                page = page_address(url, settings.token)
                typer.echo(page)
                typer.echo(f"Spiral is running: open the address above. Ctrl-C ends it.{_reach(settings)}", err=True)
                sys.stdout.flush()
                if show:
                    _open_page(page)

        def handle_exit(self, sig: int, frame: object) -> None:
            del sig, frame
            if self.leaving_at is not None or engine is None:
                self.should_exit = True
                return
            self.leaving_at = time.monotonic() + END_SECONDS
            engine.terminate()

        async def on_tick(self, counter: int) -> bool:
            gone = engine is None or engine.ended
            if engine is not None and gone and self.leaving_at is None and not self.told:
                self.told = True
                self.failed = engine.refused
                self.should_exit = engine.refused
                if not engine.refused:
                    typer.echo(f"The run is over: the engine has ended with status {engine.status}.", err=True)
            if self.leaving_at is not None and (gone or time.monotonic() > self.leaving_at):
                self.should_exit = True
            return await super().on_tick(counter)

    server = Server(app.uvicorn_config(app.create_app(settings), settings))
    try:
        server.run(sockets=[listener])
    finally:
        forget(settings.logdir)
    if server.failed:
        # The engine has said why.
        sys.exit(EXIT_BAD_USE)


def _serve(
    *,
    host: str,
    port: int,
    logdir: Path,
    token: str | None,
    show: bool,
    allowed: list[str],
    root_path: str,
    train_with: list[str] | None,
) -> None:
    try:
        logdir.mkdir(parents=True, exist_ok=True)
        token, instance = lasting_access(logdir, token)
    except OSError as error:
        raise ConfigError(f"cannot keep runs in {logdir}: {error.strerror}; choose another --logdir") from error
    listener = bind(host, port)
    url = _url(host, listener)
    settings = Settings(
        logdir=logdir,
        host=host,
        port=listener.getsockname()[1],
        token=token,
        instance=instance,
        allowed_hosts=tuple(allowed),
        root_path=root_path,
    )
    # Until the server takes over, Ctrl-C goes straight to the end of this function.
    signal.signal(signal.SIGINT, lambda _number, _frame: sys.exit(130))
    # The engine loads its own world while the server loads its; the listening socket holds its knocks until then.
    engine = None if train_with is None else EngineProcess(train_with, server=url, token=settings.token)
    try:
        _run_server(settings, listener, url, show=show, engine=engine)
    finally:
        if engine is not None:
            engine.terminate()
            engine.finish()


@reads_environment
def demo(
    data: Annotated[
        str, typer.Option(help="needle (endless, with known objects) or fashion (real images).")
    ] = "needle",
    port: Port = DEFAULT_PORT,
    logdir: Logdir = Path("runs"),
    open_page: OpenPage = True,
    rate: Annotated[float, typer.Option(min=0, help="Most steps per second; 0: no limit. Can be steered.")] = DEMO_RATE,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    gain: Annotated[float | None, typer.Option(help="Projector gain at the start, 0 to 1.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate at the start.")] = None,
    steps: Annotated[int, typer.Option(min=0, help="Updates; 0 means until stopped.")] = 0,
    xai_every: Annotated[int | None, typer.Option(help="Steps between Grad-CAM probes; 0: never.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Compute threads.")] = None,
    dump_every: Annotated[int, typer.Option(min=0, help="Steps between inspection dumps; 0: none.")] = 0,
    token: Token = None,
) -> None:
    """Start a server, train a run and open the page to watch and steer it."""
    words = ["--quiet", "--data", data, "--rate", str(rate), "--seed", str(seed), "--steps", str(steps)]
    words += ["--dump-every", str(dump_every), "--logdir", str(logdir)]
    for option, value in (("--gain", gain), ("--lr", lr), ("--xai-every", xai_every), ("--threads", threads)):
        if value is not None:
            words += [option, str(value)]
    there = living_server(logdir)
    if there is None:
        _serve(
            host="127.0.0.1",
            port=port,
            logdir=logdir,
            token=token,
            show=open_page,
            allowed=[],
            root_path="",
            train_with=words,
        )
    else:
        _join(there, words, show=open_page)


def _join(there: Living, words: list[str], *, show: bool) -> None:
    """Train on a server that runs already."""
    engine = EngineProcess(words, server=there.url, token=there.token)
    page = page_address(there.url, there.token)
    typer.echo(page)
    typer.echo("A server keeps its runs here already: the demo joins it. Ctrl-C ends this run only.", err=True)
    sys.stdout.flush()
    if show:
        _open_page(page)
    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: asked.set())
    while not engine.ended and not asked.wait(0.1):
        pass
    engine.terminate()
    engine.finish()


@reads_environment
def serve(
    host: Host = "127.0.0.1",
    port: Port = DEFAULT_PORT,
    logdir: Logdir = Path("runs"),
    open_page: OpenPage = False,
    token: Token = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="Further host name under which the page may be asked for; repeatable.")
    ] = None,
    root_path: Annotated[str, typer.Option(help="Path prefix of a proxy in front, such as /spiral.")] = "",
) -> None:
    """Start a server; engines connect with `spiral train --server URL`."""
    there = living_server(logdir)
    if there is not None:
        raise ConfigError(f"a server already keeps its runs in {logdir}: {there.url}; use it, or another --logdir")
    _serve(
        host=host,
        port=port,
        logdir=logdir,
        token=token,
        show=open_page,
        allowed=allowed_host or [],
        root_path=root_path,
        train_with=None,
    )


def application() -> typer.Typer:
    """Build the command line."""
    app = typer.Typer(
        help=APP_HELP, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
    )
    app.command("demo", help=DEMO_HELP)(demo)
    app.command("serve", help=SERVE_HELP)(serve)
    app.command("train", help=TRAIN_HELP)(train)
    return app


def main() -> None:
    """Run the command line."""
    run(application(), "spiral")


if __name__ == "__main__":
    main()
