"""What all routes share: who looks, which forms are ours, and what is asked for to be shown."""

import asyncio
from typing import Annotated

import msgspec
import structlog
from fastapi import Depends, Query, Request, Response
from fastapi import Path as PathOf

from lovelace_streams.api.config import ApiSettings
from lovelace_streams.api.events import Events
from lovelace_streams.api.models import JOB_ID, TEXT, JobState
from lovelace_streams.api.page.html import Pages
from lovelace_streams.api.page.pace import Paces
from lovelace_streams.api.page.session import COOKIE, Session, Sessions, Throttle
from lovelace_streams.api.page.shown import ShownJob, show_job
from lovelace_streams.api.store import Store

log = structlog.get_logger(__name__)

JobIdPath = Annotated[str, PathOf(pattern=JOB_ID)]
TextQuery = Annotated[str | None, Query(max_length=255, pattern=f"{TEXT}|^$")]


class NoSession(Exception):  # noqa: N818 - an answer, not an accident
    """Whoever asks has to log in first."""


class NotOurForm(Exception):  # noqa: N818 - an answer, not an accident
    """A form without the token of its session: an old page, or another site's."""


class Refused(msgspec.Struct, frozen=True):
    """Why somebody does not get in."""

    status: int
    text: str
    wait: int = 0


class Page:
    """What the routes share."""

    def __init__(self, settings: ApiSettings, store: Store, events: Events, paces: Paces, sessions: Sessions) -> None:
        self.settings, self.store, self.events, self.paces, self.sessions = settings, store, events, paces, sessions
        self.pages = Pages(sessions)
        self.throttle = Throttle()
        self.looking_up = asyncio.Semaphore(1)
        self.offers_samples = bool(settings.samples_token)

    def session(self, request: Request) -> Session:
        """Raises `NoSession`."""
        session = self.sessions.of(request.headers.get("cookie", ""))
        if session is None:
            raise NoSession
        return session

    async def form(self, request: Request) -> dict[str, str]:
        """The fields of a form of this session. Raises `NoSession`, `NotOurForm`."""
        session = self.session(request)
        fields = await fields_of(request)
        if not self.sessions.is_csrf(session, fields.get("csrf", "")):
            raise NotOurForm
        return fields

    def refusal(self, request: Request, is_token: bool) -> "Refused | None":
        """What to say to who has just given a token; an address that gave many wrong ones has to wait."""
        address = request.client.host if request.client else ""
        if wait := self.throttle.wait(address):
            return Refused(429, f"Too many tries. Please wait {wait} s.", wait)
        if not is_token:
            self.throttle.failed(address)
            log.warning("a login was refused", address=address)
            return Refused(401, "This is not the token.")
        return None

    def show(self, state: JobState) -> ShownJob:
        """A job as it stands now."""
        return show_job(state, self.paces.of(state))


async def session_of(request: Request) -> Session:
    """For routes that somebody has to be logged in for."""
    page: Page = request.app.state.page
    return page.session(request)


Signed = Annotated[Session, Depends(session_of)]


async def fields_of(request: Request) -> dict[str, str]:
    """The fields of a form; a file is none."""
    form = await request.form(max_files=0, max_fields=20)
    return {name: value for name, value in form.items() if isinstance(value, str)}


def keep(request: Request, answer: Response, cookie: str) -> None:
    """Hand out a session: no script reads it, no other site's request carries it."""
    answer.set_cookie(COOKIE, cookie, path="/", httponly=True, samesite="strict", secure=request.url.scheme == "https")
