"""What a server is told at its start, as one immutable value.

Reads no file, no environment and no clock: the command line does that and passes the result.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from spiral_core.wire.limits import (
    COMPARE_TICK_SECONDS,
    HEARTBEAT_SECONDS,
    RESUME_SECONDS,
    SILENCE_SECONDS,
    STALL_SECONDS,
    VIEW_TICK_SECONDS,
)


def new_token() -> str:
    """Draw an access token of 256 bits, safe in a URL."""
    return secrets.token_urlsafe(32)


def new_instance() -> str:
    """Draw the id of a server instance; two servers on one machine must not overwrite each other's cookie."""
    return secrets.token_hex(4)


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Times in seconds that conversations keep; `spiral_core.wire.limits` says what they are for.

    Parameters
    ----------
    tick, compare_tick, heartbeat, silence, stall, resume : float
        See the constants of these names.
    linger : float
        How long a socket whose peer does not read stays open for its close frame. Longer than a laptop's nap of a
        minute and a half takes, so that the peer learns why.
    poll : float
        How long a poll waits for something to be said. Proxies give up after 30 or 60.
    """

    tick: float = VIEW_TICK_SECONDS
    compare_tick: float = COMPARE_TICK_SECONDS
    heartbeat: float = HEARTBEAT_SECONDS
    silence: float = SILENCE_SECONDS
    stall: float = STALL_SECONDS
    resume: float = RESUME_SECONDS
    linger: float = 120.0
    poll: float = 20.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of one server.

    Parameters
    ----------
    logdir : Path
        Directory of the runs; created when it is missing. One server at a time.
    host, port
        Where the server listens. Port 0 lets the system choose.
    token : str
        What a browser, a courier or a script must show. Never empty.
    instance : str
        Part of the cookie's name: cookies do not tell ports apart.
    allowed_hosts : tuple of str
        Names beside the loopback names that a request may give as its Host, such as ``cockpit.example.org``.
    page_dir : Path or None
        Directory of the built page; None takes the one inside the package.
    root_path : str
        Path prefix that a proxy strips, such as ``/spiral``; "" for none.
    pace : Pace
        Times that conversations keep.
    """

    logdir: Path
    host: str = "127.0.0.1"
    port: int = 0
    token: str = field(default_factory=new_token, repr=False)
    instance: str = field(default_factory=new_instance)
    allowed_hosts: tuple[str, ...] = ()
    page_dir: Path | None = None
    root_path: str = ""
    pace: Pace = Pace()

    def __post_init__(self) -> None:
        if not self.token:
            raise ValueError("a server needs a token: leave `token` out to have one drawn")
