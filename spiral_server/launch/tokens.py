"""The named tokens of a directory of runs: a file that `spiral token` writes and a running server follows.

``LOGDIR/server.tokens.json`` holds names, roles and digests, and can be read by this user only. A server looks at it at
each request and a few times a second besides, so that whoever holds a token that is taken back is out at once.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spiral_core.errors import ConfigError
from spiral_server.launch.private import write_private
from spiral_server.live.tokens import GIVEN, Role, TokenRecord, digest_of, is_token_name
from spiral_server.settings import new_token

FILE = "server.tokens.json"
LOCK = "server.tokens.lock"


def read(logdir: Path) -> list[TokenRecord]:
    """Read the named tokens, in the order in which they were made.

    Raises
    ------
    ConfigError
        The file is damaged.
    """
    path = logdir / FILE
    try:
        told: Any = json.loads(path.read_text(encoding="utf-8"))
        return [
            TokenRecord(str(one["name"]), Role(one["role"]), str(one["sha256"]), float(one["created"]))
            for one in told["tokens"]
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); delete it and make the tokens anew") from error


def make(logdir: Path, role: Role, name: str | None) -> tuple[str, TokenRecord]:
    """Make a token; give it, for the only time, with its record.

    Raises
    ------
    ConfigError
        The name is none or taken, or the file cannot be read or written.
    """
    with _changing(logdir) as records:
        taken = {record.name for record in records}
        if name is None:
            name = next(free for k in range(1, len(taken) + 2) if (free := f"{role.value}-{k}") not in taken)
        if not is_token_name(name):
            raise ConfigError(
                f"{name!r} cannot be the name of a token: it takes letters, digits, '.', '_' and '-', at most 40, and "
                "'owner' is the server's own"
            )
        if name in taken:
            raise ConfigError(f"there is a token {name!r} already: choose another --name, or revoke that one first")
        token = new_token()
        record = TokenRecord(name, role, digest_of(token), time.time())
        records.append(record)
    return token, record


def revoke(logdir: Path, name: str) -> TokenRecord:
    """Take a token back.

    Raises
    ------
    ConfigError
        There is none of that name, or the file cannot be read or written.
    """
    with _changing(logdir) as records:
        found = next((record for record in records if record.name == name), None)
        if found is None:
            known = ", ".join(record.name for record in records) or "none"
            raise ConfigError(f"there is no token {name!r} in {logdir}; there is: {known}")
        records.remove(found)
    return found


@contextmanager
def _changing(logdir: Path) -> Iterator[list[TokenRecord]]:
    """Lend the records to be changed, and write them back unless that failed; two who change wait for each other."""
    try:
        logdir.mkdir(parents=True, exist_ok=True)
        lock = os.open(logdir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"cannot keep tokens in {logdir}: {error.strerror}; choose another --logdir") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        records = read(logdir)
        yield records
        told = [
            {"name": one.name, "role": one.role.value, "sha256": one.digest, "created": one.created} for one in records
        ]
        try:
            write_private(logdir / FILE, {"tokens": told})
        except OSError as error:
            raise ConfigError(f"cannot write {logdir / FILE}: {error.strerror}; nothing was changed") from error
    finally:
        os.close(lock)


def named_roles() -> Sequence[str]:
    """List the roles that a named token can have."""
    return [role.value for role in GIVEN]
