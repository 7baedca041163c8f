"""The files that Gradio's page is made of, kept in memory: one load of the page asks for up to a hundred.

Gradio reads each from disk anew and compresses it anew, in the one thread that also serves everything else.
Their names hold a digest of what is in them: what was sent once can be sent again, and no browser need ask
twice.
"""

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

ASSET = re.compile(r"/assets/[\w-][\w.-]*\.(?:js|css|svg)")
"""Addresses of such files, and none that say the same in other words: there are as many as files."""

CONDITIONS = (b"accept-encoding", b"range", b"if-range", b"if-none-match", b"if-modified-since")
"""Headers by which an answer is not the whole file as it is."""

SMALLEST, QUALITY = 400, 4
"""Bytes from which on a file is compressed, and how well; as Gradio does it."""


class KeptAssets:
    """Middleware: such a file is read and compressed once."""

    def __init__(self, app: ASGIApp):
        self.app = app
        self._kept: dict[tuple[str, bool], list[Message]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET" or not ASSET.fullmatch(scope["path"]):
            await self.app(scope, receive, send)
            return
        brotli = b"br" in dict(scope["headers"]).get(b"accept-encoding", b"")
        answer = self._kept.get((scope["path"], brotli))
        if answer is None:
            answer = await self._whole(scope, receive, brotli)
            if answer[0]["status"] == 200:
                self._kept[scope["path"], brotli] = answer
        for message in answer:
            await send(message)

    async def _whole(self, scope: Scope, receive: Receive, brotli: bool) -> list[Message]:
        """What the server behind sends, as a start and one body."""
        messages: list[Message] = []

        async def take(message: Message) -> None:
            messages.append(message)

        asked = [pair for pair in scope["headers"] if pair[0] not in CONDITIONS]
        await self.app(scope | {"headers": asked}, receive, take)
        start, body = messages[0], b"".join(each.get("body", b"") for each in messages[1:])
        if start["status"] != 200:
            return messages
        headers = [pair for pair in start["headers"] if pair[0].lower() == b"content-type"]
        headers += [(b"cache-control", b"public, max-age=31536000, immutable"), (b"vary", b"accept-encoding")]
        if brotli and len(body) >= SMALLEST:
            from brotli import compress  # comes with gradio

            body = compress(body, quality=QUALITY)
            headers.append((b"content-encoding", b"br"))
        headers.append((b"content-length", str(len(body)).encode()))
        return [start | {"headers": headers}, {"type": "http.response.body", "body": body}]
