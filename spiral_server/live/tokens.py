"""Who a token stands for, and what its role allows.

A server has one token of its own, the owner's, and any number of named ones. Of those only digests are kept: a token is
256 random bits, so that a plain SHA-256 cannot be searched backwards and no slow hash is needed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from spiral_core.wire.requests import MAX_ACTOR_CHARS

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}", re.ASCII)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
"""Characters that break a line, or turn the direction of what follows."""


class Role(Enum):
    """What a token is for."""

    OWNER = "owner"
    """The token that the server printed when it started."""
    OPERATOR = "operator"
    VIEWER = "viewer"
    ENGINE = "engine"


class Right(Enum):
    """What one may do."""

    WATCH = "watch runs"
    STEER = "steer"
    FEED = "bring what an engine says"


GRANTS: dict[Role, frozenset[Right]] = {
    Role.OWNER: frozenset(Right),
    Role.OPERATOR: frozenset({Right.WATCH, Right.STEER}),
    Role.VIEWER: frozenset({Right.WATCH}),
    Role.ENGINE: frozenset({Right.FEED}),
}

GIVEN = (Role.VIEWER, Role.OPERATOR, Role.ENGINE)
"""Roles of the tokens that are made by name."""


@dataclass(frozen=True)
class Holder:
    """Whom a token has been given to."""

    name: str
    role: Role

    def may(self, right: Right) -> bool:
        """Tell whether the role allows something."""
        return right in GRANTS[self.role]

    def signature(self, claim: str, address: str) -> str:
        """Give what the journal says about who steers.

        ``claim`` is what the caller calls itself. It comes first, so that nobody can write what comes behind it: the
        name of the token, its role and the address, as the server saw them.
        """
        role = "" if self.role is Role.OWNER else f" ({self.role.value})"
        seen = f"{self.name}{role}, {address}"
        claim = _UNPRINTABLE.sub(" ", claim).strip()[: MAX_ACTOR_CHARS - len(seen) - 4].rstrip()
        return f"{claim} as {seen}" if claim else seen


OWNER = Holder("owner", Role.OWNER)


@dataclass(frozen=True)
class TokenRecord:
    """A named token as it is kept."""

    name: str
    role: Role
    digest: str
    """SHA-256 of the token, in hexadecimal."""
    created: float


class TokenBook:
    """The tokens of a server, by digest.

    Parameters
    ----------
    owner : str
        The server's own token, in clear: it is what the server prints.
    records : iterable of TokenRecord
    """

    def __init__(self, owner: str, records: Iterable[TokenRecord] = ()) -> None:
        self._owner = owner.encode()
        self._holders = {record.digest: Holder(record.name, record.role) for record in records}

    def holder(self, token: str) -> Holder | None:
        """Tell whom a token was given to; None for a wrong one."""
        data = token.encode("utf-8", "surrogateescape")
        if hmac.compare_digest(data, self._owner):
            return OWNER
        # What a look-up by digest tells by its duration says nothing about the token.
        return self._holders.get(hashlib.sha256(data).hexdigest())


def digest_of(token: str) -> str:
    """Give what is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def is_token_name(text: str) -> bool:
    """Tell whether a text may name a token: letters, digits, ``. _ -``, at most 40, and not the owner's name."""
    return _NAME.fullmatch(text) is not None and text != OWNER.name
