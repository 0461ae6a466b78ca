"""Who may come in: Host, Origin, token and role.

Knows nothing of frameworks: headers come in as plain strings, a refusal goes out as a value.
The three questions guard against three attacks. *Host*: a foreign name that has been rebound to 127.0.0.1. *Origin*: a
foreign page that uses the visitor's cookie. *Token*: another user of the same machine or network.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from http.cookies import CookieError, SimpleCookie

from spiral_server.live.tokens import Holder, Right
from spiral_server.settings import LOOPBACK_HOSTS, Settings

WILDCARD_HOSTS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - recognised here, not bound
"""Listening on every address. Then any literal IP address may be the Host, because only names can be rebound."""


@dataclass(frozen=True, kw_only=True)
class Knock:
    """The headers of a request that matter at the door; None where a header is absent."""

    host: str | None
    origin: str | None
    authorization: str | None
    cookie: str | None


@dataclass(frozen=True)
class Refusal:
    """Why a request may not come in, with the HTTP status that says so."""

    status: int
    reason: str
    cause: str
    """In one word, as it is counted."""


def cookie_name(settings: Settings) -> str:
    """Name the cookie that holds the token."""
    return f"spiral_{settings.instance}"


def host_name(host: str) -> str:
    """Take the port off a Host header and unify case; "" when the header is malformed."""
    text = host.strip().lower()
    if text.startswith("["):
        name, bracket, rest = text[1:].partition("]")
        return name if bracket and (not rest or _is_port(rest)) else ""
    name, colon, port = text.partition(":")
    if colon and not _is_port(colon + port):
        return ""
    return name.removesuffix(".")


def _is_port(text: str) -> bool:
    digits = text[1:]
    return text.startswith(":") and digits.isascii() and digits.isdigit() and len(digits) <= 5


def host_refusal(host: str | None, settings: Settings) -> Refusal | None:
    """Refuse a Host that is not ours, and a request without one."""
    if host is None:
        return Refusal(400, "a request must say in its Host header whom it is for (RFC 9112, 3.2)", "host")
    name = host_name(host)
    if name and (name in LOOPBACK_HOSTS or name in _own(settings.host, tuple(settings.allowed_hosts))):
        return None
    if settings.host in WILDCARD_HOSTS and _is_address(name):
        return None
    return Refusal(
        403, f"this server does not answer to the host {host!r}; start it with --allowed-host to add one", "host"
    )


@lru_cache(maxsize=4)
def _own(host: str, allowed: tuple[str, ...]) -> frozenset[str]:
    return frozenset({_bare(host), *(_bare(entry) for entry in allowed)})


def _bare(entry: str) -> str:
    return entry.strip().lower().strip("[]")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def origin_refusal(knock: Knock) -> Refusal | None:
    """Refuse a request that changes something or opens a websocket for a page of another origin."""
    if knock.origin is None:
        if knock.authorization is not None:
            # A program, not a page: whether its token is right is asked next, and answered as a question of tokens.
            return None
        return Refusal(403, "a request without an Origin must carry the token in its Authorization header", "origin")
    host = (knock.host or "").strip().lower()
    if knock.origin.strip().lower() in (f"http://{host}", f"https://{host}"):
        return None
    return Refusal(403, f"the origin {knock.origin!r} is not this server's own", "origin")


def token_of(knock: Knock, settings: Settings) -> str | None:
    """Give the token that a request shows; None where it shows none.

    What is in the Authorization header counts alone, also when it is wrong: a good cookie does not save it. The browser
    adds the cookie by itself, also to requests that a foreign page makes, which is why an Origin must go with it.
    """
    if knock.authorization is not None:
        scheme, _, token = knock.authorization.partition(" ")
        return token.strip() if scheme.lower() == "bearer" else ""
    return _cookie_token(knock.cookie, cookie_name(settings)) or None


def admission(token: str | None, holder: Holder | None, right: Right) -> Holder | Refusal:
    """Tell whether the holder of a token comes in, or why nobody does; a wrong token has no holder."""
    if token is None:
        return Refusal(
            401, "no token: open the address that `spiral` printed, or send `Authorization: Bearer TOKEN`", "token"
        )
    if holder is None:
        return Refusal(401, "wrong token: open the address that `spiral` printed when it started", "token")
    if not holder.may(right):
        return Refusal(
            403,
            f"the token {holder.name!r} has the role {holder.role.value}, which may not {right.value}; "
            "`spiral token new` makes one that may",
            "role",
        )
    return holder


def _cookie_token(header: str | None, name: str) -> str:
    if header is None:
        return ""
    # One by one: a malformed cookie of another program on this host must not hide ours.
    for part in header.split(";"):
        jar: SimpleCookie = SimpleCookie()
        try:
            jar.load(part.strip())
        except CookieError:
            continue
        if name in jar:
            return jar[name].value
    return ""
