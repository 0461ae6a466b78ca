"""What a server is told at its start, as one immutable value.

Reads no file, no environment and no clock: the command line does that and passes the result.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from spiral_core.errors import ConfigError
from spiral_core.wire.limits import (
    COMPARE_TICK_SECONDS,
    HEARTBEAT_SECONDS,
    RESUME_SECONDS,
    SILENCE_SECONDS,
    STALL_SECONDS,
    VIEW_TICK_SECONDS,
)

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
"""Names that always mean this machine; no name server can rebind them."""

_ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+", re.ASCII)
_ANCESTOR = re.compile(r"'self'|https?://[A-Za-z0-9.*\[\]:_-]+", re.ASCII)
"""A source expression of a Content-Security-Policy; anything else could end its directive and begin another."""

LEAST_TOKEN_CHARS = 16
"""Of a token that a person has chosen for a server that others can reach."""


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
        Path prefix of a proxy in front, such as ``/spiral``; "" for none.
    trusted_proxies : tuple of str
        Addresses of proxies whose word on who asks, and whether by TLS, is believed.
    frame_ancestors : tuple of str
        Origins of the pages that may show ours in a frame, such as ``https://lab.example.org``.
    tls_cert, tls_key : Path or None
        Files with the certificate chain and its key (PEM); with them, the server speaks TLS only.
    max_connections, max_connections_per_address : int
        Open at once.
    requests_per_second : float
        Of each token and address; 0 for no limit. Who shows no token gets the tenth part.
    header_seconds, body_seconds : float
        How long a request may take until its headers, and then its body, are complete.
    pace : Pace
        Times that conversations keep.

    Raises
    ------
    ConfigError
        A value that cannot be used, with the remedy.
    """

    logdir: Path
    host: str = "127.0.0.1"
    port: int = 0
    token: str = field(default_factory=new_token, repr=False)
    instance: str = field(default_factory=new_instance)
    allowed_hosts: tuple[str, ...] = ()
    page_dir: Path | None = None
    root_path: str = ""
    trusted_proxies: tuple[str, ...] = ()
    frame_ancestors: tuple[str, ...] = ()
    tls_cert: Path | None = None
    tls_key: Path | None = None
    max_connections: int = 2048
    max_connections_per_address: int = 512
    requests_per_second: float = 500.0
    header_seconds: float = 10.0
    body_seconds: float = 30.0
    pace: Pace = Pace()

    def __post_init__(self) -> None:
        if not self.token:
            raise ConfigError("a server needs a token: leave `token` out to have one drawn")
        if self.host not in LOOPBACK_HOSTS and len(self.token) < LEAST_TOKEN_CHARS:
            raise ConfigError(
                f"others can reach {self.host or 'every address'}: a token there takes at least {LEAST_TOKEN_CHARS} "
                "characters; leave --token out to have a good one drawn"
            )
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("TLS takes both --tls-cert and --tls-key")
        if self.root_path and not _ROOT_PATH.fullmatch(self.root_path):
            raise ConfigError(f"--root-path {self.root_path!r} cannot be used: give a path such as /spiral")
        for origin in self.frame_ancestors:
            if not _ANCESTOR.fullmatch(origin):
                raise ConfigError(
                    f"--frame-ancestors {origin!r} cannot be used: give an origin such as https://lab.example.org"
                )

    @property
    def scheme(self) -> str:
        """What an address of this server begins with."""
        return "http" if self.tls_cert is None else "https"
