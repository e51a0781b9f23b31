"""What is where on the page. Who has no session logs in first; who changes something does so by a form of ours."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import psycopg
import structlog
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.sse import format_sse_event
from psycopg_pool import PoolClosed, PoolTimeout
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from lovelace_streams.api.events import Subscription, comment, event_stream
from lovelace_streams.api.ledger import Conflict, UnknownJob
from lovelace_streams.api.models import JOB_ID, CloseJob, Status
from lovelace_streams.api.page.failures import add_failures
from lovelace_streams.api.page.html import Protected, base
from lovelace_streams.api.page.session import COOKIE
from lovelace_streams.api.page.shown import ShownJob, by_pipeline
from lovelace_streams.api.page.visit import (
    JobIdPath,
    NoSession,
    NotOurForm,
    Page,
    Signed,
    TextQuery,
    fields_of,
    keep,
    session_of,
)
from lovelace_streams.api.signals import resend
from lovelace_streams.api.store import Store

log = structlog.get_logger(__name__)

TICK = 2.0
"""Seconds after which a stream says anew what moves: a rate falls also when nothing comes."""
PAGE = 25
"""Jobs of one page."""


def create_page(page: Page) -> FastAPI:
    """The application at `/ui`."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.state.page = page
    app.add_middleware(Protected)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))
    _errors(app, page)
    _login(app, page)
    _jobs(app, page)
    _partitions(app, page)
    add_failures(app, page)
    _events(app, page)
    return app


def _errors(app: FastAPI, page: Page) -> None:
    def says(status: int, title: str, text: str) -> Any:
        async def answer(request: Request, _error: Exception) -> Response:
            session = page.sessions.of(request.headers.get("cookie", ""))
            return page.pages.render(request, "error", session, status, title=title, text=text)

        return answer

    @app.exception_handler(NoSession)
    async def login_first(request: Request, _error: NoSession) -> Response:
        wanted = request.url.path.removeprefix(base(request))
        to = f"{base(request)}/login"
        return RedirectResponse(f"{to}?next={wanted}" if request.method == "GET" and wanted != "/jobs" else to, 303)

    @app.exception_handler(Conflict)
    async def conflict(request: Request, error: Conflict) -> Response:
        answer: Response = await says(409, "That cannot be done", f"{error}.")(request, error)
        return answer

    app.add_exception_handler(NotOurForm, says(403, "Please try again", "This form was not made for your session."))
    app.add_exception_handler(UnknownJob, says(404, "No such job", "Nobody has opened a job with this id."))
    app.add_exception_handler(HTTPException, says(404, "Nothing here", "This page does not exist."))
    app.add_exception_handler(RequestValidationError, says(422, "That cannot be", "A field or a filter is wrong."))
    app.add_exception_handler(ValidationError, says(422, "That cannot be", "A field is empty, or too long."))
    away = says(503, "The database is away", "Nothing is lost. Please try again in a moment.")
    for fault in (psycopg.Error, PoolTimeout, PoolClosed, TimeoutError):
        app.add_exception_handler(fault, away)


def _login(app: FastAPI, page: Page) -> None:
    router = APIRouter()

    @router.get("/")
    async def home(request: Request) -> Response:
        return RedirectResponse(f"{base(request)}/jobs", 303)

    @router.get("/login")
    async def login_form(request: Request, next: TextQuery = None) -> Response:  # noqa: A002 - as the form calls it
        return page.pages.render(request, "login", None, next=next, refused=None)

    @router.post("/login")
    async def login(request: Request) -> Response:
        fields = await fields_of(request)
        wanted = fields.get("next", "")
        if (refused := page.refusal(request, page.sessions.is_token(fields.get("token", "").strip()))) is not None:
            answer = page.pages.render(request, "login", None, refused.status, next=wanted, refused=refused.text)
            if refused.wait:
                answer.headers["Retry-After"] = str(refused.wait)
            return answer
        entry = RedirectResponse(base(request) + (wanted if is_own_path(wanted) else "/jobs"), 303)
        keep(request, entry, page.sessions.issue())
        return entry

    @router.post("/logout")
    async def logout(request: Request) -> Response:
        await page.form(request)
        answer = RedirectResponse(f"{base(request)}/login", 303)
        answer.delete_cookie(COOKIE, path="/")
        return answer

    app.include_router(router)


