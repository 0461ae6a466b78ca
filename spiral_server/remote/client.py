"""Asking a server over HTTP, from another process of the same user or from another machine.

A command carries an id that its sender has chosen, so that asking again after a lost connection is the same command.
The same request, sent again, is also how one learns what has become of it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from spiral_core.errors import DecodeError, SpiralError
from spiral_core.wire import codec
from spiral_core.wire.messages import CommandRecord, CommandRequest
from spiral_server.launch.listening import Living, announced

ANSWER_SECONDS = 10.0
"""A server answers in milliseconds; one that says nothing for this long is taken for gone."""
FIRST_LOOK_SECONDS = 0.02
"""A command is in force after one step, which takes some milliseconds."""
LAST_LOOK_SECONDS = 1.0
"""Looks become rarer up to this, because a command for a later step may wait for hours."""
PATIENCE_SECONDS = 2.0
"""A person who waits for longer is told what for."""


class AskingError(SpiralError, ValueError):
    """Nothing was asked: the server, the run or the words are not what they should be."""


class LostError(SpiralError):
    """The server does not answer; what it has taken in before is not known."""


@dataclass(frozen=True)
class Answer:
    """What a server says to a command."""

    status: int
    record: CommandRecord | None
    """None where the command is not in the journal."""
    error: str = ""
    body: Any = None
    """What was said, as JSON."""


class Client:
    """One who asks a server.

    Parameters
    ----------
    logdir : Path
        Where the server announces itself, if it runs on this machine.
    server : str, optional
        Its address, if it is not to be found there.
    token : str, optional
        Its token, if another one than is written there.

    Raises
    ------
    AskingError
        No server is announced, the address is none, or no token is known.
    """

    def __init__(self, logdir: Path, server: str | None = None, token: str | None = None) -> None:
        self._logdir = logdir
        self._server = None if server is None else server.rstrip("/")
        self._token = token
        self.there = self._locate()

    def _locate(self) -> Living:
        told = announced(self._logdir)
        if self._server is None:
            if told is None:
                raise AskingError(
                    f"no server keeps its runs in {self._logdir}: start one with `spiral serve --logdir "
                    f"{self._logdir}`, or name one with --logdir or --server"
                )
            return Living(told.url, self._token or told.token, told.certificate)
        _checked(self._server)
        own = told is not None and told.url == self._server
        token = self._token or (told.token if own and told is not None else "")
        if not token:
            raise AskingError(f"give the token of {self._server} with --token, or as SPIRAL_TOKEN")
        return Living(self._server, token, told.certificate if own and told is not None else None)

    def relocate(self) -> None:
        """Look again where the server is: one that was started anew may have another address."""
        if announced(self._logdir) is not None or self._server is not None:
            self.there = self._locate()

    def get(self, path: str) -> Any:  # noqa: ANN401 - JSON's own types have no better name
        """Ask for something below ``/api``.

        Raises
        ------
        AskingError
            There is no such thing, or we may not ask.
        LostError
            The server does not answer.
        """
        return self.ask("GET", path)

    def ask(self, method: str, path: str) -> Any:  # noqa: ANN401 - JSON's own types have no better name
        """Ask for something to be done to a run; raises as `get`."""
        status, body = self._exchange(method, path)
        if status != 200:
            raise self._refused(status, body)
        return body

    def _refused(self, status: int, body: Any) -> SpiralError:  # noqa: ANN401
        said = body.get("error") if isinstance(body, dict) else None
        if status == 401:
            return AskingError(
                f"the server at {self.there.url} does not take this token: give the right one with --token, or as "
                "SPIRAL_TOKEN"
            )
        if status >= 500:
            return LostError(f"the server at {self.there.url} cannot answer: {said or status}")
        return AskingError(str(said or f"the server at {self.there.url} answered with HTTP {status}"))

    def post(self, path: str, body: bytes, seconds: float) -> tuple[int, Any]:
        """Ask for something to be done, and wait for the answer at most for a time; give its status and what it says.

        Raises
        ------
        AskingError
            We may not ask, or there is no such thing.
        LostError
            The server does not answer.
        """
        status, told = self._exchange("POST", path, body, seconds)
        if status in (401, 404) or status >= 500 or not isinstance(told, dict):
            raise self._refused(status, told)
        return status, told

    def _exchange(
        self, method: str, path: str, body: bytes | None = None, seconds: float = ANSWER_SECONDS
    ) -> tuple[int, Any]:
        parts = urlsplit(self.there.url)
        # Neither proxies nor redirections are followed: the token is for this server alone.
        host, port = parts.hostname or "", parts.port
        connection = HTTPConnection(host, port, timeout=seconds)
        if parts.scheme == "https":
            connection = HTTPSConnection(host, port, timeout=seconds, context=self.there.tls())
        headers = {"Authorization": f"Bearer {self.there.token}", "Content-Type": "application/json"}
        try:
            connection.request(method, f"{parts.path.rstrip('/')}/api{path}", body, headers)
            response = connection.getresponse()
            status, data = response.status, response.read()
        except (OSError, HTTPException) as error:
            raise LostError(f"no server answers at {self.there.url} ({error or type(error).__name__})") from error
        finally:
            connection.close()
        try:
            return status, json.loads(data)
        except (ValueError, RecursionError) as error:
            raise AskingError(f"what answers at {self.there.url} is no Spiral server: give its address") from error

    def submit(self, run: str, request: CommandRequest) -> Answer:
        """Give a command, or ask what has become of it.

        Raises
        ------
        AskingError, LostError
            As `get`.
        """
        status, body = self._exchange("POST", f"/runs/{quote(run, safe='')}/commands", codec.to_json(request))
        if status not in (200, 202, 409, 422, 429):
            raise self._refused(status, body)
        told = body.get("record") if status == 422 else body if status in (200, 202) else None
        try:
            record = None if told is None else codec.from_json(json.dumps(told).encode(), CommandRecord)
        except DecodeError as error:
            raise AskingError(
                f"the server at {self.there.url} is another version of Spiral ({error}): use the same on both sides"
            ) from error
        return Answer(status, record, str(body.get("error", "")), body)

    def settle(
        self,
        run: str,
        request: CommandRequest,
        *,
        wait: bool,
        seconds: float,
        waiting: Callable[[CommandRecord], None],
    ) -> Answer:
        """Give a command, and wait until it has come to its end.

        A connection that is lost meanwhile is made again, and the same command given again.

        Parameters
        ----------
        run : str
        request : CommandRequest
        wait : bool
            Otherwise, until the server has it in its journal.
        seconds : float
            Longest time to wait; 0 for no limit.
        waiting : callable
            Called once with a record that is not settled after a while.

        Returns
        -------
        Answer
            With a record that is still ``accepted`` when the time is over.

        Raises
        ------
        AskingError
            As `get`.
        LostError
            The server did not answer until the time was over; what has become of the command is not known.
        """
        begun = time.monotonic()
        deadline = begun + seconds if seconds > 0 else math.inf
        pause = FIRST_LOOK_SECONDS
        told = False
        known: Answer | None = None
        while True:
            try:
                known = self.submit(run, request)
                if known.record is None or known.record.state != "accepted" or not wait:
                    return known
                if not told and time.monotonic() - begun > PATIENCE_SECONDS:
                    told = True
                    waiting(known.record)
            except LostError:
                if time.monotonic() + pause > deadline:
                    raise
                self.relocate()
            if time.monotonic() + pause > deadline:
                if known is None:
                    raise LostError(f"no server answers at {self.there.url}")
                return known
            time.sleep(pause)
            pause = min(1.5 * pause, LAST_LOOK_SECONDS)


def _checked(server: str) -> None:
    parts = urlsplit(server)
    try:
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        # The port is no number, or beyond 65535.
        usable = False
    if not usable:
        raise AskingError(f"--server {server!r} cannot be used: give an address such as http://127.0.0.1:8787")
