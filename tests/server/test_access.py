"""Who may come in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiral_server.live import access
from spiral_server.live.access import Credential, Knock
from spiral_server.settings import Settings

SETTINGS = Settings(
    logdir=Path("runs"), token="secret", instance="abc", host="192.0.2.7", allowed_hosts=("Cockpit.example.org",)
)


def knock(**headers: str) -> Knock:
    every: dict[str, Any] = {"host": "localhost:1", "origin": None, "authorization": None, "cookie": None}
    return Knock(**every | headers)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:8787",
        "LOCALHOST:1",
        "[::1]",
        "[::1]:80",
        "192.0.2.7:80",
        "cockpit.example.org",
        "localhost.",
    ],
)
def test_our_own_names_are_answered_with_any_port(host: str) -> None:
    assert access.host_refusal(host, SETTINGS) is None


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:8787",
        "evil.example:80@localhost",
        "[::1",
        "::1",
        "localhost:http",
        "192.0.2.8",
        "localhost:1:2",
        "127.0.0.1 evil",
    ],
)
def test_foreign_and_malformed_hosts_are_refused(host: str | None) -> None:
    refusal = access.host_refusal(host, SETTINGS)
    assert refusal is not None
    assert refusal.status == 403


def test_a_server_on_every_address_answers_to_addresses_but_not_to_foreign_names() -> None:
    settings = Settings(logdir=Path("runs"), token="secret", host="0.0.0.0")
    assert access.host_refusal("198.51.100.4:8787", settings) is None
    assert access.host_refusal("rebound.example:8787", settings) is not None


@pytest.mark.parametrize("origin", ["http://localhost:1", "https://localhost:1", "HTTP://LOCALHOST:1"])
def test_our_own_page_may_come_in(origin: str) -> None:
    assert access.origin_refusal(knock(origin=origin)) is None


@pytest.mark.parametrize(
    "origin", ["null", "", "http://localhost", "http://localhost:2", "http://evil.example", "ftp://localhost:1"]
)
def test_a_foreign_origin_is_refused_even_with_the_token(origin: str) -> None:
    shown = knock(origin=origin, authorization="Bearer secret", cookie="spiral_abc=secret")
    refusal = access.origin_refusal(shown)
    assert refusal is not None
    assert refusal.status == 403


def test_without_an_origin_only_a_bearer_token_counts() -> None:
    assert access.origin_refusal(knock(authorization="Bearer secret")) is None
    assert access.origin_refusal(knock(cookie="spiral_abc=secret")) is not None
    assert access.origin_refusal(knock()) is not None


@pytest.mark.parametrize(
    ("headers", "shown"),
    [
        ({}, Credential.NONE),
        ({"cookie": "spiral_abc=secret"}, Credential.COOKIE),
        ({"cookie": "bad[]name=1; spiral_abc=secret; x=y"}, Credential.COOKIE),
        ({"cookie": "spiral_abd=secret"}, Credential.NONE),
        ({"cookie": "spiral_abc=wrong"}, Credential.WRONG),
        ({"authorization": "bearer secret"}, Credential.BEARER),
        ({"authorization": "Bearer wrong", "cookie": "spiral_abc=secret"}, Credential.WRONG),
        ({"authorization": "Basic secret"}, Credential.WRONG),
    ],
)
def test_a_credential_is_recognised(headers: dict[str, str], shown: Credential) -> None:
    assert access.credential(knock(**headers), SETTINGS) is shown
    refused = access.token_refusal(knock(**headers), SETTINGS)
    assert (refused is None) == (shown in (Credential.COOKIE, Credential.BEARER))


@given(st.text(alphabet=st.characters(max_codepoint=255)), st.text(alphabet=st.characters(max_codepoint=255)))
def test_no_header_can_make_the_door_fail(one: str, other: str) -> None:
    shown = Knock(host=one, origin=other, authorization=other, cookie=one)
    assert access.host_refusal(one, SETTINGS) is None or access.origin_refusal(shown)
    assert access.token_refusal(shown, SETTINGS)


def test_a_server_without_a_token_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="needs a token"):
        Settings(logdir=Path("runs"), token="")


def test_the_token_is_not_in_the_text_of_the_settings() -> None:
    assert "secret" not in repr(SETTINGS)
