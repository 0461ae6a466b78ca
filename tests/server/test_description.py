"""The OpenAPI document: complete, and true of what the server answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from spiral_core.wire import codec
from spiral_core.wire.messages import CommandRecord, CommandRequest

from .asking import stored
from .house import House, courier
from .saying import ack, asking, checkpoint, frame, heat_maps, opening, strip

TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
    "array": list,
    "object": dict,
}


class Document:
    """The document, and what it says of a value."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content

    def schema(self, path: str, method: str, status: int) -> dict[str, Any]:
        found: dict[str, Any] = self.content["paths"][path][method]["responses"][str(status)]
        return found["content"]["application/json"]["schema"]

    def misfit(self, value: Any, schema: dict[str, Any], place: str = "$") -> str | None:
        """Tell where a value is not what the schema says; None when it fits."""
        if "$ref" in schema:
            return self.misfit(value, self.content["components"]["schemas"][schema["$ref"].split("/")[-1]], place)
        if "anyOf" in schema:
            found = [self.misfit(value, one, place) for one in schema["anyOf"]]
            return None if None in found else f"{place}: {found}"
        if "enum" in schema and value not in schema["enum"]:
            return f"{place}: {value!r} is none of {schema['enum']}"
        kind = schema.get("type")
        if kind is not None:
            good = isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))
            if not good and not (kind == "integer" and isinstance(value, float) and value.is_integer()):
                return f"{place}: {value!r} is no {kind}"
        if kind == "array":
            found = [self.misfit(one, schema.get("items", {}), f"{place}[{k}]") for k, one in enumerate(value)]
            return next((one for one in found if one is not None), None)
        if kind == "object":
            return self._misfit_of_object(value, schema, place)
        return None

    def _misfit_of_object(self, value: dict[str, Any], schema: dict[str, Any], place: str) -> str | None:
        properties, more = schema.get("properties", {}), schema.get("additionalProperties", True)
        missing = set(schema.get("required", [])) - set(value)
        unknown = set(value) - set(properties) if more is False else set()
        if missing or unknown:
            return f"{place}: missing {missing}, unknown {unknown}"
        parts = {name: properties.get(name, more if isinstance(more, dict) else {}) for name in value}
        found = [self.misfit(value[name], part, f"{place}.{name}") for name, part in parts.items()]
        return next((one for one in found if one is not None), None)


async def tell(house: House) -> None:
    async with courier(house) as engine:
        said = [
            frame(4, 1, [0.5, float("nan")]),
            strip(5, 1, 0.5),
            heat_maps(6, 1),
            ack(7, 1, "guard"),
            checkpoint(8, 1, "a"),
        ]
        await engine.say(*opening(), *said)
        await stored(engine, 8)


@pytest.fixture(scope="module")
def http(shared: House) -> Iterator[httpx.Client]:
    asyncio.run(tell(shared))
    with shared.http() as client:
        yield client


@pytest.fixture(scope="module")
def document(http: httpx.Client) -> Document:
    return Document(http.get("/openapi.json").json())


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        part = list(part.values())
    if isinstance(part, list):
        for one in part:
            yield from references(one)


def test_every_answer_has_a_schema_and_an_example_that_fits_it(document: Document) -> None:
    count = 0
    for path, methods in document.content["paths"].items():
        for method, told in methods.items():
            assert told["summary"]
            for status, answer in told["responses"].items():
                content = answer["content"]["application/json"]
                assert document.misfit(content["example"], content["schema"]) is None, (path, method, status)
                count += 1
    assert count > 30
    names = {f"#/components/schemas/{name}" for name in document.content["components"]["schemas"]}
    assert set(references(document.content)) <= names


def test_the_example_of_a_command_is_one(document: Document) -> None:
    post = document.content["paths"]["/api/runs/{run}/commands"]["post"]
    body = post["requestBody"]["content"]["application/json"]
    assert document.misfit(body["example"], body["schema"]) is None
    request = codec.from_json(codec.to_json(body["example"]), CommandRequest)
    record = post["responses"]["202"]["content"]["application/json"]["example"]
    assert codec.from_json(codec.to_json(record), CommandRecord).id == request.id


@pytest.mark.parametrize(
    "path",
    [
        "/api/runs",
        "/api/runs/{run}",
        "/api/runs/{run}/series",
        "/api/runs/{run}/knobs",
        "/api/runs/{run}/commands",
        "/api/runs/{run}/checkpoints",
        "/api/runs/{run}/heatmaps",
    ],
)
def test_what_the_server_gives_is_what_the_document_says(http: httpx.Client, document: Document, path: str) -> None:
    answer = http.get(path.format(run="r1"))
    assert answer.status_code == 200
    assert document.misfit(answer.json(), document.schema(path, "get", 200)) is None
    if "{run}" in path:
        missing = http.get(path.format(run="none"))
        assert document.misfit(missing.json(), document.schema(path, "get", 404)) is None


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (asking("c1"), 202),
        (asking("c1"), 200),
        (asking("c2", 99.0), 422),
        (replace(asking("c3"), expected_rev=0), 409),
        (replace(asking("c4"), at_step=2**60), 400),
    ],
)
def test_every_answer_to_a_command_is_what_the_document_says(
    http: httpx.Client, document: Document, request_: CommandRequest, status: int
) -> None:
    path = "/api/runs/{run}/commands"
    answer = http.post(path.format(run="r1"), content=codec.to_json(request_))
    assert answer.status_code == status
    assert document.misfit(answer.json(), document.schema(path, "post", status)) is None


def test_the_document_lists_every_route_of_the_interface_and_no_other(http: httpx.Client, document: Document) -> None:
    paths = set(document.content["paths"])
    assert len(paths) == 9
    assert all(path.startswith("/api/") for path in paths)
