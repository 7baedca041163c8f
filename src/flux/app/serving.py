"""The server: who may come in, what of the disk is served, and what a browser may fetch from elsewhere.

Files of runs are served below `runs/`, and nothing else of the disk but what the page itself has uploaded or
drawn. Requests to other hosts are refused on both sides: by the server, and by a policy that browsers keep.
Pages elsewhere that a browser shows get no answer, whatever cookies it has of this one.
"""

import io
import json
import mimetypes
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from PIL import Image
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flux.app.assets import KeptAssets
from flux.studies.folder import RECORD

POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' blob: data:",
        "worker-src 'self' blob:",
        "frame-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    )
)
"""What a browser may load: what this server sends, and nothing from another."""

NEVER = ("/proxy=", "/file=http:", "/file=https:", "/gradio_api/proxy=", "/gradio_api/file=http")
"""Ways in which Gradio would fetch from elsewhere for a reader."""

LONGEST_BODY = 4 * 2**20
"""Bytes of a request that is no upload; those of the page have some thousands."""

SHOWN = frozenset({".png", ".webp", ".jpg", ".json", ".csv", ".html", ".txt"})
"""Endings of a run's files that are served."""


class HomeOnly:
    """Middleware: nothing is fetched from other hosts, or by their pages, and browsers are told so."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        path = unquote(scope["path"]).replace(":/", ":")
        if any(path.startswith(("/" + each.lstrip("/"), each)) for each in NEVER):
            await PlainTextResponse("nothing is fetched from elsewhere", 403)(scope, receive, send)
            return
        if not _is_from_here(headers):
            await PlainTextResponse("pages elsewhere get no answer", 403)(scope, receive, send)
            return
        if scope["method"] == "POST" and not headers.get("content-type", "").startswith("multipart/"):
            body = await _read_body(receive)
            if body is None:
                await PlainTextResponse("more was sent than a page sends", 413)(scope, receive, send)
                return
            if _names_address(body):
                await PlainTextResponse("nothing is fetched from elsewhere", 403)(scope, receive, send)
                return
            receive = _again(body, receive)

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = [
                    (b"content-security-policy", POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        await self.app(scope, receive, told)


def _is_from_here(headers: Headers) -> bool:
    """Whether no page asks, or this one. Gradio answers all pages where it is not on a name of this machine.

    A proxy may ask by a name of its own, and then says by which it was asked: a page elsewhere cannot.
    """
    origin = headers.get("origin")
    names = {headers.get("host", "").lower(), headers.get("x-forwarded-host", "").lower()} - {""}
    return origin is None or urlsplit(origin.lower()).netloc in names


async def _read_body(receive: Receive) -> bytes | None:
    """All of a request's body; None for one that is too long."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > LONGEST_BODY:
            return None
        if not message.get("more_body"):
            return body


def _again(body: bytes, receive: Receive) -> Receive:
    """A body that was read, to be read once more; behind it, what comes."""
    rest = [{"type": "http.request", "body": body, "more_body": False}]

    async def read() -> Message:
        return rest.pop() if rest else await receive()

    return read


def _names_address(body: bytes) -> bool:
    """Whether a file in what was sent is an address, which Gradio would fetch for any of its components."""
    try:
        waiting = [json.loads(body)]
    except (ValueError, RecursionError):  # which no one reads
        return False
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            path = each.get("path")
            if isinstance(path, str) and path.strip().lower().startswith(("http:", "https:")):
                return True
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
    return False


def file_of_run(root: Path, path: str) -> Path | None:
    """The file of that name below the output folder, if it is a run's; None for any other, links followed.

    A run's are those in a folder with a `run.json`, or below it; not those whose names begin with a dot.
    """
    parts = path.split("/")
    if "\0" in path or "\\" in path or any(part in ("", "..") or part.startswith(".") for part in parts):
        return None
    root = root.resolve()
    file = (root / path).resolve()
    if not file.is_relative_to(root) or file.suffix.lower() not in SHOWN or not file.is_file():
        return None
    above = (folder for folder in file.parents if folder.is_relative_to(root))
    return file if any((folder / RECORD).is_file() for folder in above) else None


def without_texts(file: Path) -> bytes:
    """A PNG with its pixels alone."""
    stream = io.BytesIO()
    with Image.open(file) as image:
        clean = Image.frombytes(image.mode, image.size, image.tobytes())
    clean.save(stream, format="PNG")
    return stream.getvalue()


def routes(root: Path) -> list[Route]:
    """The routes of the page's own. root: the output folder."""

    def serve(request: Request) -> Response:
        if not _is_in(request):
            return PlainTextResponse("log in first", 401)
        file = file_of_run(root, request.path_params["path"])
        if file is None:
            return PlainTextResponse("no such file of a run", 404)
        if "bare" in request.query_params and file.suffix == ".png":
            return Response(without_texts(file), media_type="image/png")
        return FileResponse(file, media_type=mimetypes.guess_type(file.name)[0] or "text/plain")

    return [Route("/runs/{path:path}", serve)]


def _is_in(request: Request) -> bool:
    """Whether who asks has logged in, where that is asked for; as Gradio tells for its own routes."""
    app = request.app
    if getattr(app, "auth", None) is None:
        return True
    names = (f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}")
    return any(request.cookies.get(name) in app.tokens for name in names if name in request.cookies)


def app_kwargs(root: Path, host: str, *, is_local: bool) -> dict[str, Any]:
    """What Gradio's server is made with."""
    middleware = [Middleware(HomeOnly), Middleware(KeptAssets)]
    if is_local:  # a page elsewhere that a browser is led to by a name of its own gets no answer
        names = ["localhost", "127.0.0.1", "[::1]", host]
        middleware.insert(0, Middleware(TrustedHostMiddleware, allowed_hosts=names))
    return {"routes": routes(root), "middleware": middleware}
