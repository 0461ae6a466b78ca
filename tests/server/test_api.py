"""The runs over HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest

from spiral_core.wire import codec
from spiral_core.wire.messages import Stored
from spiral_server.routes.page import Shelf

from .house import House, courier, serving
from .saying import asking, frame, heat_maps, opening


async def tell(house: House) -> None:
    async with courier(house) as engine:
        frames = [frame(4 + step, step, [float(step), float("nan") if step == 5 else 1.0]) for step in range(100)]
        await engine.say(*opening(), *frames, heat_maps(104, 50), heat_maps(105, 90))
        await engine.next_of(Stored, lambda stored: stored.seq == 105)


@pytest.fixture(scope="module")
def http(shared: House) -> Iterator[httpx.Client]:
    asyncio.run(tell(shared))
    with shared.http() as client:
        yield client


def test_runs_are_listed_and_described(http: httpx.Client) -> None:
    (line,) = http.get("/api/runs").json()["runs"]
    assert (line["id"], line["name"], line["status"], line["step"]) == ("r1", "a run", "lost", 90)
    one = http.get("/api/runs/r1").json()
    assert line.items() <= one.items()
    assert one["started"]["config"] == {"lr": 0.1}
    assert [spec["name"] for spec in one["series"]] == ["train/s0", "train/s1"]
    assert (one["incarnation"], one["seq"], one["rev"]) == (0, 105, 0)


def test_series_are_given_by_name_range_and_width_with_nan_as_a_word(http: httpx.Client) -> None:
    answer = http.get("/api/runs/r1/series", params={"names": "train/s1", "from": 4, "to": 6}).json()
    (column,) = answer["series"]
    assert (column["name"], column["steps"], column["values"]) == ("train/s1", [4, 5, 6], [1.0, "NaN", 1.0])
    assert answer["damaged"] == []
    assert len(http.get("/api/runs/r1/series").json()["series"]) == 2
    assert len(http.get("/api/runs/r1/series?width=1").json()["series"][0]["steps"]) == 100


@pytest.mark.parametrize("query", ["from=x", "to=1.5", "width=0", "width=x"])
def test_a_question_that_makes_no_sense_is_told_so(http: httpx.Client, query: str) -> None:
    answer = http.get(f"/api/runs/r1/series?{query}")
    assert answer.status_code == 400
    assert query.split("=")[0] in answer.json()["error"]


def test_an_unknown_series_is_named(http: httpx.Client) -> None:
    answer = http.get("/api/runs/r1/series?names=train/s0,train/none")
    assert answer.status_code == 404
    assert "'train/none'" in answer.json()["error"]


def test_heat_maps_are_given_at_or_before_a_step(http: httpx.Client) -> None:
    found = [http.get(f"/api/runs/r1/heatmaps?step={step}").json()["heat_maps"] for step in (49, 50, 89, 90, 10**6)]
    assert [one and one["step"] for one in found] == [None, 50, 50, 90, 90]
    newest = http.get("/api/runs/r1/heatmaps").json()["heat_maps"]
    assert (newest["step"], newest["energy_over_area"], len(newest["maps"][0])) == (90, ["NaN"], 4)


def test_a_refused_command_says_why_and_stands_in_the_journal(http: httpx.Client) -> None:
    answer = http.post("/api/runs/r1/commands", content=codec.to_json(asking("c1", 7.0)))
    assert answer.status_code == 422
    assert "out of bounds" in answer.json()["error"]
    assert answer.json()["record"]["state"] == "rejected"
    record = http.get("/api/runs/r1/commands").json()["commands"][-1]
    assert record == answer.json()["record"]
    again = http.post("/api/runs/r1/commands", content=codec.to_json(asking("c1", 0.5)))
    assert (again.status_code, again.json()) == (200, record)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"id": "a"}',
        b'{"id": "a", "verb": "explode"}',
        b'{"id": "", "verb": "pause"}',
        b'{"id": "a", "verb": "pause", "surprise": 1}',
        b'{"id": "a", "verb": "pause", "source": "guard"}',
        b'{"id": "a", "verb": "set", "sets": [{"knob": "optim.lr", "value": null}]}',
        b"\xff\xfe",
        b"[" * 60_000,
    ],
)
def test_a_body_that_is_no_command_is_refused(http: httpx.Client, body: bytes) -> None:
    before = http.get("/api/runs/r1/commands").json()
    answer = http.post("/api/runs/r1/commands", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert http.get("/api/runs/r1/commands").json() == before


def test_an_oversized_body_is_refused(http: httpx.Client) -> None:
    answer = http.post("/api/runs/r1/commands", content=b" " * (64 * 1024 + 1))
    assert answer.status_code == 413


@pytest.mark.parametrize("value", ['"NaN"', '"Infinity"', "true", "1e999", "-1"])
def test_no_value_outside_the_table_gets_through(http: httpx.Client, value: str) -> None:
    body = f'{{"id": "{uuid4()}", "verb": "set", "sets": [{{"knob": "optim.lr", "value": {value}}}]}}'
    assert http.post("/api/runs/r1/commands", content=body).status_code in (400, 422)


@pytest.mark.parametrize("run", ["none", "..", "../../etc", "%2e%2e", ".hidden", "a b", "catalog.db", "r1\n", "\0"])
def test_an_unknown_run_is_not_found_and_says_where_to_look(http: httpx.Client, run: str) -> None:
    for path in ("", "/series", "/knobs", "/commands", "/heatmaps", "/checkpoints"):
        answer = http.get(f"/api/runs/{quote(run, safe='')}{path}")
        assert answer.status_code == 404
        assert answer.json()["error"]
    assert http.post(f"/api/runs/{quote(run, safe='')}/commands", content=codec.to_json(asking())).status_code == 404


def test_an_error_that_nobody_foresaw_tells_nothing_and_carries_the_headers(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("inner detail")

    monkeypatch.setattr(type(house.app.state.hub), "summaries", fail)
    with house.http() as client:
        answer = client.get("/api/runs")
    assert answer.status_code == 500
    assert "inner detail" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_parts_of_the_page_are_kept_for_good_and_compressed(shared: House) -> None:
    address = f"{shared.url}/assets/index-Abc12345.js"
    answer = httpx.get(address)
    assert answer.status_code == 200
    assert answer.text.startswith("// code")
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["content-encoding"] == "gzip"
    assert "javascript" in answer.headers["content-type"]
    plain = httpx.get(address, headers={"Accept-Encoding": "identity"})
    assert plain.content == answer.content
    unchanged = httpx.get(address, headers={"If-None-Match": answer.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")


@pytest.mark.parametrize("path", ["../secret", "..%2f..%2fsecret", "%2e%2e/%2e%2e/secret", "/etc/passwd", "%00", "."])
def test_no_path_leads_out_of_the_page(shared: House, path: str) -> None:
    answer = httpx.get(f"{shared.url}/assets/{path}")
    assert answer.status_code == 404
    assert "secret" not in answer.text.replace("../secret", "")


def test_plotly_comes_from_its_package(shared: House) -> None:
    answer = httpx.get(f"{shared.url}/plotly.min.js")
    assert answer.status_code == 200
    assert "plotly.js" in answer.text[:200]
    assert answer.headers["content-encoding"] == "gzip"
    unchanged = httpx.get(f"{shared.url}/plotly.min.js", headers={"If-None-Match": answer.headers["etag"]})
    assert unchanged.status_code == 304


def test_a_server_behind_a_prefix_and_without_a_page_says_so(tmp_path: Path) -> None:
    with serving(tmp_path, root_path="/spiral", page_dir=tmp_path / "none") as house:
        answer = httpx.get(f"{house.url}/?token=correct-horse")
        assert answer.status_code == 503
        assert "has not been built" in answer.text
        assert httpx.get(f"{house.url}/healthz").text == "ok\n"
        page = tmp_path / "none"
        page.mkdir()
        (page / "index.html").write_text("built meanwhile")
        answer = httpx.get(f"{house.url}/?token=correct-horse")
        assert answer.text == "built meanwhile"
        assert "Path=/spiral" in answer.headers["set-cookie"]


def test_no_answer_waits_for_the_acknowledgement_of_its_own_head(http: httpx.Client) -> None:
    times = []
    for _ in range(15):
        began = time.monotonic()
        http.get("/api/runs")
        times.append(time.monotonic() - began)
    # Nagle's algorithm against a delayed acknowledgement makes it 40 ms.
    assert sorted(times)[7] < 0.025


def test_a_file_is_read_once_and_again_when_it_has_changed(tmp_path: Path) -> None:
    async def story() -> None:
        shelf, path = Shelf(), tmp_path / "a.js"
        path.write_text("one")
        first = await shelf.part(path)
        assert await shelf.part(path) is first
        path.write_text("other")
        second = await shelf.part(path)
        assert second is not None
        assert second.plain == b"other"
        assert await shelf.part(tmp_path) is None

    asyncio.run(story())


@pytest.mark.parametrize("question", ["series?from={}", "series?to={}", "heatmaps?step={}"])
@pytest.mark.parametrize("step", [-(2**80), -(2**53), 2**53, 2**80])
def test_a_step_that_no_database_takes_is_a_question_that_makes_no_sense(
    http: httpx.Client, question: str, step: int
) -> None:
    answer = http.get(f"/api/runs/r1/{question.format(step)}")
    assert answer.status_code == 400
    assert question[:-3].split("?")[1] in answer.json()["error"]
    assert http.get(f"/api/runs/r1/{question.format(2**53 - 1)}").status_code == 200
