"""What those who keep a server running see: readiness, metrics, logs, reload, and `spiral doctor`."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner
from websockets.asyncio.client import connect

from spiral_core import checkup as engine_checkup
from spiral_core.wire import codec
from spiral_core.wire.limits import CLOSE_GOING_AWAY, CLOSE_UNAUTHORIZED, PROTOCOL
from spiral_core.wire.messages import Stored, ViewHello, ViewWelcome
from spiral_server import checkup
from spiral_server.app import Server
from spiral_server.cli_doctor import doctor as doctor_command
from spiral_server.launch import tokens
from spiral_server.launch.private import write_private
from spiral_server.live.tokens import Role
from spiral_server.metrics import Metrics
from spiral_server.store.errors import StoreError
from spiral_server.store.measured import MeasuredStore
from spiral_server.store.protocol import Entry

from .house import House, Peer, courier, serving, viewer
from .saying import asking, frame, opening


def measured(house: House) -> dict[str, float]:
    """Give every sample by name and labels."""
    text = httpx.get(f"{house.url}/metrics", headers=house.bearer).text
    return {
        "".join([sample.name, *(f" {name}={value}" for name, value in sorted(sample.labels.items()))]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_tell_what_comes_in_who_is_there_and_what_was_refused(house: House) -> None:
    async def story() -> None:
        before = measured(house)
        assert before["spiral_engines_connected"] == before["spiral_viewers_connected"] == 0
        async with viewer(house), courier(house) as engine:
            await engine.say(*opening(), *(frame(4 + k, 1 + k) for k in range(10)))
            await engine.next_of(Stored, lambda message: message.seq >= 13)
            async with httpx.AsyncClient(headers=house.bearer) as http:
                await http.post(f"{house.url}/api/runs/r1/commands", content=codec.to_json(asking()))
                await http.get(f"{house.url}/api/runs", headers={"Authorization": "Bearer wrong"})
            now = await asyncio.to_thread(measured, house)
        assert now["spiral_ingested_messages_total"] == 14
        assert now["spiral_ingested_bytes_total"] > 14 * 20
        assert now["spiral_ingest_lag_seconds_count"] >= 1
        assert now["spiral_store_seconds_count work=append"] >= 1
        assert now["spiral_store_seconds_count work=journal"] == 1
        assert now["spiral_engines_connected"] == now["spiral_viewers_connected"] == 1
        assert now["spiral_commands_waiting"] == 1
        assert now["spiral_runs status=training"] == 1
        assert now["spiral_refused_total cause=token"] == 1
        for name in ("spiral_mailbox_depth", "spiral_mailbox_depth_max", "spiral_merged_frames"):
            assert now[name] >= 0
        assert "spiral_ingest_backlog_bytes" in now

    asyncio.run(asyncio.wait_for(story(), 30))


def test_metrics_ask_for_a_token(house: House) -> None:
    assert httpx.get(f"{house.url}/metrics").status_code == 401


def test_ready_says_no_while_the_store_cannot_write_and_yes_again_after(house: House) -> None:
    def ready() -> httpx.Response:
        return httpx.get(f"{house.url}/readyz")

    def becomes(status: int) -> httpx.Response:
        deadline = time.monotonic() + 20
        while (answer := ready()).status_code != status:
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.05)
        return answer

    assert becomes(200).text == "ready\n"
    probe = house.settings.logdir / "server.probe"
    probe.mkdir()  # a file cannot be written there, whoever runs the tests
    refused = becomes(503)
    assert "the store cannot write" in refused.text
    assert str(house.settings.logdir) not in refused.text
    assert httpx.get(f"{house.url}/healthz").status_code == 200
    probe.rmdir()
    becomes(200)
    assert not probe.exists()


def test_a_run_that_alone_cannot_be_written_leaves_the_server_ready(tmp_path: Path) -> None:
    entries = [Entry(message, codec.encode(message)) for message in opening()]
    with closing(MeasuredStore(tmp_path, Metrics())) as store:
        store.append("r1", entries).result(5)
    (tmp_path / "r1" / "run.db").write_bytes(b"this is no database " * 100)
    with closing(MeasuredStore(tmp_path, Metrics())) as store:
        assert isinstance(store.append("r1", entries).exception(5), StoreError)
        assert store.trouble() is None


def start(logdir: Path, *words: str) -> subprocess.Popen[str]:
    with (logdir.parent / "stderr").open("a") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "spiral_server.cli", "serve", "--port", "0", "--logdir", str(logdir), *words],
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        )


def address_of(process: subprocess.Popen[str]) -> tuple[str, str]:
    assert process.stdout is not None
    url, _, token = process.stdout.readline().strip().partition("/?token=")
    assert token, "no address was printed"
    return url, token


def test_a_server_logs_json_without_a_token_reloads_on_sighup_and_says_good_bye_on_sigterm(tmp_path: Path) -> None:
    logdir = tmp_path / "runs"
    process = start(logdir, "--log-format", "json")
    url, token = address_of(process)
    named, _ = tokens.make(logdir, Role.VIEWER, "alice")
    gone, _ = tokens.make(logdir, Role.VIEWER, "bob")

    async def story() -> None:
        async with (
            connect(f"ws{url[4:]}/ws/view", additional_headers={"Authorization": f"Bearer {named}"}, proxy=None) as one,
            connect(f"ws{url[4:]}/ws/view", additional_headers={"Authorization": f"Bearer {gone}"}, proxy=None) as two,
        ):
            alice, bob = Peer(one), Peer(two)
            for peer in (alice, bob):
                await peer.say(ViewHello(protocol=PROTOCOL))
                await peer.next_of(ViewWelcome)
            tokens.revoke(logdir, "bob")
            process.send_signal(signal.SIGHUP)
            assert await bob.closed() == CLOSE_UNAUTHORIZED
            async with httpx.AsyncClient() as http:
                # The owner's, which the server has drawn itself, is known and is hidden wherever it stands.
                await http.get(f"{url}/api/{token}/x", headers={"Host": "evil.example"})
                for secret in (token, named, "stranger-guess"):
                    await http.get(f"{url}/?token={secret}", headers={"Host": "evil.example"})
                    await http.get(f"{url}/metrics?token={secret}", headers={"Authorization": f"Basic {secret}"})
                    await http.get(f"{url}/api/{secret}/x", headers={"Cookie": f"spiral_x={secret}"})
                    await http.get(f"{url}/api/runs/r", headers={"Origin": f"http://{secret}", "Authorization": "x"})
            process.send_signal(signal.SIGTERM)
            assert await alice.closed() == CLOSE_GOING_AWAY

    try:
        asyncio.run(asyncio.wait_for(story(), 60))
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    text = (tmp_path / "stderr").read_text()
    for secret in (token, named, gone):
        assert secret not in text
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    refused = [line for line in lines if "is refused" in line["event"]]
    assert "/api/[hidden]/x" in {line["path"] for line in refused}
    assert {"host", "token"} <= {line["cause"] for line in refused}
    assert all({"reason", "address", "level", "timestamp", "path"} <= set(line) for line in refused)
    assert "reloaded" in {line["event"] for line in lines}
    assert any("'bob' has been revoked" in line.get("reason", "") for line in lines)
    assert "Traceback" not in text
    assert not (logdir / "server.json").exists()


def doctor(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "spiral_server.cli", "doctor", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_server_that_sleeps_hears_at_once_that_it_is_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "look_seconds", 1000.0)
    # From another thread; `serving` waits ten seconds for the end.
    with serving(tmp_path / "runs") as house:
        assert httpx.get(f"{house.url}/healthz").status_code == 200
    # By a signal, with the usual second between two looks.
    monkeypatch.undo()
    program = (
        "from spiral_server.app import Server; Server.look_seconds = 1000.0; from spiral_server.cli import main; main()"
    )
    words = ["serve", "--port", "0", "--logdir", str(tmp_path / "others")]
    with subprocess.Popen([sys.executable, "-c", program, *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) in (0, -signal.SIGTERM)


def test_doctor_finds_nothing_on_a_healthy_machine_and_names_what_it_looked_at(tmp_path: Path) -> None:
    told = doctor("--logdir", str(tmp_path / "runs"), "--json")
    answer = json.loads(told.stdout)
    assert told.returncode == 0, answer
    assert answer["healthy"] is True
    assert [one["what"] for one in answer["findings"]] == [
        "python",
        "versions",
        "threads",
        "kernel cache",
        "kernels",
        "page",
        "runs",
        "disk",
        "tokens",
        "server",
        "port",
    ]
    assert not (tmp_path / "runs").exists(), "looking makes nothing"


def test_doctor_names_a_remedy_for_what_is_wrong_and_leaves_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    (tmp_path / "runs").write_text("a file where a folder should be")
    monkeypatch.setenv("SPIRAL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "300")
    app = typer.Typer()
    app.command()(doctor_command)
    told = CliRunner().invoke(app, ["--logdir", str(tmp_path / "runs")])
    assert told.exit_code == 1
    assert re.search(r"BAD\s+kernel cache .* set SPIRAL_CACHE_DIR to a folder", told.stdout)
    assert re.search(r"BAD\s+runs .* choose another --logdir", told.stdout)


def found(logdir: Path, what: str, port: int = 8787) -> checkup.Found:
    return next(one for one in checkup.look(logdir, "127.0.0.1", port) if one.what == what)


def test_doctor_tells_a_server_that_answers_from_one_that_died_and_one_that_hangs(tmp_path: Path) -> None:
    with serving(tmp_path) as house:
        write_private(tmp_path / "server.json", {"url": house.url, "pid": os.getpid(), "token": "correct-horse"})
        assert found(tmp_path, "server").state == "good"
        assert found(tmp_path, "port", house.port).found == f"{house.port} is our server's"
    hangs = found(tmp_path, "server")
    assert (hangs.state, hangs.found.split()[1]) == ("bad", str(os.getpid()))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    write_private(tmp_path / "server.json", {"url": house.url, "pid": dead.pid, "token": "correct-horse"})
    assert found(tmp_path, "server").state == "note"
    (tmp_path / "server.json").write_text("{")
    assert found(tmp_path, "server").state == "bad"


def test_doctor_sees_a_taken_port_and_tokens_that_others_can_read(house: House) -> None:
    logdir = house.settings.logdir
    assert found(logdir, "port", house.port).found == f"{house.port} is taken"
    tokens.make(logdir, Role.VIEWER, None)
    assert found(logdir, "tokens").state == "good"
    os.chmod(logdir / tokens.FILE, 0o644)
    readable = found(logdir, "tokens")
    assert (readable.state, readable.remedy) == ("bad", f"chmod 600 {logdir / tokens.FILE}")
    assert stat.S_IMODE((logdir / tokens.FILE).stat().st_mode) == 0o644, "the doctor mends nothing by itself"
    (logdir / tokens.FILE).write_text("{")
    assert "make the tokens anew" in found(logdir, "tokens").remedy


def test_doctor_looks_on_where_one_thing_cannot_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise RuntimeError("libgomp is missing")

    monkeypatch.setattr(engine_checkup, "_threads", broken)
    findings = engine_checkup.look()
    assert [one.what for one in findings if one.state == "bad"] == ["threads"]
    assert "libgomp is missing" in next(one.found for one in findings if one.what == "threads")


@pytest.fixture
def quiet() -> Iterator[None]:
    """Put back how the rest of the tests log."""
    from spiral_server import logs

    yield
    logs.configure()


@pytest.mark.parametrize("kind", ["json", "console"])
@pytest.mark.usefixtures("quiet")
def test_no_token_gets_into_a_log_wherever_it_stands(kind: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import logging

    import structlog

    from spiral_server import logs

    logs.configure(kind, "info", ["the-owners-own"])
    log = structlog.get_logger("spiral_server.test")
    log.warning(
        "a request of the-owners-own", path="/?token=abc123&x=1", reason="Bearer abc123", cookie="spiral_0f=abc123"
    )
    log.debug("not asked for")
    logging.getLogger("uvicorn.error").warning("GET /?token=%s", "abc123")
    try:
        raise ValueError("the-owners-own and token=abc123")
    except ValueError:
        log.exception("failed")
    said = capsys.readouterr().err
    assert "the-owners-own" not in said
    assert "abc123" not in said
    assert "not asked for" not in said
    assert said.count("[hidden]") >= 6
    assert "ValueError" in said
    if kind == "json":
        assert [json.loads(line)["level"] for line in said.splitlines()] == ["warning", "warning", "error"]
