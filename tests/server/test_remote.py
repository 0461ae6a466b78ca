"""Asking a server from another process: what is found, what is asked again, and what is said."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from spiral_core.wire import codec
from spiral_core.wire.messages import CommandRecord, CommandRequest
from spiral_core.wire.parts import Change, KnobSpec, RunStatus, RunSummary, Setting
from spiral_server.launch.private import write_private
from spiral_server.remote import telling
from spiral_server.remote.choosing import choose_run, settings_of
from spiral_server.remote.client import AskingError, Client, LostError
from spiral_server.remote.watching import Follower, follow

from .asking import play, stored
from .house import TOKEN, House, courier, serving
from .saying import ack, asking, frame, knob, opening, status


def summary(run: str, state: RunStatus) -> RunSummary:
    return RunSummary(
        id=run,
        name=run,
        status=state,
        step=0,
        total_steps=0,
        model="",
        data="",
        created=0.0,
        updated=0.0,
        detail="",
        connected=True,
    )


# Choosing.


def test_the_newest_run_that_trains_is_meant_when_none_is_named() -> None:
    runs = [summary("d", "finished"), summary("c", "lost"), summary("b", "paused"), summary("a", "training")]
    assert choose_run(runs, None).id == "b"
    assert choose_run(runs, "d").id == "d"


@pytest.mark.parametrize(
    ("runs", "wanted", "said"),
    [
        ([], None, "has no runs yet"),
        ([summary("2026-needle-ab12", "finished")], None, "no run trains; the newest, 2026-needle-ab12, is finished"),
        (
            [summary("2026-needle-ab12", "training"), summary("z", "training")],
            "2026-needle-ab1",
            "there is 2026-needle-ab12",
        ),
        ([summary("x", "training"), summary("y", "training")], "2026", "there is x and y"),
    ],
)
def test_a_run_that_is_not_there_is_refused_with_those_that_are(
    runs: list[RunSummary], wanted: str | None, said: str
) -> None:
    with pytest.raises(AskingError, match=said):
        choose_run(runs, wanted)


KNOBS: dict[str, KnobSpec] = {
    "optim.lr": knob(),
    "zspace.gain": knob("zspace.gain"),
    "run.steps": replace(knob("run.steps"), type="int", low=0, high=1e12),
    "optim.mode": replace(knob("optim.mode"), type="choice", choices=["euclidean", "riemannian"]),
    "optim.lr.held": replace(knob("optim.lr.held"), type="bool"),
}


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("optim.lr=3e-4", 3e-4),
        ("optim.lr=1", 1),
        ("run.steps=1e3", 1000),
        ("run.steps=9007199254740993", 9007199254740993),
        ("run.steps=1.5", 1.5),
        ("optim.mode=riemannian", "riemannian"),
        ("optim.mode=3", "3"),
        ("optim.lr.held=on", True),
        ("optim.lr.held=False", False),
        ("optim.lr=-2", -2),
    ],
)
def test_a_word_becomes_a_setting_of_the_kind_that_the_knob_holds(word: str, value: object) -> None:
    (setting,) = settings_of([word], KNOBS)
    assert setting == Setting(knob=word.split("=")[0], value=value)  # type: ignore[arg-type]
    assert type(setting.value) is type(value)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("optim.lr", "is not KNOB=VALUE, such as optim.lr=3e-4"),
        ("optim.lr=", "is not KNOB=VALUE"),
        ("=3", "is not KNOB=VALUE"),
        ("optim.lt=1", "did you mean optim.lr"),
        ("lr=1", "did you mean optim.lr\\?"),
        ("nonsense=1", "`spiral knobs` lists"),
        ("optim.lr=fast", "optim.lr takes a number between 1e-06 and 1, not 'fast'"),
        ("optim.lr=nan", "takes a finite number .* not nan"),
        ("optim.lr=-inf", "takes a finite number .* not -inf"),
        ("optim.lr.held=maybe", "takes true or false, not 'maybe'"),
    ],
)
def test_a_word_that_makes_no_sense_is_refused_before_anything_is_asked(word: str, said: str) -> None:
    with pytest.raises(AskingError, match=said):
        settings_of(["zspace.gain=0.5", word], KNOBS)


# Telling.


def record(**changes: Any) -> CommandRecord:
    made = CommandRecord(
        id="a",
        verb="set",
        sets=[],
        actor="ada",
        source="cli",
        run="r1",
        number=3,
        time=0.0,
        incarnation=0,
        state="applied",
        by=None,
        step=512,
        changes=[Change(knob="optim.lr", old=0.03, in_force=0.0003), Change(knob="zspace.gain", old=None, in_force=1)],
        reason="",
        rev=2,
    )
    return replace(made, **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {},
            ["optim.lr 0.03 -> 0.0003, in force since step 512", "zspace.gain mixed -> 1, in force since step 512"],
        ),
        ({"verb": "pause", "changes": []}, ["paused before step 512"]),
        ({"verb": "step", "changes": [], "steps": 3}, ["runs steps 512 to 514, then pauses"]),
        ({"verb": "step", "changes": [], "steps": 1}, ["runs step 512, then pauses"]),
        ({"verb": "checkpoint", "changes": []}, ["checkpoint asked for after step 511"]),
        ({"state": "rejected", "reason": "too large"}, ["refused: too large"]),
        ({"state": "superseded", "by": 4}, ["superseded by command 4: that one was applied in its place"]),
        ({"state": "expired", "reason": "the run ended"}, ["expired: the run ended"]),
        ({"state": "accepted", "at_step": 600}, ["accepted as command 3: waits for step 600"]),
        ({"state": "accepted"}, ["accepted as command 3: waits for the next step"]),
    ],
)
def test_what_became_of_a_command_is_told_as_it_was(changes: dict[str, Any], said: list[str]) -> None:
    assert telling.outcome(record(**changes)) == said


def test_the_table_of_knobs_wraps_help_to_a_terminal_and_keeps_one_line_each_elsewhere() -> None:
    specs = [replace(spec, help="word " * 40) for spec in KNOBS.values()]
    wide = telling.table(specs, None).splitlines()
    assert len(wide) == len(specs) + 1
    assert wide[1].startswith("optim.lr       0.1")
    assert "euclidean | riemannian" in wide[4]
    narrow = telling.table(specs, 100).splitlines()
    assert len(narrow) > len(wide)
    assert max(map(len, narrow)) <= 100


# Asking.


@contextmanager
def leaky(house: House, losses: int) -> Iterator[str]:
    """Stand before a server; the first answers are lost on their way back."""
    listener = socket.create_server(("127.0.0.1", 0))
    left = [losses]

    def pass_on() -> None:
        while True:
            try:
                outer, _ = listener.accept()
            except OSError:
                return
            with outer, socket.create_connection(("127.0.0.1", house.port)) as inner:
                request = outer.recv(1 << 16)
                while b"\r\n\r\n" not in request or (request.startswith(b"POST") and not request.endswith(b"}")):
                    request += outer.recv(1 << 16)
                inner.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
                answer = b""
                while part := inner.recv(1 << 16):
                    answer += part
                if left[0] > 0:
                    left[0] -= 1
                else:
                    outer.sendall(answer)

    thread = threading.Thread(target=pass_on, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def settle(client: Client, request: CommandRequest, *, wait: bool = True, seconds: float = 5.0) -> Any:
    return client.settle("r1", request, wait=wait, seconds=seconds, waiting=lambda _: None)


def test_an_answer_that_is_lost_is_asked_for_again_and_the_command_given_once(house: House, tmp_path: Path) -> None:
    async def story() -> None:
        async with courier(house) as engine:
            await engine.say(*opening())
            await stored(engine, 3)
            with leaky(house, losses=3) as address:
                client = Client(tmp_path, address, TOKEN)
                answer = await asyncio.to_thread(settle, client, asking("c1"), wait=False)
            assert (answer.status, answer.record.state, answer.record.number) == (200, "accepted", 1)
            with house.http() as http:
                (only,) = http.get("/api/runs/r1/commands").json()["commands"]
            assert only["id"] == "c1"

    play(story())


def test_a_command_is_waited_for_until_the_engine_has_answered_it(house: House, tmp_path: Path) -> None:
    async def story() -> None:
        async with courier(house) as engine:
            await engine.say(*opening())
            await stored(engine, 3)
            client = Client(tmp_path, house.url, TOKEN)
            answering = asyncio.create_task(asyncio.to_thread(settle, client, asking("c1")))
            await asyncio.sleep(0.2)
            assert not answering.done()
            await engine.say(ack(4, 1, "c1", step=9))
            answer = await answering
            assert (answer.record.state, answer.record.step) == ("applied", 9)
            refused = await asyncio.to_thread(settle, client, asking("c2", 50.0))
            assert (refused.status, refused.record.state) == (422, "rejected")
            stale = await asyncio.to_thread(settle, client, replace(asking("c3"), expected_rev=0))
            assert (stale.status, stale.record, stale.body["values"]) == (409, None, {"optim.lr": 0.2})

    play(story())


def test_what_is_not_settled_in_time_is_given_back_as_it_stands(house: House, tmp_path: Path) -> None:
    async def story() -> None:
        async with courier(house) as engine:
            await engine.say(*opening())
            await stored(engine, 3)
            client = Client(tmp_path, house.url, TOKEN)
            answer = await asyncio.to_thread(settle, client, asking("c1"), seconds=0.3)
            assert answer.record.state == "accepted"

    play(story())


def test_a_server_that_does_not_come_back_in_time_leaves_it_unknown(tmp_path: Path) -> None:
    write_private(tmp_path / "server.json", {"url": "http://127.0.0.1:9", "pid": 1, "token": "t"})
    client = Client(tmp_path)
    begun = time.monotonic()
    with pytest.raises(LostError, match=r"no server answers at http://127\.0\.0\.1:9"):
        settle(client, asking("c1"), seconds=0.3)
    assert time.monotonic() - begun < 3.0


def test_a_server_that_is_started_anew_at_another_address_is_found_again(tmp_path: Path) -> None:
    write_private(tmp_path / "server.json", {"url": "http://127.0.0.1:9", "pid": 1, "token": "t"})
    client = Client(tmp_path)
    with serving(tmp_path / "runs") as house:

        async def story() -> None:
            async with courier(house) as engine:
                await engine.say(*opening())
                await stored(engine, 3)
                giving = asyncio.create_task(asyncio.to_thread(settle, client, asking("c1"), wait=False))
                await asyncio.sleep(0.1)
                write_private(tmp_path / "server.json", {"url": house.url, "pid": 1, "token": TOKEN})
                assert (await giving).record.state == "accepted"

        play(story())


@pytest.mark.parametrize(
    ("server", "token", "said"),
    [
        (None, None, "start one with `spiral serve --logdir"),
        ("127.0.0.1:8787", "t", "such as http://127.0.0.1:8787"),
        ("http://127.0.0.1:99999", "t", "such as http://127.0.0.1:8787"),
        ("http://127.0.0.1:9", None, "with --token, or as SPIRAL_TOKEN"),
    ],
)
def test_who_cannot_be_asked_is_said_with_the_remedy(
    tmp_path: Path, server: str | None, token: str | None, said: str
) -> None:
    with pytest.raises(AskingError, match=said):
        Client(tmp_path, server, token)


def test_a_wrong_token_an_unknown_run_and_another_program_are_told_apart(house: House, tmp_path: Path) -> None:
    with pytest.raises(AskingError, match="does not take this token"):
        Client(tmp_path, house.url, "wrong").get("/runs")
    with pytest.raises(AskingError, match="there is no run 'r9'"):
        Client(tmp_path, house.url, TOKEN).submit("r9", asking())
    with socket.create_server(("127.0.0.1", 0)) as other:

        def greet() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(AskingError, match="is no Spiral server"):
            Client(tmp_path, f"http://127.0.0.1:{other.getsockname()[1]}", "t").get("/runs")
        thread.join()


def test_the_token_is_not_carried_to_where_a_redirection_points(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        second.settimeout(0.3)
        there = f"http://127.0.0.1:{second.getsockname()[1]}/"

        def redirect() -> None:
            connection, _ = first.accept()
            with connection:
                connection.recv(1 << 16)
                body = b'{"error": "elsewhere"}'
                head = f"HTTP/1.1 307 See\r\nLocation: {there}\r\nContent-Length: {len(body)}\r\n\r\n"
                connection.sendall(head.encode() + body)

        thread = threading.Thread(target=redirect)
        thread.start()
        with pytest.raises(AskingError, match="elsewhere"):
            Client(tmp_path, f"http://127.0.0.1:{first.getsockname()[1]}", "t").get("/runs")
        thread.join()
        with pytest.raises(TimeoutError):
            second.accept()


# Watching.


def test_a_run_is_followed_through_a_server_that_goes_away_until_it_ends(tmp_path: Path) -> None:
    said: list[str] = []
    plain: list[Any] = []
    away: list[str] = []
    write_private(tmp_path / "server.json", {"url": "http://127.0.0.1:9", "pid": 1, "token": "t"})

    def seen(words: str) -> bool:
        return any(words in line for line in said)

    async def until(words: str) -> None:
        async with asyncio.timeout(10):
            while not seen(words):
                await asyncio.sleep(0.02)

    def announce(house: House) -> None:
        write_private(tmp_path / "server.json", {"url": house.url, "pid": 1, "token": TOKEN})

    async def before(house: House) -> None:
        async with courier(house) as engine:
            await engine.say(*opening())
            await stored(engine, 3)
            with house.http() as http:
                http.post("/api/runs/r1/commands", content=codec.to_json(asking("early")))
            await until("command 1, set by me as owner, 127.0.0.1 (ui): accepted as command 1")
            await engine.say(ack(4, 1, "early", step=9), frame(5, 1, [0.5, 1.0]), frame(6, 2, [0.25, 1.0]))
            await until("optim.lr 0.1 -> 0.2, in force since step 9")
            await stored(engine, 6)

    async def after(house: House) -> None:
        async with courier(house) as engine:
            await engine.say(status(7, "paused", step=2))
            await until("paused, 2 steps done")
            with house.http() as http:
                http.post("/api/runs/r1/commands", content=codec.to_json(asking("late")))
            await until("command 2, set by me as owner, 127.0.0.1 (ui): accepted")
            await engine.say(status(8, "finished", step=2))

    async def story() -> None:
        client = Client(tmp_path)
        people = Follower("r1", said.append, plain=False, every=0.0)
        program = Follower("r1", lambda line: plain.append(json.loads(line)), plain=True, every=0.0)
        with serving(tmp_path / "runs") as house:
            announce(house)
            client.relocate()
            watching = [asyncio.create_task(follow(client, "r1", one, away.append)) for one in (people, program)]
            await before(house)
        await until("lost")
        with serving(tmp_path / "runs") as house:
            announce(house)
            await after(house)
            await asyncio.gather(*watching)
        assert people.status == program.status == "finished"

    play(story())
    assert len(away) == 2
    assert seen("command 2, set by me as owner, 127.0.0.1 (ui): expired: the run ended before this command was applied")
    assert sum("in force since step 9" in line for line in said) == 1, "what was said once is not said again"
    assert {one["type"] for one in plain} == {"step", "command-record", "run-changed", "status-changed"}
    assert [one["train/s0"] for one in plain if one["type"] == "step"] == [0.5, 0.25]
