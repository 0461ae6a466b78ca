"""What one caller may take of the server: raw sockets that are slow, many, large or fast."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPResponse
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from spiral_core.wire import codec
from spiral_core.wire.limits import CLOSE_BAD_DATA, CLOSE_PROTOCOL, CLOSE_TOO_BIG, CLOSE_TOO_OFTEN, PROTOCOL
from spiral_core.wire.messages import Stored, ViewHello, Watch
from spiral_server.live.rates import Allowance

from .house import House, courier, dial, eventually, page, serving
from .saying import asking, frame, opening

HEADER_SECONDS, BODY_SECONDS = 0.4, 0.6
SOON = 5
"""Seconds in which a connection that is not waited for any longer must end; uvicorn alone would take 15."""
BEARER = "Authorization: Bearer correct-horse"
CHUNKED = "Transfer-Encoding: chunked"
SHAKE = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {'A' * 22}==")
HELLO = codec.encode_packet([ViewHello(protocol=PROTOCOL)])
ASK = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
JUNK = b"\x00\xff\xfe garbage\r\n\r\n"
POSTED = f"/api/runs/r1/commands HTTP/1.1\r\nHost: localhost\r\n{BEARER}\r\n{CHUNKED}\r\n\r\n2\r\n{{}}\r\n0"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A server with short times and little room."""
    parent = tmp_path_factory.mktemp("bounds")
    bounds = {"header_seconds": HEADER_SECONDS, "body_seconds": BODY_SECONDS, "max_connections_per_address": 6}
    with serving(parent / "runs", page_dir=page(parent), **bounds) as house:
        yield house


def knock(house: House, said: bytes = b"") -> socket.socket:
    line = socket.create_connection(("127.0.0.1", house.port), timeout=SOON)
    if said:
        line.sendall(said)
    return line


def heard(line: socket.socket) -> bytes:
    """Read until the other side closes."""
    said = bytearray()
    while True:
        try:
            data = line.recv(65536)
        except ConnectionResetError:
            return bytes(said)
        if not data:
            return bytes(said)
        said += data


def answered(line: socket.socket) -> int:
    """Read one answer; give its status."""
    answer = HTTPResponse(line)
    answer.begin()
    answer.read()
    return answer.status


def statuses(said: bytes) -> list[bytes]:
    return re.findall(rb"HTTP/1\.1 (\d+)", said)


def counted(house: House, cause: str) -> float:
    return house.app.state.metrics.registry.get_sample_value("spiral_refused_total", {"cause": cause}) or 0.0


def head(house: House, *more: str, method: str = "POST", path: str = "/api/runs/r1/commands") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{house.port}", *more]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.parametrize("said", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "])
def test_headers_that_never_end_are_ended_with_408(house: House, said: bytes) -> None:
    begun, before = time.monotonic(), counted(house, "slow")
    with closing(knock(house, said)) as line:
        answer = heard(line)
    assert time.monotonic() - begun >= HEADER_SECONDS * 0.9
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"the headers of a request took too long" in answer
    assert counted(house, "slow") == before + 1


