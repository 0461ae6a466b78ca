"""Who may come in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiral_core.errors import ConfigError
from spiral_server.live import access
from spiral_server.live.access import Knock
from spiral_server.live.tokens import OWNER, Holder, Right, Role, TokenBook, TokenRecord, digest_of
from spiral_server.settings import Settings

SETTINGS = Settings(logdir=Path("runs"), instance="abc", host="192.0.2.7", allowed_hosts=("Cockpit.example.org",))


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
    assert refusal.status == (400 if host is None else 403)


def test_a_server_on_every_address_answers_to_addresses_but_not_to_foreign_names() -> None:
    settings = Settings(logdir=Path("runs"), host="0.0.0.0")
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
        ({}, None),
        ({"cookie": "spiral_abc=secret"}, "secret"),
        ({"cookie": "bad[]name=1; spiral_abc=secret; x=y"}, "secret"),
        ({"cookie": "spiral_abd=secret"}, None),
        ({"cookie": "spiral_abc="}, None),
        ({"authorization": "bearer secret"}, "secret"),
        ({"authorization": "Bearer wrong", "cookie": "spiral_abc=secret"}, "wrong"),
        ({"authorization": "Basic secret", "cookie": "spiral_abc=secret"}, ""),
    ],
)
def test_the_token_that_is_shown_is_found(headers: dict[str, str], shown: str | None) -> None:
    assert access.token_of(knock(**headers), SETTINGS) == shown


BOOK = TokenBook("secret", [TokenRecord(role.value, role, digest_of(f"of {role.value}"), 0.0) for role in Role])


def admission(token: str | None, right: Right) -> Holder | access.Refusal:
    return access.admission(token, None if token is None else BOOK.holder(token), right)


@pytest.mark.parametrize("token", [None, "", "wrong", digest_of("of viewer"), "\udcff"])
def test_who_shows_no_token_or_a_wrong_one_is_told_that_it_is_the_token(token: str | None) -> None:
    refusal = admission(token, Right.WATCH)
    assert isinstance(refusal, access.Refusal)
    assert (refusal.status, refusal.cause) == (401, "token")


@pytest.mark.parametrize(
    ("role", "rights"),
    [
        (Role.VIEWER, {Right.WATCH}),
        (Role.OPERATOR, {Right.WATCH, Right.STEER}),
        (Role.ENGINE, {Right.FEED}),
    ],
)
def test_a_role_may_do_what_it_is_for_and_nothing_else(role: Role, rights: set[Right]) -> None:
    assert admission("secret", Right.STEER) is OWNER
    for right in Right:
        admitted = admission(f"of {role.value}", right)
        if isinstance(admitted, access.Refusal):
            assert right not in rights
            assert (admitted.status, admitted.cause) == (403, "role")
        else:
            assert right in rights
            assert (admitted.name, admitted.role) == (role.value, role)


@given(st.text(max_size=300))
def test_no_claim_hides_who_it_was(claim: str) -> None:
    holder = BOOK.holder("of operator")
    assert holder is not None
    signature = holder.signature(claim, "192.0.2.7")
    assert signature.endswith("operator (operator), 192.0.2.7")
    assert len(signature) <= 120
    assert len(signature.splitlines()) == 1


@given(st.text(alphabet=st.characters(max_codepoint=255)), st.text(alphabet=st.characters(max_codepoint=255)))
def test_no_header_can_make_the_door_fail(one: str, other: str) -> None:
    shown = Knock(host=one, origin=other, authorization=other, cookie=one)
    assert access.host_refusal(one, SETTINGS) is None or access.origin_refusal(shown)
    assert isinstance(admission(access.token_of(shown, SETTINGS), Right.WATCH), access.Refusal)


def test_a_server_without_a_token_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="needs a token"):
        Settings(logdir=Path("runs"), token="")


def test_where_others_can_reach_the_server_a_short_token_is_refused() -> None:
    Settings(logdir=Path("runs"), token="short")
    with pytest.raises(ConfigError, match="at least 16"):
        Settings(logdir=Path("runs"), token="short", host="0.0.0.0")


@pytest.mark.parametrize(
    "wrong",
    [
        {"frame_ancestors": ("*; script-src *",)},
        {"frame_ancestors": ("https://a.example https://b.example",)},
        {"root_path": "spiral"},
        {"root_path": "/spiral/"},
        {"root_path": "/a\r\nSet-Cookie: x=y"},
        {"tls_cert": Path("cert.pem")},
    ],
)
def test_settings_that_cannot_be_used_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Settings(logdir=Path("runs"), **wrong)


def test_the_token_is_not_in_the_text_of_the_settings() -> None:
    assert "secret" not in repr(Settings(logdir=Path("runs"), token="secret"))
