"""``/docs``: the description of the HTTP interface as a page for people.

Made from the OpenAPI document when it is asked for. The usual viewers load their scripts from elsewhere, or bring a
megabyte of them; this page needs no script at all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from string import Template
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from spiral_server.live.tokens import Right
from spiral_server.routes.answers import Json
from spiral_server.routes.description import described
from spiral_server.routes.doors import NO_STORE, admit, answer

router = APIRouter(include_in_schema=False)

_PAGE = Template("""<!doctype html><html lang="en"><meta charset="utf-8"><title>$title over HTTP</title>
<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,"><style>
:root{color-scheme:light dark;--line:#8884;--soft:#8881}
body{font:15px/1.55 system-ui,sans-serif;max-width:62rem;margin:0 auto;padding:1.5rem 1rem 6rem}
h1{font-size:1.6rem;margin:.5rem 0}
h2{font-size:1.15rem;margin:2.5rem 0 .5rem;border-top:1px solid var(--line);padding-top:1.2rem}
h3{font-size:.95rem;margin:1.2rem 0 .3rem}code,pre{font:13px/1.5 ui-monospace,monospace}
pre{background:var(--soft);border:1px solid var(--line);border-radius:6px;padding:.7rem .9rem;overflow:auto;
margin:.4rem 0}
table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;padding:.3rem .8rem .3rem 0;
border-bottom:1px solid var(--line)}th{font-weight:600}td p{margin:0}nav ul{list-style:none;padding:0;columns:2 20rem}
nav li{margin:.15rem 0;break-inside:avoid}a{color:inherit;text-underline-offset:.2em}
.verb{display:inline-block;min-width:3.2em;font:600 12px/1.7 ui-monospace,monospace;text-align:center;border-radius:4px;
color:#fff;background:#2563a8;margin-right:.5em}.verb.post{background:#2c7a4b}summary{cursor:pointer;padding:.15rem 0}
</style><body><header><h1>$title $version over HTTP</h1><p>$words</p>
<p>For programs: <a href="openapi.json">openapi.json</a>, OpenAPI $openapi.</p></header>
<nav aria-label="Contents"><ul>$contents</ul></nav>
<main>$routes<h2 id="schemas">Schemas</h2>$schemas</main></body></html>
""")


@router.get("/docs")
async def reference(request: Request) -> Response:
    """Give the description of the HTTP interface as a page."""
    admit(request, Right.WATCH)
    root = request.scope.get("root_path", "").rstrip("/")
    return HTMLResponse(rendered(described(request.app), f"{_origin(request)}{root}"), headers=NO_STORE)


@router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    """Give the description of the HTTP interface as a document for programs."""
    admit(request, Right.WATCH)
    return answer(described(request.app))


def _origin(request: Request) -> str:
    return f"{request.url.scheme}://{request.headers['host']}"


def rendered(document: Json, url: str) -> str:
    """Write an OpenAPI document as HTML.

    Parameters
    ----------
    document : dict
        Of `described`; a part that it lacks is left out.
    url : str
        Address of the server, for the examples.
    """
    told = [(path, method, one) for path, methods in document["paths"].items() for method, one in methods.items()]
    schemas = document["components"]["schemas"]
    contents = [
        f'<li><a href="#{_anchor(path, method)}">{_verb(method)}<code>{escape(path)}</code></a></li>'
        for path, method, _ in told
    ]
    return _PAGE.substitute(
        title=escape(document["info"]["title"]),
        version=escape(document["info"]["version"]),
        words=_words(document["info"].get("description", "")),
        openapi=escape(document["openapi"]),
        contents="".join([*contents, '<li><a href="#schemas">Schemas</a></li>']),
        routes="".join(_route(path, method, one, url) for path, method, one in told),
        schemas="".join(_schema(name, one) for name, one in sorted(schemas.items())),
    )


def _anchor(path: str, method: str) -> str:
    return escape(method + path.replace("/", "-").replace("{", "").replace("}", ""))


def _verb(method: str) -> str:
    return f'<span class="verb {escape(method)}">{escape(method.upper())}</span>'


def _words(text: str) -> str:
    """Write plain words, in which `backticks` mean code."""
    parts = escape(text, quote=False).split("`")
    return "".join(f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts))


def _json(value: object) -> str:
    return f"<pre>{escape(json.dumps(value, indent=2, ensure_ascii=False), quote=False)}</pre>"


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Write a table of cells that are HTML already."""
    head = "".join(f'<th scope="col">{one}</th>' for one in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _kind(schema: Json) -> str:
    """Say in a few words what a schema lets through; structs are links."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[-1])
        return f'<a href="#schema-{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return ", ".join(f"<code>{escape(json.dumps(one))}</code>" for one in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    if schema.get("type") == "object" and schema.get("properties"):
        inner = ", ".join(f"<code>{escape(name)}</code>: {_kind(one)}" for name, one in schema["properties"].items())
        return f"object with {inner}"
    return escape(str(schema.get("type", "anything")))


def _route(path: str, method: str, told: Json, url: str) -> str:
    """Write what one request asks for and may be answered."""
    parts = [
        f'<section><h2 id="{_anchor(path, method)}">{_verb(method)}<code>{escape(path)}</code></h2>',
        f"<p>{_words(told['description'])}</p>",
    ]
    if told.get("parameters"):
        rows = [_parameter(one) for one in told["parameters"]]
        parts += ["<h3>Parameters</h3>", _table(("name", "in", "takes", "default"), rows)]
    body = told.get("requestBody", {}).get("content", {}).get("application/json")
    if body:
        parts += [f"<h3>Body: {_kind(body['schema'])}</h3>", _json(body["example"])]
    parts += [
        "<h3>Example</h3>",
        f"<pre>{escape(_curl(path, method, told, url), quote=False)}</pre>",
        "<h3>Answers</h3>",
    ]
    for status, one in told["responses"].items():
        content = one["content"]["application/json"]
        parts.append(
            f"<details{' open' if status == '200' else ''}><summary><code>{escape(status)}</code> "
            f"{_words(one['description'])} {_kind(content['schema'])}</summary>{_json(content['example'])}</details>"
        )
    return "".join([*parts, "</section>"])


def _parameter(told: Json) -> tuple[str, ...]:
    schema = told.get("schema", {})
    default = f"<code>{escape(json.dumps(schema['default']))}</code>" if "default" in schema else ""
    name = f"<code>{escape(told['name'])}</code>"
    return name, escape(told["in"]), _kind(schema), "needed" if told.get("required") else default


def _curl(path: str, method: str, told: Json, url: str) -> str:
    """Give a command for a shell that sends the request; RUN and TOKEN are variables of the shell."""
    words = ['curl -sS -H "Authorization: Bearer $TOKEN"']
    body: Any = told.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
    data = [] if body is None else [f"-d '{json.dumps(body)}'"]
    if method != "get":
        words.append(" ".join([f"  -X {method.upper()}", *data]))
    words.append(f'  "{url}{path.replace("{run}", "$RUN")}"')
    return " \\\n".join(words)


def _schema(name: str, schema: Json) -> str:
    """Write the fields of one struct."""
    head = f'<section><h3 id="schema-{escape(name)}">{escape(name)}</h3><p>{_words(schema.get("description", ""))}</p>'
    needed = schema.get("required", [])
    rows = [
        (
            f"<code>{escape(field)}</code>",
            _kind(one),
            "needed" if field in needed else "",
            _words(one.get("description", "")),
        )
        for field, one in schema.get("properties", {}).items()
    ]
    return head + (_table(("field", "takes", "", ""), rows) if rows else f"<p>{_kind(schema)}</p>") + "</section>"
