"""Checks before a request's body is read: its token, and its size."""

import hmac
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lovelace_streams.api.page.session import Sessions

SAFE_METHODS = frozenset(["GET", "HEAD"])
PAGE_PATH = "/ui/"
FORM_BYTES_MAX = 64 * 1024
"""The page's forms are accepted from everybody, a login for example, so they are bounded more tightly."""
UNAUTHORIZED = "the request has no valid token: send the header Authorization: Bearer <PROGRESS_API_TOKEN>"


class TokenAuth:
    """Answers 401 without the token, and 413 past `body_max` bytes (announced or sent).

    A session of the page may `GET` what the token may. A session changes something only through the page's own forms,
    which carry a token of that session; the page checks its visitors itself.
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
        body_max = FORM_BYTES_MAX if scope["path"].startswith(PAGE_PATH) else self._body_max
        if not self._is_allowed(scope, headers):
            refusal = JSONResponse({"detail": UNAUTHORIZED}, 401, {"WWW-Authenticate": "Bearer"})
            await refusal(scope, receive, send)
        elif _content_length(headers) > body_max:
            await JSONResponse({"detail": _too_large(body_max)}, 413)(scope, receive, send)
        else:
            await self._app(scope, self._limited(receive, body_max), send)

    def _is_allowed(self, scope: Scope, headers: Headers) -> bool:
        if scope["path"].startswith(PAGE_PATH) or self._is_open(scope["path"]):
            return True
        if hmac.compare_digest(headers.get("authorization", "").encode("latin-1"), self._token):
            return True
        return scope["method"] in SAFE_METHODS and self._sessions.of(headers.get("cookie", "")) is not None

    def _limited(self, receive: Receive, body_max: int) -> Receive:
        """Count the bytes that arrive, because a chunked body announces no length."""
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
    return f"the body is larger than {body_max} bytes: send it in several requests"


def _content_length(headers: Headers) -> int:
    announced = headers.get("content-length", "")
    return int(announced) if announced.isascii() and announced.isdigit() else 0