def _jobs(app: FastAPI, page: Page) -> None:
    store = page.store
    router = APIRouter()

    @router.get("/jobs")
    async def jobs(
        request: Request,
        session: Signed,
        status: Annotated[str, Query(pattern=f"^({'|'.join(Status)})?$")] = "",
        source: TextQuery = None,
        before: Annotated[str | None, Query(pattern=JOB_ID)] = None,
    ) -> Response:
        """Jobs, the newest first."""
        found = await store.page(Status(status) if status else None, source or None, PAGE, before)
        return page.pages.render(
            request,
            "jobs",
            session,
            jobs=[(job, page.show(job)) for job in found.jobs],
            counts=await overview(store),
            statuses=list(Status),
            filters={"status": status or None, "source": source or None},
            before=before,
            next=found.next,
        )

    @router.get("/jobs/{job_id}")
    async def job(request: Request, session: Signed, job_id: JobIdPath) -> Response:
        """One job, with what each pipeline reported of each attempt."""
        detail = await store.detail(job_id)
        counters = await store.query("counters", {"job_id": job_id})
        reasons = await store.failure_reasons({"pipeline": None, "job_id": job_id, "attempt": detail.attempt})
        return page.pages.render(
            request, "job", session, job=detail, shown=page.show(detail), counters=counters, reasons=reasons.reasons
        )

    @router.post("/jobs/{job_id}/close")
    async def close(request: Request, job_id: JobIdPath) -> Response:
        """End a job by hand, and signal."""
        fields = await page.form(request)
        await store.close(job_id, CloseJob(reason=fields.get("reason", "").strip()).reason)
        return RedirectResponse(f"{base(request)}/jobs/{job_id}", 303)

    @router.post("/jobs/{job_id}/signal")
    async def signal(request: Request, job_id: JobIdPath) -> Response:
        """Send an undeliverable signal again."""
        await page.form(request)
        await resend(store, job_id)
        return RedirectResponse(f"{base(request)}/jobs/{job_id}", 303)

    app.include_router(router)


def _partitions(app: FastAPI, page: Page) -> None:
    @app.get("/partitions")
    async def partitions(request: Request, session: Signed, pipeline: TextQuery = None) -> Response:
        """Where workers stand, as they said last."""
        found = (await page.store.standings(pipeline or None)).partitions
        return page.pages.render(
            request, "partitions", session, pipelines=by_pipeline(found), wanted=pipeline or "", now=datetime.now(UTC)
        )


def _events(app: FastAPI, page: Page) -> None:
    async def all_jobs() -> AsyncIterator[Subscription]:
        with page.events.subscribe() as subscription:
            yield subscription

    @app.get("/events", dependencies=[Depends(session_of)])
    async def events(subscription: Annotated[Subscription, Depends(all_jobs)]) -> Response:
        """Jobs as they change, in the page's words."""
        return event_stream(moving(page, subscription))


async def moving(page: Page, subscription: Subscription) -> AsyncIterator[bytes]:
    """First what moved lately, then every change; a job that moves again every two seconds, while its rate changes."""
    told: dict[str, ShownJob] = {}
    states = page.paces.states
    yield comment("listening")
    while not subscription.ended:
        for state in states:
            shown = page.show(state)
            if told.get(state.job_id) != shown:
                told[state.job_id] = shown
                yield format_sse_event(event="job", data_str=msgspec.json.encode(shown).decode())
        taken = await subscription.take(TICK)
        states = taken or page.paces.states
        if taken:
            await asyncio.sleep(0.1)  # a browser is not told more than ten times a second
        else:
            told = {state.job_id: told[state.job_id] for state in states if state.job_id in told}
            yield comment("still here")


async def overview(store: Store) -> dict[str, dict[str, int]]:
    """Jobs by status, signals by state."""
    counts: dict[str, dict[str, int]] = {
        "jobs": dict.fromkeys(Status, 0),
        "signals": {"pending": 0, "sent": 0, "undeliverable": 0},
        "items": {},
        "unknown_jobs": {},
    }
    for row in await store.query("gauges"):
        counts[row["gauge"]][row["label"]] = int(row["value"])
    return counts


def is_own_path(path: str) -> bool:
    """Whether it leads to a page of ours, wherever a link had it from."""
    return path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
