"""Shared by all routes of the page: the session, the check of forms and tokens, and the types of parameters."""

import asyncio
from typing import Annotated

import msgspec
import structlog
from fastapi import Depends, Query, Request, Response
from fastapi import Path as PathOf

from lovelace_streams.api.config import ApiSettings
from lovelace_streams.api.events import Events
from lovelace_streams.api.models import JOB_ID, TEXT, JobState
from lovelace_streams.api.page.formatting import JobView, job_view
from lovelace_streams.api.page.html import Templates
from lovelace_streams.api.page.rates import JobRates
from lovelace_streams.api.page.session import COOKIE, Session, Sessions, Throttle
from lovelace_streams.api.store import Store

log = structlog.get_logger(__name__)

JobIdPath = Annotated[str, PathOf(pattern=JOB_ID)]
TextQuery = Annotated[str | None, Query(max_length=255, pattern=f"{TEXT}|^$")]


class NoSessionError(Exception):
    """The visitor has to log in first."""


class CsrfError(Exception):
    """A form without the token of its session: it is of an earlier session, or of another site."""


class TokenRefusal(msgspec.Struct, frozen=True):
    """The answer to a token that is not accepted."""

    status: int
    text: str
    wait: int = 0


class PageContext:
    """The service's parts that the routes use."""

    def __init__(
        self, settings: ApiSettings, store: Store, events: Events, rates: JobRates, sessions: Sessions
    ) -> None:
        self.settings, self.store, self.events, self.rates, self.sessions = settings, store, events, rates, sessions
        self.templates = Templates(sessions)
        self.throttle = Throttle()
        self.samples_lock = asyncio.Semaphore(1)
        self.offers_samples = bool(settings.samples_token)

    def session(self, request: Request) -> Session:
        """Read the session of a request. Raises `NoSessionError`."""
        session = self.sessions.of(request.headers.get("cookie", ""))
        if session is None:
            raise NoSessionError
        return session

    async def form(self, request: Request) -> dict[str, str]:
        """Read the fields of a form of this session. Raises `NoSessionError`, `CsrfError`."""
        session = self.session(request)
        fields = await form_fields(request)
        if not self.sessions.is_csrf(session, fields.get("csrf", "")):
            raise CsrfError
        return fields

    def refusal(self, request: Request, is_token: bool) -> "TokenRefusal | None":
        """Refuse a wrong token, and any token of an address that gave too many wrong ones."""
        address = request.client.host if request.client else ""
        if wait := self.throttle.wait(address):
            return TokenRefusal(429, f"Too many tries. Please wait {wait} s.", wait)
        if not is_token:
            self.throttle.failed(address)
            log.warning("a login was refused", address=address)
            return TokenRefusal(401, "This is not the token.")
        return None

    def view(self, state: JobState) -> JobView:
        """Format a job with its rate now."""
        return job_view(state, self.rates.of(state))


async def session_of(request: Request) -> Session:
    """Require a session, for routes that need a login."""
    page: PageContext = request.app.state.page
    return page.session(request)


CurrentSession = Annotated[Session, Depends(session_of)]


async def form_fields(request: Request) -> dict[str, str]:
    """Read the fields of a form, without files."""
    form = await request.form(max_files=0, max_fields=20)
    return {name: value for name, value in form.items() if isinstance(value, str)}


def set_session_cookie(request: Request, answer: Response, cookie: str) -> None:
    """Set the session's cookie: no script can read it, and no request from another site carries it."""
    answer.set_cookie(COOKIE, cookie, path="/", httponly=True, samesite="strict", secure=request.url.scheme == "https")
