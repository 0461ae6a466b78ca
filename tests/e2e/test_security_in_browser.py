"""Security as a real browser enforces it: origins, cookies, scripts, frames, TLS and a proxy in front."""

from __future__ import annotations

import datetime
import functools
import http.server
import ipaddress
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from playwright.sync_api import Browser, BrowserContext, Page

from e2e.cockpit import Cockpit, finish, start, wait_for
from e2e.proxy import proxying
from spiral_core.wire.limits import CLOSE_FORBIDDEN, CLOSE_UNAUTHORIZED
from spiral_server.launch import tokens
from spiral_server.live.tokens import Role


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cockpit]:
    cockpit = start(tmp_path_factory.mktemp("secure") / "runs", "serve", "--port", "0")
    engine = train(cockpit)
    wait_for(lambda: cockpit.run().get("step", 0) > 3, 90, "for the first steps")
    yield cockpit
    engine.terminate()
    engine.wait(30)
    finish(cockpit)


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    fresh = chromium.new_context()
    yield fresh
    fresh.close()


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A page of somebody else: another origin, on another port."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "index.html").write_text("<!doctype html><title>elsewhere</title>")
    (folder / "evil.js").write_text("window.hurt = true")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            del format, args

    site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = Thread(target=site.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{site.server_address[1]}", folder
    site.shutdown()
    thread.join(10)
    site.server_close()


def opened(context: BrowserContext, address: str) -> Page:
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("#page > *", timeout=20_000)
    return page


def train(cockpit: Cockpit, **env: str) -> subprocess.Popen[bytes]:
    words = ["--data", "needle", "--rate", "20", "--quiet", "--server", cockpit.url, "--logdir", str(cockpit.logdir)]
    return subprocess.Popen([sys.executable, "-m", "spiral_core.cli", "train", *words], env={**os.environ, **env})


SOCKET = """(url) => new Promise((done) => {
  const socket = new WebSocket(url);
  let open = false;
  socket.onopen = () => { open = true; };
  socket.onclose = (event) => done({ open, code: event.code });
})"""


def test_a_foreign_page_gets_neither_a_websocket_nor_a_command_nor_an_answer(
    context: BrowserContext, server: Cockpit, elsewhere: tuple[str, Path]
) -> None:
    opened(context, server.page)
    foreign = context.new_page()
    foreign.goto(elsewhere[0])
    # The cookie would go along: ports are the same site.
    assert context.cookies(server.url)
    for road in ("view", "engine"):
        told = foreign.evaluate(SOCKET, f"ws{server.url[4:]}/ws/{road}")
        assert told == {"open": False, "code": 1006}
    post = """async ([url, mode]) => {
      try {
        const answer = await fetch(url, { method: "POST", mode, credentials: "include", body: "{}",
                                          headers: { "Content-Type": "text/plain" } });
        return answer.type === "opaque" ? "opaque" : answer.status;
      } catch { return "blocked"; }
    }"""
    assert foreign.evaluate(post, [f"{server.url}/api/runs/r1/commands", "cors"]) == "blocked"
    # This one is sent, unseen; what counts is that the server refuses it.
    with context.expect_event("response", lambda response: "/commands" in response.url) as sent:
        foreign.evaluate(post, [f"{server.url}/api/runs/r1/commands", "no-cors"])
    assert sent.value.status == 403
    read = "(url) => fetch(url, { credentials: 'include' }).then(() => 'read', () => 'blocked')"
    assert foreign.evaluate(read, f"{server.url}/api/runs") == "blocked"


def test_a_name_that_was_rebound_to_this_machine_is_refused(server: Cockpit) -> None:
    for path in ("/", "/api/runs", "/healthz"):
        answer = httpx.get(
            server.url + path, headers={"Host": "rebound.example", "Authorization": f"Bearer {server.token}"}
        )
        assert answer.status_code == 403


def test_the_cookie_is_out_of_reach_of_scripts_and_of_other_sites(context: BrowserContext, server: Cockpit) -> None:
    page = opened(context, server.page)
    (cookie,) = context.cookies()
    instance = json.loads((server.logdir / "access.json").read_text())["instance"]
    assert cookie["name"] == f"spiral_{instance}"
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["secure"]) == (True, "Strict", False)
    assert cookie["path"] == "/"
    assert page.evaluate("document.cookie") == ""
    page.goto(server.url)
    page.wait_for_selector("#page > *")


