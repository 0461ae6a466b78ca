"""The ``spiral`` command."""

from __future__ import annotations

# Heavy imports take a moment; a Ctrl-C that falls into it should end the process quietly, as it would a C program.
import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)

import os  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
import webbrowser  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import replace  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402
from threading import Event, Thread  # noqa: E402
from typing import Annotated, Literal  # noqa: E402

import typer  # noqa: E402

from spiral_core import __version__  # noqa: E402
from spiral_core.cli import (  # noqa: E402
    EXIT_BAD_USE,
    EXIT_INTERRUPTED,
    given_by,
    reads_environment,
    register,
    run,
    takes_training,
)
from spiral_core.errors import ConfigError  # noqa: E402
from spiral_core.wire.training import training_words  # noqa: E402
from spiral_server import cli_runs  # noqa: E402
from spiral_server.cli_doctor import DOCTOR_HELP, doctor  # noqa: E402
from spiral_server.cli_steer import add_commands  # noqa: E402
from spiral_server.cli_token import tokens_application  # noqa: E402
from spiral_server.launch.engine import END_SECONDS, EngineProcess  # noqa: E402
from spiral_server.launch.launcher import Launcher, awaited_port, left_behind  # noqa: E402
from spiral_server.launch.listening import (  # noqa: E402
    Living,
    bind,
    check_tls,
    forget,
    lasting_access,
    listening_url,
    living_server,
    page_address,
)
from spiral_server.launch.private import write_private  # noqa: E402
from spiral_server.settings import Settings  # noqa: E402

DEFAULT_PORT = 8787
DEMO_RATE = 20.0
"""Steps per second of the demo: quick enough to see an effect, slow enough to see it happen."""

APP_HELP = """A live cockpit for training: watch and steer a network from the browser while it trains.

Examples:

  spiral demo                     the demo: server, engine and page in one

  spiral demo --data fashion      the same on real images

  spiral demo --data motif        a recurrent network on 1-D signals

  spiral serve                    a server alone; runs come from elsewhere

  spiral train --help             train a run, watched or not

  spiral set optim.lr=3e-4        steer the run that trains

  spiral watch                    follow it in the terminal

  spiral runs start --data digits have the server start a run; also stop, restart

  spiral runs list                look after the runs on disk

  spiral token new --role viewer  let somebody watch

  spiral doctor                   what is wrong with this machine, and what to do
"""

DEMO_HELP = """Start a server, train a run and open the page to watch and steer it.

The needle task: a small network learns to find glyphs. Move the projector gain from 1 to 0.2 and see the heat maps snap
onto the object. Ctrl-C ends everything. When a server already keeps its runs in LOGDIR, the demo joins it.

Examples:

  spiral demo

  spiral demo --data fashion --port 9000 --no-open

  spiral demo --data motif --model z_lstm

  spiral demo --data fashion --optimizer adam --precision float16 --auto-gain 0.7

  spiral demo --rate 0 --threads 2
"""

SERVE_HELP = """Start a server; engines connect with `spiral train --server URL`.

Prints one address with a token; open it in the browser. The same address and token are in LOGDIR/server.json.

Examples:

  spiral serve

  spiral serve --logdir /data/runs --port 9000

  spiral serve --host 0.0.0.0 --allowed-host train.example.org --tls-cert chain.pem --tls-key key.pem

  spiral serve --root-path /spiral --trusted-proxy 127.0.0.1     behind a proxy

  spiral serve --log-format json --log-level warning

SIGTERM and Ctrl-C end it in order; SIGHUP makes it read tokens and certificate again. See docs/server.md.
"""

