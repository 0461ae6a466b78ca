"""Where a server listens, and how other programs of the same user find it and get in.

``LOGDIR/server.json`` tells of the server that runs (address, process, token); ``LOGDIR/access.json`` keeps token and
instance id from one server to the next. Both can be read by this user only.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import ssl
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from spiral_core.errors import ConfigError
from spiral_server.launch.private import write_private
from spiral_server.settings import Settings, new_instance, new_token

PORTS_TRIED = 100
"""A taken port is not an error of the user's: the next free one is taken, as TensorBoard and others do."""


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
            if error.errno == errno.EADDRINUSE:
                continue
            raise ConfigError(f"cannot listen on {host} port {candidate}: {error.strerror}") from error
        return listener
    raise ConfigError(f"no port from {port} to {last} is free on {host}; choose another with --port")


def check_tls(settings: Settings) -> None:
    """Try the files of TLS before anything listens.

    Raises
    ------
    ConfigError
        They cannot be read, or do not belong together.
    """
    if settings.tls_cert is None:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"--tls-cert {settings.tls_cert} and --tls-key {settings.tls_key} cannot be used ({error}): give the "
            "certificate chain and its key as PEM files"
        ) from error


def page_address(url: str, token: str) -> str:
    """Give the address that lets a browser in."""
    return f"{url}/?token={urllib.parse.quote(token, safe='')}"


@dataclass(frozen=True)
class Living:
    """A server that runs already."""

    url: str
    token: str
    certificate: str | None = None
    """File of the certificate that the server shows, where it speaks TLS."""

    def tls(self) -> ssl.SSLContext | None:
        """Trust the server that has announced itself: its very certificate, whoever signed it and for what name."""
        if self.certificate is None:
            return None
        context = ssl.create_default_context(cafile=self.certificate)
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context


def announced(logdir: Path) -> Living | None:
    """Read which server keeps its runs in this directory; it may have died since."""
    try:
        told = json.loads((logdir / "server.json").read_text(encoding="utf-8"))
        certificate = told.get("certificate")
        return Living(str(told["url"]), str(told["token"]), None if certificate is None else str(certificate))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def living_server(logdir: Path) -> Living | None:
    """Find the server that keeps its runs in this directory and answers."""
    found = announced(logdir)
    if found is None:
        return None
    try:
        with urllib.request.urlopen(  # noqa: S310 - the address is out of our own file
            f"{found.url}/healthz", timeout=1, context=found.tls()
        ) as answer:
            return found if answer.status == 200 else None
    except (OSError, ValueError, urllib.error.URLError):
        return None


def lasting_access(logdir: Path, token: str | None) -> tuple[str, str]:
    """Give token and instance id of the servers of this directory.

    Both outlive a restart, so that engines that train on and pages that are open find their way back. They lie in
    ``access.json``; delete it to draw new ones. A token from the command line is used as it is and not written down.
    """
    path = logdir / "access.json"
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        kept, instance = str(told["token"]), str(told["instance"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        kept, instance = new_token(), new_instance()
        write_private(path, {"token": kept, "instance": instance})
    return token or kept, instance


def forget(logdir: Path) -> None:
    """Take back the announcement, unless another server has made its own since."""
    path = logdir / "server.json"
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        if json.loads(path.read_text(encoding="utf-8"))["pid"] == os.getpid():
            path.unlink()


def listening_url(host: str, listener: socket.socket, scheme: str = "http") -> str:
    """Give the address of a listening socket as this machine's own programs reach it."""
    return own_address(host, listener.getsockname()[1], scheme)


def own_address(host: str, port: int, scheme: str) -> str:
    """Give an address as this machine's own programs reach it."""
    everywhere = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
    name = everywhere.get(host, host)
    return f"{scheme}://{f'[{name}]' if ':' in name else name}:{port}"