def test_the_policy_stops_scripts_that_were_injected(
    context: BrowserContext, server: Cockpit, elsewhere: tuple[str, Path]
) -> None:
    page = opened(context, server.page)
    page.evaluate(
        """() => {
          window.violations = [];
          const note = (event) => window.violations.push(event.effectiveDirective);
          document.addEventListener("securitypolicyviolation", note);
        }"""
    )
    inject = """(source) => {
      const script = document.createElement("script");
      if (source) script.src = source; else script.textContent = "window.hurt = true";
      document.head.append(script);
      const button = document.createElement("button");
      button.setAttribute("onclick", "window.hurt = true");
      document.body.append(button);
      button.click();
    }"""
    page.evaluate(inject, "")
    page.evaluate(inject, f"{elsewhere[0]}/evil.js")
    page.evaluate("(url) => { const one = new Image(); one.src = url; }", f"{elsewhere[0]}/pixel.png")
    page.evaluate("(url) => fetch(url).catch(() => undefined)", f"{elsewhere[0]}/steal")
    page.evaluate("(url) => { try { new WebSocket(url); } catch { } }", f"ws{elsewhere[0][4:]}/steal")
    wait_for(
        lambda: (
            {"script-src-elem", "script-src-attr", "img-src", "connect-src"} <= set(page.evaluate("window.violations"))
        ),
        10,
        f"for every violation; seen: {page.evaluate('window.violations')}",
    )
    assert page.evaluate("window.hurt") is None


def test_the_page_shows_itself_in_a_frame_only_where_it_was_allowed(
    chromium: Browser, server: Cockpit, elsewhere: tuple[str, Path], tmp_path: Path
) -> None:
    site, folder = elsewhere
    allowing = start(tmp_path / "runs", "serve", "--port", "0", "--frame-ancestors", site)
    try:
        for cockpit, shown in ((server, False), (allowing, True)):
            (folder / "frame.html").write_text(f'<!doctype html><iframe src="{cockpit.page}"></iframe>')
            context = chromium.new_context()
            page = context.new_page()
            said: list[str] = []
            page.on("console", lambda message, said=said: said.append(message.text))
            page.goto(f"{site}/frame.html")
            frame = page.frames[1]
            if shown:
                frame.wait_for_selector("#page > *", timeout=20_000)
            else:
                wait_for(lambda said=said: any("frame-ancestors" in text for text in said), 10)
                assert frame.locator("#page").count() == 0
            context.close()
    finally:
        finish(allowing)


def test_a_viewers_page_is_refused_when_it_steers_and_let_go_when_its_token_is_revoked(
    context: BrowserContext, server: Cockpit
) -> None:
    token, _ = tokens.make(server.logdir, Role.VIEWER, "guest")
    page = opened(context, f"{server.url}/?token={token}")
    wait_for(lambda: page.evaluate("window.spiral.state().step") > 3, 30)
    run = server.run()["id"]
    before = len(server.get(f"/api/runs/{run}/commands")["commands"])
    post = """(url) => fetch(url, { method: "POST", body: JSON.stringify({ id: "x1", verb: "pause" }) })
      .then((answer) => answer.status)"""
    assert page.evaluate(post, f"api/runs/{run}/commands") == 403
    assert page.evaluate(SOCKET, f"ws{server.url[4:]}/ws/engine") == {"open": True, "code": CLOSE_FORBIDDEN}
    page.get_by_test_id("btn-pause").click()
    page.get_by_text("may not steer").first.wait_for(timeout=10_000)
    assert len(server.get(f"/api/runs/{run}/commands")["commands"]) == before
    assert server.run()["status"] == "training"
    tokens.revoke(server.logdir, "guest")
    wait_for(lambda: page.evaluate("window.spiral.state().connection") == "closed", 10, "for the page to be let go")
    page.get_by_text("does not know this browser").or_(page.get_by_role("alert")).first.wait_for(timeout=10_000)
    assert page.evaluate(SOCKET, f"ws{server.url[4:]}/ws/view") == {"open": True, "code": CLOSE_UNAUTHORIZED}


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a key, and a certificate for this machine that is signed by nobody but itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "spiral test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert_file, key_file