Port = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=65535,
        show_default=str(DEFAULT_PORT),
        help="Port; the next free one if taken, 0 for any. Engines that go on from an earlier server decide, else.",
    ),
]
Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")]
Logdir = Annotated[Path, typer.Option(help="Where runs are kept.")]
OpenPage = Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")]
LogFormat = Literal["console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
Token = Annotated[str | None, typer.Option(help="Token to ask for; by default a random one that LOGDIR keeps.")]


def _reach(settings: Settings) -> str:
    """Warn of what listening beyond this machine means."""
    if settings.host in ("127.0.0.1", "::1", "localhost"):
        return ""
    plain = "" if settings.tls_cert else " Without TLS in front, the token can be read on the way."
    return f"\nIt listens on {settings.host}: from elsewhere use this machine's name or address.{plain}"


def _open_page(url: str) -> None:
    graphical = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if graphical:
        # In a thread: some browsers' launchers wait until the browser is closed.
        Thread(target=webbrowser.open, args=(url,), daemon=True).start()


def _announce(settings: Settings, url: str, *, show: bool) -> None:
    """Say where the server is, to people and to programs."""
    where = {"url": url, "pid": os.getpid(), "token": settings.token}
    if settings.tls_cert is not None:
        where["certificate"] = str(settings.tls_cert.resolve())
    write_private(settings.logdir / "server.json", where)
    page = page_address(url, settings.token)
    typer.echo(page)
    typer.echo(f"Spiral is running: open the address above. Ctrl-C ends it.{_reach(settings)}", err=True)
    sys.stdout.flush()
    if show:
        _open_page(page)


def _run_server(
    settings: Settings, listener: socket.socket, url: str, *, show: bool, engine: EngineProcess | None, asked: Event
) -> None:
    """Serve until Ctrl-C; then end the engine first, so that its last words still arrive."""
    from spiral_server import app

    if asked.is_set():
        sys.exit(EXIT_INTERRUPTED)

    class Server(app.Server):
        look_seconds = app.Server.look_seconds if engine is None else 0.1
        leaving_at: float | None = None
        told = failed = False

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started and not (engine is not None and engine.refused):
                _announce(settings, url, show=show)

        def handle_exit(self, sig: int, frame: object) -> None:
            del sig, frame
            if self.leaving_at is not None or engine is None:
                self.should_exit = True
                return
            self.leaving_at = time.monotonic() + END_SECONDS
            engine.terminate()
            # Who presses Ctrl-C in a demo wants everything of it to be over; a server leaves its engines alone.
            launcher.end_own()

        async def on_tick(self, counter: int) -> bool:
            # It came after the last look, before the server minded signals itself.
            if asked.is_set():
                asked.clear()
                self.handle_exit(signal.SIGINT, None)
            gone = engine is None or (engine.ended and not (self.leaving_at and launcher.own()))
            if engine is not None and gone and self.leaving_at is None and not self.told:
                self.told = True
                self.failed = engine.refused
                self.should_exit = engine.refused
                if not engine.refused:
                    typer.echo(f"The run is over: the engine has ended with status {engine.status}.", err=True)
            if self.leaving_at is not None and (gone or time.monotonic() > self.leaving_at):
                self.should_exit = True
            return await super().on_tick(counter)

    app.own_process()
    application = app.create_app(settings)
    launcher: Launcher = application.state.launcher
    server = Server(app.uvicorn_config(application, settings))
    try:
        server.run(sockets=[listener])
    finally:
        forget(settings.logdir)
    if left := [one for one in launcher.living() if engine is None or not launcher.began(one)]:
        typer.echo(left_behind(left, settings.logdir), err=True)
    if server.failed:
        # The engine has said why.
        sys.exit(EXIT_BAD_USE)


def _serve(
    plan: Settings,
    token: str | None,
    port: int | None,
    *,
    show: bool,
    train_with: list[str] | None,
    log: Callable[[list[str]], None] = lambda _secrets: None,
) -> None:
    """Serve as planned, on the first free port from the one asked for on; ``log`` begins the log, without the token."""
    logdir = plan.logdir
    try:
        logdir.mkdir(parents=True, exist_ok=True)
        token, instance = lasting_access(logdir, token)
    except OSError as error:
        raise ConfigError(f"cannot keep runs in {logdir}: {error.strerror}; choose another --logdir") from error
    log([token])
    plan = replace(plan, token=token, instance=instance)
    check_tls(plan)
    # Whoever names a port means it; otherwise it is the one at which engines of an earlier server look for us.
    awaited = None if port else awaited_port(logdir, plan.host, plan.scheme)
    listener = bind(plan.host, awaited or (DEFAULT_PORT if port is None else port))
    url = listening_url(plan.host, listener, plan.scheme)
    settings = replace(plan, port=listener.getsockname()[1])
    # Until the server takes over, Ctrl-C is noted and looked at when its parts are loaded: an exception that is raised
    # while modules are loaded may end up in a callback that swallows it.
    interrupted = Event()
    signal.signal(signal.SIGINT, lambda _number, _frame: interrupted.set())
    # The engine loads its own world while the server loads its; the listening socket holds its knocks until then.
    engine = None if train_with is None else EngineProcess(train_with, server=url, token=settings.token)
    try:
        _run_server(settings, listener, url, show=show, engine=engine, asked=interrupted)
    finally:
        if engine is not None:
            engine.terminate()
            engine.finish()


@takes_training
def demo(
    context: typer.Context,
    port: Port = None,
    logdir: Logdir = Path("runs"),
    open_page: OpenPage = True,
    rate: Annotated[float, typer.Option(min=0, help="Most steps per second; 0: no limit. Can be steered.")] = DEMO_RATE,
    token: Token = None,
    **_training: object,
) -> None:
    """Start a server, train a run and open the page to watch and steer it."""
    given = {"rate": rate, **given_by(context)}
    if "steps" not in given and "epochs" not in given:
        given["steps"] = 0
    words = ["--quiet", "--logdir", str(logdir), *training_words(given)]
    there = living_server(logdir)
    if there is None:
        _serve(Settings(logdir=logdir), token, port, show=open_page, train_with=words)
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
    asked = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: asked.set())
    while not engine.ended and not asked.wait(0.1):
        pass
    engine.terminate()
    engine.finish()


