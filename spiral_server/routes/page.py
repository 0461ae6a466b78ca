"""The page and its parts: built files of the front end, and Plotly from its installed package."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import importlib.util
import mimetypes
import re
from dataclasses import dataclass
from html import escape
from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from spiral_server.live import access
from spiral_server.live.tokens import Right
from spiral_server.routes.doors import NO_STORE, RefusedError, Visitor, admit, settings_of, trouble
from spiral_server.settings import Settings

router = APIRouter(include_in_schema=False)

PACKAGE_PAGE = Path(__file__).parent.parent / "page"
FOREVER = "public, max-age=31536000, immutable"
"""For files whose name changes with their content."""
ASK_AGAIN = "no-cache"
_HASHED = re.compile(r"-[A-Za-z0-9_-]{8,}\.[a-z0-9.]+$")
"""How Vite names a file after its content."""
_TEXT = re.compile(r"^(text/|application/(javascript|json)|image/svg)")
GZIP_FROM = 2048
"""Bytes from which compressing is worth its while."""

_NOTICE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Spiral</title>
<meta name="viewport" content="width=device-width"><style>
body{{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:15vh auto;padding:0 1rem;color-scheme:light dark}}
code{{background:#8883;padding:.1em .3em;border-radius:.2em}}</style><h1>{title}</h1><p>{text}</p></html>"""


@dataclass(frozen=True)
class Part:
    """A file as it is sent."""

    stamp: tuple[int, int]
    """Time of change and size, to see that the file has been replaced."""
    plain: bytes
    packed: bytes | None
    kind: str
    etag: str


class Shelf:
    """Files that have been sent once, kept in memory: few, and small."""

    def __init__(self) -> None:
        self._parts: dict[Path, Part] = {}

    async def part(self, path: Path) -> Part | None:
        """Give a file; None when there is none."""
        return await asyncio.to_thread(self._read, path)

    def _read(self, path: Path) -> Part | None:
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            part = self._parts.get(path)
            if part is None or part.stamp != stamp:
                part = self._parts[path] = _part(path.read_bytes(), path.name, stamp)
        except (OSError, ValueError):
            return None
        return part


def _part(plain: bytes, name: str, stamp: tuple[int, int]) -> Part:
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    packed = gzip.compress(plain, 6, mtime=0) if _TEXT.match(kind) and len(plain) >= GZIP_FROM else None
    return Part(stamp, plain, packed, kind, f'"{hashlib.sha256(plain).hexdigest()[:24]}"')


def _send(request: Request, part: Part, caching: str) -> Response:
    headers = {"ETag": part.etag, "Cache-Control": caching, "Vary": "Accept-Encoding"}
    if part.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if part.packed is not None and "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(part.packed, media_type=part.kind, headers=headers)
    return Response(part.plain, media_type=part.kind, headers=headers)


def _notice(status: int, title: str, text: str) -> Response:
    return HTMLResponse(_NOTICE.format(title=escape(title), text=text), status, headers=NO_STORE)


def page_dir(settings: Settings) -> Path:
    """Tell where the built page is."""
    return settings.page_dir or PACKAGE_PAGE


@router.api_route("/", methods=["GET", "HEAD"])
async def page(request: Request, token: str | None = None) -> Response:
    """Give the page; with the token in the address, also the cookie that stands for it from then on."""
    settings = settings_of(request)
    try:
        visitor = _visitor(request, token)
    except RefusedError as error:
        return _turned_away(error)
    part = await _shelf(request).part(page_dir(settings) / "index.html")
    if part is None:
        return _notice(
            503,
            "The page has not been built",
            "Run <code>pip install .</code> in the checkout, or install the wheel, which brings the built page.",
        )
    response = Response(part.plain, media_type="text/html", headers=NO_STORE)
    if visitor.token == token:
        response.set_cookie(
            access.cookie_name(settings),
            token,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
            path=settings.root_path or "/",
        )
    return response


def _visitor(request: Request, token: str | None) -> Visitor:
    """Let a browser in, by the token in the address or else by its cookie; a stale address does not shut out."""
    if token:
        try:
            return admit(request, Right.WATCH, token)
        except RefusedError as error:
            if error.status != 401:
                raise
    return admit(request, Right.WATCH)


def _turned_away(error: RefusedError) -> Response:
    if error.status == 403:
        return _notice(403, "This token does not open the page", escape(error.reason))
    return _notice(
        401,
        "Spiral does not know this browser",
        "Open the address that <code>spiral</code> printed when it started; it ends in <code>?token=…</code>. "
        "Whoever runs the server can make one for you: <code>spiral token new</code>.",
    )


@router.api_route("/assets/{name:path}", methods=["GET", "HEAD"])
async def asset(request: Request, name: str) -> Response:
    """Give a part of the page; parts hold nothing secret."""
    root = (page_dir(settings_of(request)) / "assets").resolve()
    try:
        path = (root / name).resolve()
        inside = path.is_relative_to(root)
    except ValueError:  # a null byte
        inside = False
    part = await _shelf(request).part(path) if inside else None
    if part is None:
        return trouble(404, "there is no such part of the page")
    return _send(request, part, FOREVER if _HASHED.search(name) else ASK_AGAIN)


@router.api_route("/plotly.min.js", methods=["GET", "HEAD"])
async def plotly(request: Request) -> Response:
    """Give Plotly out of its installed package, so that it is never shipped twice."""
    path = _plotly_path()
    part = None if path is None else await _shelf(request).part(path)
    if part is None:
        return trouble(404, "Plotly is not installed: pip install plotly")
    return _send(request, part, ASK_AGAIN)


def _plotly_path() -> Path | None:
    # Found, not imported: importing Plotly takes longer than starting this server.
    spec = importlib.util.find_spec("plotly")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "package_data" / "plotly.min.js"


def _shelf(request: Request) -> Shelf:
    shelf: Shelf = request.app.state.shelf
    return shelf
