"""Named tokens: made, listed, taken back, and what each role may do on a running server."""

from __future__ import annotations

import asyncio
import json
import stat
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from spiral_core.errors import ConfigError
from spiral_core.wire import codec
from spiral_core.wire.limits import CLOSE_FORBIDDEN, CLOSE_UNAUTHORIZED, PROTOCOL
from spiral_core.wire.messages import EngineHello, EngineWelcome, RunsListed, Stored, ViewHello, ViewWelcome
from spiral_server.cli_token import tokens_application
from spiral_server.launch import tokens
from spiral_server.live.tokens import Role

from .house import House, courier, dial, page, serving
from .saying import ack, asking, opening


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One server for all; each test makes tokens and runs of its own."""
    parent = tmp_path_factory.mktemp("tokens")
    with serving(parent / "runs", page_dir=page(parent)) as house:
        yield house


def play(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 30))


def spiral(logdir: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "spiral_server.cli", "token", *words, "--logdir", str(logdir)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def begin(house: House, run: str) -> None:
    async with courier(house, run) as engine:
        await engine.say(*opening(run))
        await engine.next_of(Stored, lambda message: message.seq >= 3)


def test_a_token_is_printed_once_and_only_its_digest_is_kept(tmp_path: Path) -> None:
    made = spiral(tmp_path, "new", "--role", "viewer", "--name", "alice")
    assert made.returncode == 0, made.stderr
    token = made.stdout.strip()
    assert len(token) >= 43
    kept = tmp_path / tokens.FILE
    assert token not in kept.read_text()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / tokens.LOCK).stat().st_mode) == 0o600
    tell = partial(CliRunner().invoke, tokens_application())
    listed = json.loads(tell(["list", "--json", "--logdir", str(tmp_path)]).stdout)
    assert [(one["name"], one["role"]) for one in listed] == [("alice", "viewer")]
    assert "alice" in tell(["list", "--logdir", str(tmp_path)]).stdout
    assert tell(["revoke", "alice", "--logdir", str(tmp_path)]).exit_code == 0
    assert tokens.read(tmp_path) == []


def test_what_cannot_be_done_with_tokens_is_said_in_one_line(tmp_path: Path) -> None:
    tokens.make(tmp_path, Role.VIEWER, "alice")
    for words, said in (
        (["new", "--role", "king"], "no role 'king'; choose one of viewer, operator, engine"),
        (["new", "--role", "viewer", "--name", "alice"], "there is a token 'alice' already"),
        (["new", "--role", "viewer", "--name", "owner"], "cannot be the name"),
        (["new", "--role", "viewer", "--name", "a b"], "cannot be the name"),
        (["revoke", "bob"], "there is no token 'bob'"),
    ):
        done = CliRunner().invoke(tokens_application(), [*words, "--logdir", str(tmp_path)])
        assert isinstance(done.exception, ConfigError)
        assert said in str(done.exception)
    done = spiral(tmp_path, "revoke", "bob")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert [one.name for one in tokens.read(tmp_path)] == ["alice"]


def test_names_are_given_where_none_is_asked_for(tmp_path: Path) -> None:
    names = [tokens.make(tmp_path, Role.VIEWER, None)[1].name for _ in range(2)]
    tokens.revoke(tmp_path, "viewer-1")
    names.append(tokens.make(tmp_path, Role.VIEWER, None)[1].name)
    assert names == ["viewer-1", "viewer-2", "viewer-1"]


def test_those_who_make_tokens_at_once_do_not_lose_each_others(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from spiral_server.launch import tokens; from spiral_server.live.tokens import Role\n"
        "print('here', flush=True); sys.stdin.readline()\n"
        "for _ in range(60): tokens.make(pathlib.Path(sys.argv[1]), Role.VIEWER, None)"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    makers = [subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for maker in makers:
        assert maker.stdout is not None
        assert maker.stdout.readline() == "here\n"
    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.write("go\n")
        maker.stdin.flush()
    for maker in makers:
        maker.communicate(timeout=60)
    assert [maker.returncode for maker in makers] == [0, 0, 0]
    assert len({one.name for one in tokens.read(tmp_path)}) == 180


def test_a_damaged_file_lets_nobody_in_by_name_and_is_named(house: House) -> None:
    token, _ = tokens.make(house.settings.logdir, Role.VIEWER, "carol")
    assert httpx.get(f"{house.url}/api/runs", headers=bearer(token)).status_code == 200
    (house.settings.logdir / tokens.FILE).write_text("{")
    assert httpx.get(f"{house.url}/api/runs", headers=bearer(token)).status_code == 401
    assert httpx.get(f"{house.url}/api/runs", headers=house.bearer).status_code == 200
    with pytest.raises(ConfigError, match=r"server\.tokens\.json cannot be read"):
        tokens.make(house.settings.logdir, Role.VIEWER, "dave")
    (house.settings.logdir / tokens.FILE).unlink()


def test_a_token_opens_the_door_at_once_and_one_that_is_revoked_no_longer(house: House) -> None:
    with house.http(headers={}) as http:
        for role in (Role.VIEWER, Role.OPERATOR):
            token, record = tokens.make(house.settings.logdir, role, None)
            assert http.get("/api/runs", headers=bearer(token)).status_code == 200
            page = http.get("/", params={"token": token})
            assert page.status_code == 200
            assert f"spiral_{house.settings.instance}={token};" in page.headers["set-cookie"]
            tokens.revoke(house.settings.logdir, record.name)
            assert http.get("/api/runs", headers=bearer(token)).status_code == 401


def test_revoking_closes_the_websockets_of_that_token_alone_with_4001(house: House) -> None:
    watch, _ = tokens.make(house.settings.logdir, Role.VIEWER, "alice")
    other, _ = tokens.make(house.settings.logdir, Role.VIEWER, "bob")
    feed, _ = tokens.make(house.settings.logdir, Role.ENGINE, "node")

    async def story() -> None:
        async with (
            dial(house, "view", bearer(watch)) as alice,
            dial(house, "view", bearer(other)) as bob,
            dial(house, "engine", bearer(feed)) as engine,
        ):
            for viewer in (alice, bob):
                await viewer.say(ViewHello(protocol=PROTOCOL))
                await viewer.next_of(ViewWelcome)
            await engine.say(EngineHello(protocol=PROTOCOL, run="r1", incarnation=0))
            await engine.next_of(EngineWelcome)
            tokens.revoke(house.settings.logdir, "alice")
            assert await alice.closed() == CLOSE_UNAUTHORIZED
            tokens.revoke(house.settings.logdir, "node")
            assert await engine.closed() == CLOSE_UNAUTHORIZED
            # Who was not meant still hears of what goes on.
            await begin(house, "heard")
            await bob.next_of(RunsListed, lambda message: any(run.id == "heard" for run in message.runs))

    play(story())


def test_websockets_refuse_the_wrong_role_with_4003(house: House) -> None:
    made = {
        role: tokens.make(house.settings.logdir, role, None)[0] for role in (Role.VIEWER, Role.OPERATOR, Role.ENGINE)
    }

    async def story() -> None:
        for road, role in (("engine", Role.VIEWER), ("engine", Role.OPERATOR), ("view", Role.ENGINE)):
            async with dial(house, road, bearer(made[role])) as peer:
                assert await peer.closed() == CLOSE_FORBIDDEN, (road, role)

    play(story())


def test_a_viewer_cannot_steer_and_the_journal_says_who_did(house: House) -> None:
    play(begin(house, "steered"))
    made = {role: tokens.make(house.settings.logdir, role, role.value + "-one")[0] for role in tokens.GIVEN}
    address = f"{house.url}/api/runs/steered/commands"
    for number, (role, status) in enumerate(((Role.VIEWER, 403), (Role.ENGINE, 403), (Role.OPERATOR, 202))):
        body = codec.to_json(asking(f"c{number}"))
        by_cookie = {"Cookie": f"spiral_{house.settings.instance}={made[role]}", "Origin": house.url}
        told = [httpx.post(address, content=body, headers=headers) for headers in (bearer(made[role]), by_cookie)]
        # The second time it is the same command.
        assert [one.status_code for one in told] == [status, 200 if status == 202 else status]
        if status == 403:
            assert "`spiral token new`" in told[0].json()["error"]
    with house.http() as http:
        assert http.post("/api/runs/steered/commands", content=codec.to_json(asking("c9"))).status_code == 202
        journal = http.get("/api/runs/steered/commands").json()["commands"]
    assert [one["actor"] for one in journal] == [
        "me as operator-one (operator), 127.0.0.1",
        "me as owner, 127.0.0.1",
    ]


def test_an_engine_with_its_own_token_brings_a_run_and_gets_commands(house: House) -> None:
    feed, _ = tokens.make(house.settings.logdir, Role.ENGINE, "node2")

    async def story() -> None:
        async with dial(house, "engine", bearer(feed)) as engine:
            await engine.say(EngineHello(protocol=PROTOCOL, run="r1", incarnation=0))
            await engine.next_of(EngineWelcome)
            await engine.say(*opening())
            await engine.next_of(Stored, lambda message: message.seq >= 3)
            async with httpx.AsyncClient(headers=house.bearer) as http:
                answer = await http.post(f"{house.url}/api/runs/r1/commands", content=codec.to_json(asking("c1")))
                assert answer.status_code == 202
            command = await engine.until(lambda message: getattr(message, "id", "") == "c1")
            assert getattr(command, "actor", "") == "me as owner, 127.0.0.1"
            await engine.say(ack(4, 1, "c1"))
            await engine.next_of(Stored, lambda message: message.seq >= 4)
        for path in ("/api/runs", "/api/runs/r1", "/metrics"):
            async with httpx.AsyncClient(headers=bearer(feed)) as http:
                assert (await http.get(house.url + path)).status_code == 403
        page = httpx.get(f"{house.url}/", params={"token": feed})
        assert page.status_code == 403
        assert "set-cookie" not in page.headers

    play(story())