@reads_environment
def serve(
    host: Host = "127.0.0.1",
    port: Port = None,
    logdir: Logdir = Path("runs"),
    open_page: OpenPage = False,
    token: Token = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="Further host name under which the page may be asked for; repeatable.")
    ] = None,
    root_path: Annotated[str, typer.Option(help="Path prefix of a proxy in front, such as /spiral.")] = "",
    trusted_proxy: Annotated[
        list[str] | None, typer.Option(help="Address of a proxy whose X-Forwarded headers are believed; repeatable.")
    ] = None,
    frame_ancestors: Annotated[
        list[str] | None, typer.Option(help="Origin of a page that may show this one in a frame; repeatable.")
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(help="Certificate chain (PEM): speak TLS only.", exists=True, dir_okay=False)
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key (PEM).", exists=True, dir_okay=False)] = None,
    max_connections: Annotated[int, typer.Option(min=1, help="Open at once.")] = Settings.max_connections,
    max_connections_per_address: Annotated[
        int, typer.Option(min=1, help="Open at once from one address.")
    ] = Settings.max_connections_per_address,
    requests_per_second: Annotated[
        float, typer.Option(min=0, help="Of each token and address; 0: no limit.")
    ] = Settings.requests_per_second,
    max_engines: Annotated[
        int, typer.Option(min=0, help="Started by this server and running at once; 0: none.")
    ] = Settings.max_engines,
    log_format: Annotated[LogFormat, typer.Option(help="console for people, json for programs.")] = "console",
    log_level: Annotated[LogLevel, typer.Option(help="Least level that is logged.")] = "info",
) -> None:
    """Start a server; engines connect with `spiral train --server URL`."""
    there = living_server(logdir)
    if there is not None:
        raise ConfigError(f"a server already keeps its runs in {logdir}: {there.url}; use it, or another --logdir")
    plan = Settings(
        logdir=logdir,
        host=host,
        allowed_hosts=tuple(allowed_host or ()),
        root_path=root_path,
        trusted_proxies=tuple(trusted_proxy or ()),
        frame_ancestors=tuple(frame_ancestors or ()),
        tls_cert=tls_cert,
        tls_key=tls_key,
        max_connections=max_connections,
        max_connections_per_address=max_connections_per_address,
        requests_per_second=requests_per_second,
        max_engines=max_engines,
    )
    from spiral_server import logs

    _serve(plan, token, port, show=open_page, train_with=None, log=partial(logs.configure, log_format, log_level))


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"spiral {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    del version


def application() -> typer.Typer:
    """Build the command line."""
    app = typer.Typer(
        help=APP_HELP, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
    )
    app.callback()(_options)
    app.command("demo", help=DEMO_HELP)(demo)
    app.command("serve", help=SERVE_HELP)(serve)
    register(app)
    add_commands(app)
    app.add_typer(cli_runs.application(), name="runs")
    app.add_typer(tokens_application(), name="token")
    app.command("doctor", help=DOCTOR_HELP)(doctor)
    return app


def main() -> None:
    """Run the command line."""
    run(application(), "spiral")


if __name__ == "__main__":
    main()
