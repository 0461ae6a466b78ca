"""Who may come in: Host, Origin and token.

Knows nothing of frameworks: headers come in as plain strings, a refusal goes out as a value.
The three questions guard against three attacks. *Host*: a foreign name that has been rebound to 127.0.0.1. *Origin*: a
foreign page that uses the visitor's cookie. *Token*: another user of the same machine or network.
"""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass
from enum import Enum
from http.cookies import CookieError, SimpleCookie

from spiral_server.settings import Settings

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
"""Names that always mean this machine; no name server can rebind them."""

WILDCARD_HOSTS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - recognised here, not bound
"""Listening on every address. Then any literal IP address may be the Host, because only names can be rebound."""


class Credential(Enum):
    """What a request has shown."""

    NONE = "none"
    WRONG = "wrong"
    COOKIE = "cookie"
    """The browser adds it by itself, also to requests that a foreign page makes: an Origin must go with it."""
    BEARER = "bearer"
    """Set on purpose by the caller; no foreign page can."""


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
    """Refuse a Host that is not ours."""
    name = host_name(host or "")
    own = {_bare(settings.host), *(_bare(entry) for entry in settings.allowed_hosts)}
    if name and (name in LOOPBACK_HOSTS or name in own):
        return None
    if settings.host in WILDCARD_HOSTS and _is_address(name):
        return None
    return Refusal(403, f"this server does not answer to the host {host!r}; start it with --allowed-host to add one")


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
        return Refusal(403, "a request without an Origin must carry the token in its Authorization header")
    host = (knock.host or "").strip().lower()
    if knock.origin.strip().lower() in (f"http://{host}", f"https://{host}"):
        return None
    return Refusal(403, f"the origin {knock.origin!r} is not this server's own")


def credential(knock: Knock, settings: Settings) -> Credential:
    """Tell what the request shows; a wrong bearer token is not saved by a good cookie."""
    if knock.authorization is not None:
        scheme, _, token = knock.authorization.partition(" ")
        if scheme.lower() != "bearer":
            return Credential.WRONG
        return Credential.BEARER if token_fits(token.strip(), settings) else Credential.WRONG
    token = _cookie_token(knock.cookie, cookie_name(settings))
    if not token:
        return Credential.NONE
    return Credential.COOKIE if token_fits(token, settings) else Credential.WRONG


def token_refusal(knock: Knock, settings: Settings) -> Refusal | None:
    """Refuse a request without the right token."""
    shown = credential(knock, settings)
    if shown in (Credential.COOKIE, Credential.BEARER):
        return None
    if shown is Credential.WRONG:
        return Refusal(401, "wrong token: open the address that `spiral` printed when it started")
    return Refusal(401, "no token: open the address that `spiral` printed, or send `Authorization: Bearer TOKEN`")


def token_fits(token: str, settings: Settings) -> bool:
    """Compare a token in constant time."""
    return hmac.compare_digest(token.encode("utf-8", "surrogateescape"), settings.token.encode())


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
