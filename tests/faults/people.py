"""Those who steer a run while its processes die: they ask again until they are answered, and remember what they saw."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from faults.world import FINAL, PATIENCE, World

SETTLED = ("state", "number", "step", "changes", "rev", "by")
"""What may not change any more once a command has a final state."""


@dataclass
class People:
    """Clients of one run.

    Attributes
    ----------
    answers : dict
        By the id of a command: every answer to it, with its HTTP status.
    seen : dict
        By the id of a command: its final record, as it was first seen.
    broken : list
        Promises that were seen to be broken, in words.
    """

    world: World
    every: float = 0.05
    """Seconds between two looks at the journal."""
    answers: dict[str, list[tuple[int, Any]]] = field(default_factory=dict)
    seen: dict[str, dict[str, Any]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(4)
        self._asked: list[Future[None]] = []
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._rev = 0
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def give(self, what: dict[str, Any]) -> None:
        """Give a command, now and perhaps once more; do not wait for the answer."""
        logs = self.world.logs
        body = dict(what["body"])
        if what["ahead"] is not None and logs is not None:
            body["at_step"] = logs.step + what["ahead"]
        if what["expect"] is not None:
            body["expected_rev"] = self._rev if what["expect"] == "newest" else max(0, self._rev - 1)
        for _ in range(1 + what["again"]):
            self._asked.append(self._pool.submit(self._ask, body))

    def _ask(self, body: dict[str, Any]) -> None:
        """Ask until there is an answer; a server that is dead or cannot write is asked again."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with suppress(OSError, ValueError):
                status, answer = self.world.post(body)
                if status not in (404, 503):
                    self._answered(body["id"], status, answer)
                    return
            time.sleep(0.03)
        self.broken.append(f"command {body['id']} was never answered")

    def _answered(self, identity: str, status: int, answer: Any) -> None:
        self.world.timeline.note(f"command {identity}: HTTP {status} {answer.get('error', '')}")
        with self._lock:
            self.answers.setdefault(identity, []).append((status, answer))
        if status == 200:
            self._note(answer)

    def _watch(self) -> None:
        while not self._over.wait(self.every):
            with suppress(OSError, ValueError, KeyError):
                self.look()

    def look(self) -> None:
        """Look at the journal, and whether it contradicts what it once said."""
        if not self.world.run:
            return
        for record in self.world.get(f"/api/runs/{self.world.run}/commands")["commands"]:
            self._note(record)

    def _note(self, record: dict[str, Any]) -> None:
        if record["state"] not in FINAL:
            return
        settled = {name: record[name] for name in SETTLED}
        with self._lock:
            first = self.seen.setdefault(record["id"], settled)
            self._rev = max(self._rev, record["rev"] or 0)
        if first is settled and record["actor"] != "guard":
            self.world.timeline.note(f"saw {record['id']} {record['state']} at {record['step']} {record['reason']}")
        if first != settled:
            self.broken.append(f"command {record['id']} was {first}, and now is {settled}")

    def answered(self) -> None:
        """Wait until everything that was asked has been answered."""
        for asked in self._asked:
            asked.result()

    def leave(self) -> None:
        """Stop looking."""
        self._over.set()
        self._watcher.join()
        self._pool.shutdown(cancel_futures=True)