def test_a_byte_now_and_then_does_not_buy_more_time(house: House) -> None:
    begun = time.monotonic()
    with closing(knock(house, b"GET / HTTP/1.1\r\nX-Slow: ")) as line:
        line.settimeout(0.02)
        answer = b""
        while not answer and time.monotonic() - begun < 20:
            try:
                line.sendall(b"x")
                answer = line.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                break
    assert time.monotonic() - begun < 10
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_body_that_never_ends_is_ended_with_408_and_leaves_no_trace_of_failure(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    said = head(house, BEARER, "Content-Length: 100") + b'{"id"'
    with closing(knock(house, said)) as line:
        answer = heard(line)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"the body of a request took too long" in answer
    with house.http() as http:
        assert http.get("/api/runs").status_code == 200
    assert "Traceback" not in capsys.readouterr().err


def test_the_times_do_not_hurry_those_who_are_quick(house: House) -> None:
    with house.http() as http:
        for _ in range(3):
            assert http.get("/api/runs").status_code == 200
            time.sleep(HEADER_SECONDS)  # the same connection, idle between two requests


def test_a_body_that_is_too_large_is_refused_with_413_unread(house: House) -> None:
    begun, before = time.monotonic(), counted(house, "body")
    with closing(knock(house, head(house, BEARER, f"Content-Length: {20 * 2**20}"))) as line:
        assert heard(line).startswith(b"HTTP/1.1 413 ")
    assert time.monotonic() - begun < BODY_SECONDS * 5
    with closing(knock(house, head(house, BEARER, CHUNKED))) as line:
        line.sendall(b"11000\r\n" + b"x" * 0x11000 + b"\r\n")
        assert line.recv(65536).startswith(b"HTTP/1.1 413 ")
    assert counted(house, "body") == before + 2


@pytest.mark.parametrize(("piece", "end"), [(70_004, "\r\n\r\n"), (500, "")], ids=["whole", "in pieces, without end"])
@pytest.mark.parametrize(
    ("begun", "again"),
    [
        ("/", "x"),
        ("/ HTTP/1.1", "\r\nX: y"),
        ("/ HTTP/1.1\r\nX: ", "x"),
        (POSTED, "\r\nX: y"),
        (f"{POSTED}\r\nX: ", "x"),
    ],
    ids=["URL", "headers", "header", "trailers", "trailer"],
)
def test_headers_and_trailers_that_are_too_large_are_refused_with_431(
    house: House, begun: str, again: str, piece: int, end: str
) -> None:
    before, large = counted(house, "headers"), ((f"POST {begun}" + again * 70_000)[:70_000] + end).encode()
    with closing(knock(house)) as line:
        with suppress(OSError):  # refused in the midst of it
            for begin in range(0, len(large), piece):
                line.sendall(large[begin : begin + piece])
        assert heard(line).startswith(b"HTTP/1.1 431 ")
    assert counted(house, "headers") == before + 1


def test_headers_of_14_kib_are_answered_again_and_again_and_bodies_between_them_are_not_counted(house: House) -> None:
    asked = head(house, BEARER, "Content-Length: 60000", "X: ", path="/api/runs/none/commands")
    asked = asked.replace(b"X: ", b"X: " + b"x" * (14 * 1024 - len(asked)))
    with closing(knock(house)) as line:
        for _ in range(5):
            line.sendall(asked + b"x" * 60_000)
            assert answered(line) == 400
            line.sendall(asked.replace(b"POST", b"GET").replace(b"60000", b"0"))
            assert answered(line) == 404


def test_a_few_trailers_harm_nothing_and_count_as_no_headers(house: House) -> None:
    body = b"%x\r\n%b\r\n0\r\nX: y\r\nHost: evil.example\r\n%b\r\n\r\n" % (len(HELLO), HELLO, BEARER.encode())
    for shown, status in (([BEARER], 201), ([], 401)):
        with closing(knock(house, head(house, *shown, CHUNKED, path="/http/view") + body)) as line:
            assert answered(line) == status


def test_requests_sent_at_once_are_answered_in_order_and_none_with_the_refusal_of_the_next(house: House) -> None:
    last = head(house, BEARER, "Connection: close", method="GET", path="/api/runs/none")
    with closing(knock(house, ASK + head(house, method="GET") + last)) as line:
        assert statuses(heard(line)) == [b"200", b"401", b"404"]
    with closing(knock(house, ASK + b"GET http://a:99999/ HTTP/1.1\r\n\r\n")) as line:
        assert heard(line) == b""


def test_too_many_requests_sent_at_once_end_the_connection_and_harm_nobody_else(house: House) -> None:
    with closing(knock(house, ASK * 1000)) as line:
        assert len(statuses(heard(line))) < 1000
    with house.http() as http:
        assert http.get("/api/runs").status_code == 200


def test_what_is_no_request_does_not_keep_a_connection_open(house: House) -> None:
    early = head(house, "Content-Length: 5")
    for asked, status, more in ((ASK, 200, b"\r\n"), (early, 401, b"hello")):
        with closing(knock(house, asked)) as line:
            assert answered(line) == status
            line.sendall(more)
            assert statuses(heard(line)) == [b"408"]


@pytest.mark.parametrize(
    "behind", [JUNK, ASK + JUNK, ASK * 100, b"GET /" + b"x" * 40_000, b""], ids=["junk", "one", "100", "URL", "socket"]
)
def test_nothing_is_written_into_an_answer_under_way_and_who_breaks_it_off_is_gone(house: House, behind: bytes) -> None:
    viewers = house.app.state.hub.audience.viewers
    before = len(viewers)
    with house.http() as http:
        view = http.post("/http/view", content=HELLO).json()["view"]
    with closing(knock(house, head(house, BEARER, method="GET", path=f"/http/view/{view}/events"))) as line:
        said = line.recv(65536)
        line.sendall(behind or head(house, BEARER, *SHAKE, method="GET", path="/ws/view"))
        assert statuses(said + heard(line)) == [b"200"]

    async def gone() -> bool:
        return len(viewers) <= before

    asyncio.run(eventually(gone))


def test_an_upgrade_with_a_body_or_more_than_a_websocket_reads_is_refused_and_another_ends_it(house: House) -> None:
    http2 = ["Connection: Upgrade", "Upgrade: h2c"]
    refused = [*http2, "Content-Length: 9"], [*http2, CHUNKED], [*SHAKE, CHUNKED], [*SHAKE, "X: " + "x" * 10_000]
    for asked, status in (*((asked, b"400") for asked in refused), (http2, b"200")):
        with closing(knock(house, head(house, BEARER, *asked, method="GET", path="/healthz"))) as line:
            assert statuses(heard(line)) == [status], asked


@pytest.mark.parametrize("said", [JUNK, b"GET /\r\n\r\n", b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n"])
def test_what_is_no_http_is_refused_with_400(house: House, said: bytes) -> None:
    with closing(knock(house, said)) as line:
        assert heard(line).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("hosts", ["", "localhost evil.example", "evil.example localhost", "localhost localhost"])
def test_a_request_and_a_websocket_name_one_host(house: House, hosts: str) -> None:
    before, named = counted(house, "host"), [f"Host: {host}" for host in hosts.split()]
    for path, more, status in (("/healthz", (), 400), ("/ws/view", SHAKE, 403)):
        said = "\r\n".join([f"GET {path} HTTP/1.1", BEARER, *named, *more, "", ""])
        with closing(knock(house, said.encode())) as line:
            assert answered(line) == status
    assert counted(house, "host") == before + 2


def test_connections_of_one_address_are_bounded_and_room_is_found_again(house: House) -> None:
    async def story() -> None:
        with house.http(headers={}) as http, closing(knock(house)) as idle:
            del idle
            async with dial(house, "view") as one, dial(house, "view") as other:
                await one.say(ViewHello(protocol=PROTOCOL))
                await other.say(ViewHello(protocol=PROTOCOL))
                lines = [knock(house) for _ in range(6)]
                answers = [heard(line) for line in lines]
                for line in lines:
                    line.close()
                crowded = [answer for answer in answers if answer.startswith(b"HTTP/1.1 503 ")]
                assert len(crowded) == 3, "an idle line, two websockets and three more are six"
                assert b"too many connections from 127.0.0.1" in crowded[0]
            assert http.get("/healthz").status_code == 200

    asyncio.run(asyncio.wait_for(story(), 30))
    assert counted(house, "connections") == 3


def test_connections_are_bounded_in_all(tmp_path: Path) -> None:
    with serving(tmp_path / "runs", max_connections=2) as house:
        lines = [knock(house) for _ in range(3)]
        assert heard(lines[2]).startswith(b"HTTP/1.1 503 ")
        for line in lines:
            line.close()


def test_who_asks_too_often_is_told_when_to_come_back_and_harms_nobody_else(tmp_path: Path) -> None:
    with serving(tmp_path / "runs", requests_per_second=5) as house, house.http() as http:
        answers = [http.get("/api/runs") for _ in range(40)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert answers[0].status_code == 200
        assert len(refused) >= 10
        assert int(refused[0].headers["retry-after"]) >= 1
        # Somebody without a token has a bucket of its own, and cannot empty that of the others.
        assert httpx.get(f"{house.url}/healthz").status_code == 200


def test_strangers_get_a_tenth(tmp_path: Path) -> None:
    with serving(tmp_path / "runs", requests_per_second=10) as house, house.http(headers={}) as http:
        told = [http.get("/api/runs", headers={"Authorization": f"Bearer guess{k}"}).status_code for k in range(20)]
        assert told[:4] == [401] * 4
        assert 429 in told
        assert httpx.get(f"{house.url}/api/runs", headers=house.bearer).status_code == 200


@given(st.lists(st.floats(0, 2), max_size=200), st.floats(0.1, 50), st.integers(1, 20))
def test_no_pattern_of_asking_gets_more_than_the_burst_and_the_rate(gaps: list[float], rate: float, burst: int) -> None:
    allowance = Allowance(rate, burst)
    now = passed = 0.0
    for gap in gaps:
        now += gap
        wait = allowance.take("me", now)
        passed += wait == 0
        assert 0 <= wait <= 1 / rate
    assert passed <= burst + rate * now + 1e-6


def test_a_message_of_20_mb_closes_the_websocket_with_1009(house: House) -> None:
    async def story() -> None:
        for road in ("engine", "view"):
            async with dial(house, road) as peer:
                with suppress(ConnectionClosed):
                    await peer.socket.send(b"\x00" * (20 * 2**20))
                assert await peer.closed() == CLOSE_TOO_BIG, road

    asyncio.run(asyncio.wait_for(story(), 30))


def test_a_page_that_says_too_much_at_once_is_closed(house: House) -> None:
    async def story() -> None:
        async with dial(house, "view") as peer:
            await peer.socket.send(b"\x00" * 100_000)
            assert await peer.closed() == CLOSE_TOO_BIG
        async with dial(house, "view") as peer:
            await peer.say(ViewHello(protocol=PROTOCOL))
            for _ in range(1000):
                try:
                    await peer.say(Watch(run="", width=600))
                except ConnectionClosed:
                    break
            assert await peer.closed() == CLOSE_TOO_OFTEN

    asyncio.run(asyncio.wait_for(story(), 30))


def test_replayed_and_truncated_messages_of_an_engine_store_nothing_twice(house: House) -> None:
    async def story() -> None:
        async with courier(house) as engine:
            await engine.say(*opening(), frame(4, 1), frame(5, 2))
            await engine.next_of(Stored, lambda message: message.seq >= 5)
            await engine.say(frame(4, 1), frame(5, 2), frame(6, 3))
            await engine.next_of(Stored, lambda message: message.seq >= 6)
            packet = codec.encode_packet([frame(7, 4)])
            await engine.socket.send(packet[:-3])
            assert await engine.closed() == CLOSE_BAD_DATA
        async with courier(house) as engine:
            await engine.say(frame(7, 4, run="other"))
            assert await engine.closed() == CLOSE_PROTOCOL
        with house.http() as http:
            steps = http.get("/api/runs/r1/series").json()["series"][0]["steps"]
            assert steps == [1, 2, 3]
            body = codec.to_json(asking("c1"))
            assert [http.post("/api/runs/r1/commands", content=body).status_code for _ in range(2)] == [202, 200]
            assert len(http.get("/api/runs/r1/commands").json()["commands"]) == 1

    asyncio.run(asyncio.wait_for(story(), 30))
