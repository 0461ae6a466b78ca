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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .besieged import STEADY, Besieged, Good, besieged, furnish

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
here, and a knob that a run does not have fits as well. Nor whether all is refused that does not: of a parameter that comes
twice the last one counts, and blanks around a number are forgiven."""
REFUSED = {401, 403, 405}
"""By token, by role, and where a path has no such method; now and then a request is made without its token."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Besieged]:
    with besieged(tmp_path_factory.mktemp("described")) as server:
        asyncio.run(furnish(server, "r1"))
        yield server


def asked(
    server: Besieged, folder: Path, role: str, examples: int, *, of_steady: bool, phases: str
) -> Counter[tuple[str, int]]:
    """Let Schemathesis ask; give the number of answers by method and status."""
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


async def ask(server: Besieged, folder: Path, role: str, examples: int, **how: Any) -> Counter[tuple[str, int]]:
    """Ask while an engine and a viewer go about their business."""
    async with Good(server) as good:
        asking = asyncio.create_task(asyncio.to_thread(asked, server, folder, role, examples, **how))
        while not asking.done():
            await good.beat()
            await asyncio.wait([asking], timeout=0.2)
        print(f"a frame took {good.slowest:.3f} s at the worst")
        return asking.result()


def judge(server: Besieged, role: str, answers: Counter[tuple[str, int]], seconds: float) -> None:
    """Look at who was answered what."""
    statuses = Counter(status for (_, status), count in answers.items() for _ in range(count))
    print(f"{role}: {answers.total():,} requests in {seconds:.0f} s, answered with {dict(statuses)}; seed {SEED}")
    for method, status in answers:
        assert status < 500, (role, method, status)
        if role in ("engine", "none") or (role == "viewer" and method not in LOOKING):
            assert status in REFUSED, (role, method, status)
    assert server.complaints() == []


CASES = [("owner", True), ("owner", False), ("viewer", True), ("engine", False), ("none", True)]
PHASES = {("owner", True): "examples,coverage,fuzzing,stateful", ("owner", False): "fuzzing"}
"""Of the short count, and else the one that tries each rule of the description once; the long one has all of them."""


@pytest.mark.parametrize(("role", "of_steady"), CASES)
def test_every_answer_is_one_that_the_description_has(
    server: Besieged, tmp_path: Path, role: str, of_steady: bool
) -> None:
    began = time.monotonic()
    phases = PHASES.get((role, of_steady), "coverage")
    answers = asyncio.run(ask(server, tmp_path, role, SHORT, of_steady=of_steady, phases=phases))
    judge(server, role, answers, time.monotonic() - began)
    if role == "owner" and of_steady:
        assert {200, 202, 400, 409} <= {status for _, status in answers}, answers


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("role", "of_steady"), CASES)
def test_every_answer_is_one_that_the_description_has_in_the_long_count(
    server: Besieged, tmp_path: Path, role: str, of_steady: bool
) -> None:
    began = time.monotonic()
    phases = PHASES["owner", True]
    answers = asyncio.run(ask(server, tmp_path, role, LONG, of_steady=of_steady, phases=phases))
    judge(server, role, answers, time.monotonic() - began)


def test_a_method_that_a_path_does_not_have_is_answered_with_those_that_it_has(server: Besieged) -> None:
    with server.http() as http:
        described = http.get("/openapi.json").json()["paths"]
        for path, methods in described.items():
            answer = http.request("PATCH", re.sub(r"\{\w+\}", STEADY, path))
            assert answer.status_code == 405
            assert set(answer.headers["allow"].split(", ")) == {method.upper() for method in methods}