def test_over_tls_the_page_the_engine_and_the_terminal_work_and_the_cookie_is_secure(
    chromium: Browser, tmp_path: Path
) -> None:
    cert, key = certificate(tmp_path)
    words = ["serve", "--port", "0", "--tls-cert", str(cert), "--tls-key", str(key)]
    cockpit = start(tmp_path / "runs", *words)
    engine = None
    try:
        assert cockpit.url.startswith("https://")
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http{cockpit.url[5:]}/healthz")
        engine = train(cockpit, SSL_CERT_FILE=str(cert))
        terminal = [sys.executable, "-m", "spiral_server.cli", "knobs", "--json", "--logdir", str(tmp_path / "runs")]
        wait_for(lambda: subprocess.run(terminal, capture_output=True, check=False).returncode == 0, 90, "for the run")
        context = chromium.new_context(ignore_https_errors=True)
        page = opened(context, cockpit.page)
        wait_for(lambda: page.evaluate("window.spiral.state().step") > 3, 30)
        (cookie,) = context.cookies()
        assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Strict")
        context.close()
    finally:
        if engine is not None:
            engine.terminate()
            engine.wait(30)
        finish(cockpit)


def test_a_certificate_that_cannot_be_used_is_named_before_anything_listens(tmp_path: Path) -> None:
    cert, _ = certificate(tmp_path)
    (tmp_path / "other").mkdir()
    _, key = certificate(tmp_path / "other")
    words = ["serve", "--port", "0", "--logdir", str(tmp_path / "runs"), "--tls-cert", str(cert), "--tls-key", str(key)]
    done = subprocess.run(
        [sys.executable, "-m", "spiral_server.cli", *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "cannot be used" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_behind_a_proxy_the_page_works_below_a_path_and_the_journal_names_the_caller(
    context: BrowserContext, tmp_path: Path
) -> None:
    cockpit = start(tmp_path / "runs", "serve", "--port", "0", "--root-path", "/spiral", "--trusted-proxy", "127.0.0.1")
    engine = train(cockpit)
    try:
        run: dict[str, Any] = wait_for(cockpit.run, 60, "for the run")
        with proxying(int(cockpit.url.rsplit(":", 1)[1]), "/spiral") as proxy:
            front = f"http://127.0.0.1:{proxy.port}/spiral"
            # Over what the proxy says is TLS the cookie is for TLS alone, and a browser takes it from loopback too.
            told = httpx.get(f"{front}/", params={"token": cockpit.token})
            assert "Path=/spiral" in told.headers["set-cookie"]
            assert "Secure" in told.headers["set-cookie"]
            page = opened(context, f"{front}/?token={cockpit.token}")
            wait_for(lambda: page.evaluate("window.spiral.state().step") > 3, 60)
            page.get_by_test_id("btn-pause").click()
            wait_for(lambda: cockpit.get(f"/api/runs/{run['id']}")["status"] == "paused", 20)
            (record,) = cockpit.get(f"/api/runs/{run['id']}/commands")["commands"]
            assert record["actor"] == "owner, 203.0.113.9"
            assert all(path.startswith("/spiral") for path in proxy.paths)
            page.close()
    finally:
        engine.terminate()
        engine.wait(30)
        finish(cockpit)
