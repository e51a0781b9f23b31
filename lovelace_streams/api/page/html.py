"""Templates and headers: all text is escaped, and a browser runs and loads nothing but the page's own files."""

from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lovelace_streams.api.page.formatting import FILTERS
from lovelace_streams.api.page.session import Session, Sessions

CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        *(f"{what}-src 'self'" for what in ("script", "style", "img", "connect")),
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class SecurityHeaders:
    """Adds the headers to every answer, errors too. Only static files may be stored by browsers and proxies."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-cache" if "/static/" in scope["path"] else "no-store")
            await send(message)

        await self._app(scope, receive, with_headers)


class Templates:
    """Renders templates, with the context that all of them need."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._templates = Environment(
            loader=PackageLoader("lovelace_streams.api.page"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(FILTERS)
        self._templates.globals["query"] = query

    def render(
        self, request: Request, name: str, session: Session | None, status: int = 200, **context: Any
    ) -> HTMLResponse:
        """Render the page `name`; `base` is the page's path, with a proxy's prefix if there is one."""
        text = self._templates.get_template(f"{name}.html").render(
            base=base(request),
            here=name,
            session=session,
            csrf="" if session is None else self._sessions.csrf(session),
            **context,
        )
        return HTMLResponse(text, status)


def base(request: Request) -> str:
    """Tell the path of the page's application."""
    return str(request.scope["root_path"])


def query(**values: Any) -> str:
    """Make the query `?a=b` of the values that are not None.

    >>> query(status="open", before=None), query()
    ('?status=open', '')
    """
    given = {name: value for name, value in values.items() if value is not None}
    return f"?{urlencode(given)}" if given else ""
