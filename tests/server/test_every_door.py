"""What holds for every route there is, the routes being asked from the application itself."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import BaseRoute

from spiral_server.app import create_app
from spiral_server.launch import tokens
from spiral_server.live.tokens import Role
from spiral_server.settings import Settings

from .house import House, page, serving

OPEN = {"/", "/assets/{name:path}", "/plotly.min.js", "/healthz", "/readyz"}
"""What is answered without a token. It holds nothing of a run: the page without its data, and that the server runs."""

WATCHED = {"/http/view", "/http/view/{name}"}
"""Where pages without websockets say what they want to see; that changes nothing for anybody else."""

CLIMBING = (
    "..",
    "../..",
    "%2e%2e",
    "%2e%2e%2fsecret",
    "..%2fsecret",
    "..%252fsecret",
    "%2e%2e%5csecret",
    "....//secret",
    "%2fetc%2fpasswd",
    "/etc/passwd",
    "%00",
    "secret%00",
    ".",
    "catalog.db",
    "server.json",
    "server.tokens.json",
    "con%0d%0aSet-Cookie:x=y",
    "%c0%ae%c0%ae%2fsecret",
    "%E2%80%A5%E2%81%84secret",
    "a" * 5000,
)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A server that lets a fast test ask as often as it likes, with things beside its files that must stay there."""
    parent = tmp_path_factory.mktemp("doors")
    (parent / "runs").mkdir()
    (parent / "runs" / "secret").write_text("the secret of the house")
    with serving(parent / "runs", page_dir=page(parent), requests_per_second=0) as house:
        yield house


def all_routes(app: FastAPI) -> list[tuple[str, str]]:
    """List method and path of every HTTP route."""
    found: list[tuple[str, str]] = []

    def walk(routes: list[BaseRoute]) -> None:
        for route in routes:
            inner = getattr(route, "original_router", route)
            if hasattr(inner, "routes"):
                walk(list(inner.routes))
            path, methods = getattr(route, "path", None), getattr(route, "methods", None)
            if path and methods:
                found.extend((method, path) for method in sorted(methods))

    walk(list(app.routes))
    return found


def filled(path: str, value: str = "r1") -> str:
    return re.sub(r"\{[^}]+\}", lambda _: value, path)


def test_there_are_routes_to_look_at_and_nothing_is_mounted_unseen(house: House) -> None:
    paths = {path for _, path in all_routes(house.app)}
    assert {*OPEN, "/metrics", "/openapi.json", "/api/runs", "/api/runs/{run}/commands"} <= paths
    described = httpx.get(f"{house.url}/openapi.json", headers=house.bearer).json()["paths"]
    assert set(described) <= paths


def test_without_a_token_no_route_gives_data(house: House) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": f"spiral_{house.settings.instance}=wrong"}):
        with house.http(headers=headers) as http:
            for method, path in all_routes(house.app):
                if path in OPEN - {"/"}:
                    continue
                answer = http.request(method, filled(path))
                # A command without an Origin is refused before anybody asks for a token.
                allowed = {401} if method in ("GET", "HEAD") else {401, 403}
                assert answer.status_code in allowed, (method, path, headers)


def test_the_token_of_an_engine_opens_no_route_and_that_of_a_viewer_changes_nothing(house: House) -> None:
    logdir = house.settings.logdir
    feed, _ = tokens.make(logdir, Role.ENGINE, None)
    watch, _ = tokens.make(logdir, Role.VIEWER, None)
    with house.http(headers={}) as http:
        for method, path in all_routes(house.app):
            if path in OPEN - {"/"}:
                continue
            refused = http.request(method, filled(path), headers={"Authorization": f"Bearer {feed}"})
            assert refused.status_code == 403, (method, path)
            seen = http.request(method, filled(path), headers={"Authorization": f"Bearer {watch}"})
            if method in ("GET", "HEAD") or path in WATCHED:
                assert seen.status_code not in (401, 403), (method, path)
            else:
                assert seen.status_code == 403, (method, path)


def test_every_route_that_changes_something_asks_for_the_origin(house: House) -> None:
    changing = [(method, path) for method, path in all_routes(house.app) if method not in ("GET", "HEAD")]
    assert changing
    with house.http(headers=house.cookie) as http:
        for method, path in changing:
            for origin in ({}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
                assert http.request(method, filled(path), headers=origin).status_code == 403, (method, path, origin)


def test_no_route_answers_a_question_of_another_origin_with_leave_to_read(house: House) -> None:
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "GET"}
    with house.http() as http:
        for method, path in all_routes(house.app):
            for answer in (
                http.request(method, filled(path), headers={"Origin": "http://evil.example"}),
                http.request("OPTIONS", filled(path), headers=asked),
            ):
                assert not [name for name in answer.headers if name.startswith("access-control-")], (method, path)


def path_parameters(document: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (method.upper(), path, parameter["name"])
        for path, methods in document["paths"].items()
        for method, told in methods.items()
        for parameter in told.get("parameters", ())
        if parameter["in"] == "path"
    ]


def test_no_path_parameter_leads_out_of_the_directory(house: House) -> None:
    with house.http() as http:
        places = path_parameters(http.get("/openapi.json").json())
    assert len(places) >= 7
    places.append(("GET", "/assets/{name}", "name"))
    before = sorted(str(one) for one in house.settings.logdir.parent.rglob("*"))
    # Not httpx, which tidies a path before it sends it.
    line = HTTPConnection("127.0.0.1", house.port, timeout=10)
    for method, path, name in places:
        for value in CLIMBING:
            asked = path.replace(f"{{{name}}}", value)
            line.request(method, asked, b"{}" if method == "POST" else None, house.bearer)
            answer = line.getresponse()
            text = answer.read().decode()
            assert answer.status in (400, 404, 405), (method, asked, answer.status)
            assert "the secret" not in text
            assert "root:" not in text
            assert answer.getheader("set-cookie") is None
    line.close()
    assert sorted(str(one) for one in house.settings.logdir.parent.rglob("*")) == before


def test_an_application_that_has_not_started_is_not_ready(tmp_path: Path) -> None:
    async def story() -> None:
        app = create_app(Settings(logdir=tmp_path / "runs"))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            answer = await http.get("/readyz")
            assert (answer.status_code, answer.text) == (503, "starting or leaving\n")
            assert (await http.get("/healthz")).status_code == 200
        await app.state.hub.stop()

    asyncio.run(story())
