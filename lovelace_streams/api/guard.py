"""What is decided about a request before its body is read: who asks, and how much they send."""

import hmac
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lovelace_streams.api.page.session import Sessions

SAFE = frozenset(["GET", "HEAD"])
PAGE = "/ui/"
FORM_MAX = 64 * 1024
"""Bytes of a form, which may come from anybody."""


class Guard:
    """401 without the token, 413 past `body_max` bytes (said or sent).

    A session of the page may read what the token may; what changes something it may do by the page's own forms only,
    which prove where they come from. The page judges by itself who looks at it.
    """

    def __init__(
        self, app: ASGIApp, *, token: str, sessions: Sessions, body_max: int, is_open: Callable[[str], bool]
    ) -> None:
        self._app = app
        self._sessions = sessions
        self._token = f"Bearer {token}".encode()
        self._body_max = body_max
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        body_max = FORM_MAX if scope["path"].startswith(PAGE) else self._body_max
        if not self._may(scope, headers):
            refusal = JSONResponse({"detail": "no token, or not this one"}, 401, {"WWW-Authenticate": "Bearer"})
            await refusal(scope, receive, send)
        elif _length(headers) > body_max:
            await JSONResponse({"detail": _too_large(body_max)}, 413)(scope, receive, send)
        else:
            await self._app(scope, self._limited(receive, body_max), send)

    def _may(self, scope: Scope, headers: Headers) -> bool:
        if scope["path"].startswith(PAGE) or self._is_open(scope["path"]):
            return True
        if hmac.compare_digest(headers.get("authorization", "").encode("latin-1"), self._token):
            return True
        return scope["method"] in SAFE and self._sessions.of(headers.get("cookie", "")) is not None

    def _limited(self, receive: Receive, body_max: int) -> Receive:
        """A chunked body says no length: count what comes."""
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > body_max:
                raise HTTPException(413, _too_large(body_max))
            return message

        return limited


def _too_large(body_max: int) -> str:
    return f"a body holds at most {body_max} bytes"


def _length(headers: Headers) -> int:
    said = headers.get("content-length", "")
    return int(said) if said.isascii() and said.isdigit() else 0
