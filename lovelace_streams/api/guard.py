"""What is decided about a request before its body is read: who asks, and how much they send."""

import hmac
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Guard:
    """401 without the token, 413 past `body_max` bytes (said or sent)."""

    def __init__(self, app: ASGIApp, *, token: str, body_max: int, is_open: Callable[[str], bool]) -> None:
        self._app = app
        self._token = f"Bearer {token}".encode()
        self._body_max = body_max
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("authorization", "").encode("latin-1")
        if not (self._is_open(scope["path"]) or hmac.compare_digest(given, self._token)):
            refusal = JSONResponse({"detail": "no token, or not this one"}, 401, {"WWW-Authenticate": "Bearer"})
            await refusal(scope, receive, send)
        elif _length(headers) > self._body_max:
            await JSONResponse({"detail": self._too_large}, 413)(scope, receive, send)
        else:
            await self._app(scope, self._limited(receive), send)

    @property
    def _too_large(self) -> str:
        return f"a body holds at most {self._body_max} bytes"

    def _limited(self, receive: Receive) -> Receive:
        """A chunked body says no length: count what comes."""
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._body_max:
                raise HTTPException(413, self._too_large)
            return message

        return limited


def _length(headers: Headers) -> int:
    said = headers.get("content-length", "")
    return int(said) if said.isascii() and said.isdigit() else 0
