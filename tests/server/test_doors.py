"""What is refused at the door, and what every answer carries."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from spiral_core.wire import codec
from spiral_core.wire.limits import CLOSE_BAD_DATA, CLOSE_PROTOCOL, CLOSE_UNAUTHORIZED
from spiral_core.wire.messages import EngineHello, Ping, Pong, Stored, ViewHello, Watch

from .house import House, courier, dial
from .saying import asking, frame, opening

CSP = (
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'"
)


def play(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 20))


@pytest.mark.parametrize("road", ["engine", "view"])
@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({"Origin": "http://evil.example"}, "127.0.0.1"),
        ({"Origin": "null"}, "127.0.0.1"),
        ({}, "127.0.0.1"),
        ({"Authorization": "Bearer correct-horse"}, "rebound.example"),
    ],
)
def test_a_websocket_of_a_foreign_page_or_name_is_refused_before_the_handshake(
    shared: House, road: str, headers: dict[str, str], name: str
) -> None:
    async def story() -> None:
        # The cookie alone: a foreign page cannot set the Authorization header, but the browser adds the cookie.
        with pytest.raises(InvalidStatus) as refused:
            async with dial(shared, road, shared.cookie | headers, name):
                pass
        assert refused.value.response.status_code == 403

    play(story())


@pytest.mark.parametrize("road", ["engine", "view"])
def test_a_websocket_without_the_right_token_is_closed_with_4001(shared: House, road: str) -> None:
    async def story() -> None:
        for headers in ({"Origin": shared.url}, {"Origin": shared.url, "Authorization": "Bearer wrong"}):
            async with dial(shared, road, headers) as peer:
                assert await peer.closed() == CLOSE_UNAUTHORIZED

    play(story())


@pytest.mark.parametrize("road", ["engine", "view"])
@pytest.mark.parametrize("garbage", [b"garbage", b"\xff" * 100, codec.join([b"\xc1"]), "text"])
def test_garbage_closes_the_websocket_with_1007(shared: House, road: str, garbage: bytes | str) -> None:
    async def story() -> None:
        async with dial(shared, road) as peer:
            await peer.socket.send(garbage)
            assert await peer.closed() == CLOSE_BAD_DATA

    play(story())


@pytest.mark.parametrize("road", ["engine", "view"])
def test_a_text_that_is_no_utf_8_is_refused_as_any_text_is(
    shared: House, road: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with dial(shared, road) as peer:
            await peer.socket.send(b"\xff\xfe", text=True)
            assert await peer.closed() == CLOSE_BAD_DATA

    play(story())
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("road", ["engine", "view"])
@pytest.mark.parametrize("greeted", [False, True])
def test_what_is_no_frame_is_told_so_and_nothing_fails_over_it(
    shared: House, road: str, greeted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    hello = EngineHello(protocol=1, run="r1", incarnation=0) if road == "engine" else ViewHello(protocol=1)

    async def story() -> None:
        for _ in range(20):
            async with dial(shared, road) as peer:
                if greeted:
                    # The answer to the greeting meets a connection that is being closed.
                    await peer.say(hello)
                peer.socket.transport.write(b"\xf2\x80\0\0\0\0")
                assert await peer.closed() == 1002

    play(story())
    assert not [record for record in caplog.records if record.exc_info]


def test_words_out_of_order_close_the_websocket_with_4000(shared: House) -> None:
    async def story() -> None:
        for road, words in (
            ("engine", [frame(0, 0)]),
            ("engine", [EngineHello(protocol=99, run="r1", incarnation=0)]),
            ("engine", [EngineHello(protocol=1, run="../r1", incarnation=0)]),
            ("engine", [EngineHello(protocol=1, run="r1", incarnation=-1)]),
            ("view", [Watch(run="", width=1)]),
            ("view", [ViewHello(protocol=1), ViewHello(protocol=1)]),
            ("view", [ViewHello(protocol=1), Stored(seq=1)]),
        ):
            async with dial(shared, road) as peer:
                await peer.say(*words)
                assert await peer.closed() == CLOSE_PROTOCOL, words
        async with courier(shared) as engine:
            await engine.say(frame(0, 0, run="other"))
            assert await engine.closed() == CLOSE_PROTOCOL

    play(story())


def test_a_heartbeat_is_answered(shared: House) -> None:
    async def story() -> None:
        async with courier(shared) as engine:
            await engine.say(Ping(time=4.5))
            assert (await engine.next_of(Pong)).time == 4.5

    play(story())


def start_run(shared: House) -> None:
    async def story() -> None:
        async with courier(shared) as engine:
            await engine.say(*opening())
            await engine.next_of(Stored)

    play(story())


def test_a_foreign_name_is_refused_for_every_path(shared: House) -> None:
    with shared.http() as http:
        for path in ("/", "/healthz", "/api/runs", "/assets/index-Abc12345.js", "/plotly.min.js"):
            answer = http.get(path, headers={"Host": f"rebound.example:{shared.port}"})
            assert answer.status_code == 403
            assert "rebound.example" in answer.json()["error"]


@pytest.mark.parametrize("path", ["/api/runs", "/api/runs/r1", "/api/runs/r1/series", "/openapi.json"])
def test_without_the_token_nothing_is_told(shared: House, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": "spiral_x=correct-horse"}):
        answer = httpx.get(shared.url + path, headers=headers)
        assert answer.status_code == 401
        assert list(answer.json()) == ["error"]


def test_a_foreign_page_cannot_give_commands_with_the_visitors_cookie(shared: House) -> None:
    start_run(shared)
    body = codec.to_json(asking())
    for headers, status in (
        ({**shared.cookie, "Origin": "http://evil.example"}, 403),
        ({**shared.cookie, "Origin": "null"}, 403),
        (shared.cookie, 403),
        ({**shared.bearer, "Origin": "http://evil.example"}, 403),
        ({"Origin": shared.url}, 401),
        ({**shared.cookie, "Origin": shared.url}, 202),
    ):
        answer = httpx.post(f"{shared.url}/api/runs/r1/commands", content=body, headers=headers)
        assert answer.status_code == status, headers


def test_the_printed_address_gives_the_page_and_a_cookie_that_no_script_can_read(shared: House) -> None:
    answer = httpx.get(f"{shared.url}/", params={"token": "correct-horse"})
    assert answer.status_code == 200
    assert "the page" in answer.text
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"spiral_{shared.settings.instance}=correct-horse;")
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    again = httpx.get(f"{shared.url}/", headers=shared.cookie)
    assert again.status_code == 200
    assert "set-cookie" not in again.headers


@pytest.mark.parametrize("query", ["", "?token=wrong", "?token="])
def test_without_the_token_the_page_says_what_to_open_and_loads_nothing(shared: House, query: str) -> None:
    answer = httpx.get(f"{shared.url}/{query}")
    assert answer.status_code == 401
    assert "<code>spiral</code> printed" in answer.text
    assert "set-cookie" not in answer.headers
    assert "src=" not in answer.text
    assert "href=" not in answer.text


@pytest.mark.parametrize(
    "path", ["/", "/?token=correct-horse", "/api/runs", "/api/nothing", "/healthz", "/plotly.min.js", "/assets/none.js"]
)
def test_every_answer_carries_the_security_headers(shared: House, path: str) -> None:
    answer = httpx.get(shared.url + path)
    assert answer.headers["content-security-policy"] == CSP
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "server" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/api/runs", "/api/runs/none", "/healthz"])
def test_pages_and_answers_are_not_cached(shared: House, path: str) -> None:
    with shared.http() as http:
        assert http.get(path).headers["cache-control"] == "no-store"


def test_there_are_no_pages_that_load_scripts_from_elsewhere(shared: House) -> None:
    with shared.http() as http:
        assert http.get("/redoc").status_code == 404
        assert "<script" not in http.get("/docs").text
        assert "/api/runs" in str(http.get("/openapi.json").json()["paths"])
