"""The HTTP interface, asked whatever its own description admits and what it does not, by those who may and may not.

Schemathesis reads ``/openapi.json`` of a real server and makes requests of it: no answer may be a failure of the
server, and each must be one that the description has. See `test_decoders` for how to try another seed.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from .besieged import STEADY, Besieged, Good

SEED = int(os.environ.get("SPIRAL_FUZZ_SEED", "1"))
HERE = Path(__file__).parent
SHORT, LONG = 10, 150
"""Examples of each operation, in each of the phases that draw them."""
LOOKING = ("GET", "HEAD")
CONFORMS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
ASKED = (*CONFORMS, "missing_required_header", "unsupported_method", "ignored_auth")
"""Not whether all is accepted that fits: a whole number may be written 1.0 in the description's language and is refused
here, and a knob that a run does not have fits as well. Nor whether all is refused that does not: of a parameter that
comes twice the last one counts, and blanks around a number are forgiven."""
REFUSED = {401, 403, 405}
"""By token, by role, and where a path has no such method; now and then a request is made without its token."""


def asked(
    server: Besieged, folder: Path, role: str, examples: int, *, of_steady: bool, phases: str
) -> Counter[tuple[str, int]]:
    """Let Schemathesis ask; give the number of answers by method and status."""
    folder.mkdir()
    har, document = folder / "asked.har", folder / "openapi.json"
    with server.http() as http:
        document.write_bytes(http.get("/openapi.json").content)
    words = [sys.executable, "-m", "schemathesis.cli", "--no-color"]
    words += ["--config-file", str(HERE / "schemathesis.toml")] if of_steady else []
    words += ["run", str(document), "--url", server.url, "--checks", ",".join(ASKED if role == "owner" else CONFORMS)]
    words += ["--seed", str(SEED), "--max-examples", str(examples), "--generation-database", "none"]
    words += ["--phases", phases]
    words += ["--continue-on-failure", "--warnings", "off", "--report-har-path", str(har)]
    for name, value in server.headers(role).items():
        words += ["--header", f"{name}: {value}"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder, timeout=1500)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    entries = json.loads(har.read_text())["log"]["entries"]
    return Counter((entry["request"]["method"], entry["response"]["status"]) for entry in entries)


def judge(role: str, answers: Counter[tuple[str, int]]) -> None:
    """Look at who was answered what."""
    statuses: Counter[int] = Counter()
    for (method, status), count in answers.items():
        statuses[status] += count
        assert status < 500, (role, method, status)
        if role in ("engine", "none") or (role == "viewer" and method not in LOOKING):
            assert status in REFUSED, (role, method, status)
    print(f"{role}: {answers.total():,} requests, answered with {dict(statuses)}")


async def ask(server: Besieged, folder: Path, every: list[tuple[str, bool, str]], examples: int) -> None:
    """Ask while an engine and a viewer go about their business."""
    began = time.monotonic()
    folders = [folder / str(number) for number in range(len(every))]
    async with Good(server) as good:
        asking = [
            asyncio.create_task(asyncio.to_thread(asked, server, here, role, examples, of_steady=steady, phases=phases))
            for here, (role, steady, phases) in zip(folders, every, strict=True)
        ]
        while not all(one.done() for one in asking):
            await good.beat()
            await asyncio.wait(asking, timeout=0.2)
        slowest = good.slowest
    for (role, steady, _), one in zip(every, asking, strict=True):
        answers = one.result()
        judge(role, answers)
        if role == "owner" and steady:
            assert {200, 202, 400, 409} <= {status for _, status in answers}, answers
    assert server.complaints() == []
    print(f"in {time.monotonic() - began:.0f} s; a frame took {slowest:.3f} s at the worst; seed {SEED}")


WHOLE = "examples,coverage,fuzzing,stateful"


@pytest.mark.parametrize(
    "every",
    [
        [("owner", True, WHOLE), ("owner", False, "fuzzing")],
        # What is refused is refused before it is looked at: each rule of the description is tried once.
        [("viewer", True, "coverage"), ("engine", False, "coverage"), ("none", True, "coverage")],
    ],
    ids=["let in", "refused"],
)
def test_every_answer_is_one_that_the_description_has(
    server: Besieged, tmp_path: Path, every: list[tuple[str, bool, str]]
) -> None:
    asyncio.run(ask(server, tmp_path, every, SHORT))


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("role", ["owner", "viewer", "engine", "none"])
def test_every_answer_is_one_that_the_description_has_in_the_long_count(
    server: Besieged, tmp_path: Path, role: str
) -> None:
    asyncio.run(ask(server, tmp_path, [(role, True, WHOLE), (role, False, WHOLE)], LONG))


def test_a_method_that_a_path_does_not_have_is_answered_with_those_that_it_has(server: Besieged) -> None:
    with server.http() as http:
        described = http.get("/openapi.json").json()["paths"]
        for path, methods in described.items():
            answer = http.request("PATCH", re.sub(r"\{\w+\}", STEADY, path))
            assert answer.status_code == 405
            assert set(answer.headers["allow"].split(", ")) == {method.upper() for method in methods}
