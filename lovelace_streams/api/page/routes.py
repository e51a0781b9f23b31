"""The routes of the page. A visitor without a session logs in first; every change comes from a form of that session."""

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
from lovelace_streams.api.ledger import ConflictError, UnknownJobError
from lovelace_streams.api.models import JOB_ID, CloseJob, Status
from lovelace_streams.api.page.dependencies import (
    CsrfError,
    CurrentSession,
    JobIdPath,
    NoSessionError,
    PageContext,
    TextQuery,
    form_fields,
    session_of,
    set_session_cookie,
)
from lovelace_streams.api.page.failures import add_failures
from lovelace_streams.api.page.formatting import JobView, pipeline_views
from lovelace_streams.api.page.html import SecurityHeaders, base
from lovelace_streams.api.page.session import COOKIE
from lovelace_streams.api.signals import resend
from lovelace_streams.api.store import Store

log = structlog.get_logger(__name__)

RATE_SECONDS = 2.0
"""A stream sends the jobs that are moving again after this long, because a rate also falls while no report arrives."""
JOBS_MAX = 25
"""Jobs on one page."""


def create_page(page: PageContext) -> FastAPI:
    """Make the application at `/ui`."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.state.page = page
    app.add_middleware(SecurityHeaders)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))
    _add_errors(app, page)
    _add_login(app, page)
    _add_jobs(app, page)
    _add_partitions(app, page)
    add_failures(app, page)
    _add_events(app, page)
    return app


def _add_errors(app: FastAPI, page: PageContext) -> None:
    def error_page(status: int, title: str, text: str) -> Any:
        async def answer(request: Request, _error: Exception) -> Response:
            session = page.sessions.of(request.headers.get("cookie", ""))
            return page.templates.render(request, "error", session, status, title=title, text=text)

        return answer

    async def invalid(request: Request, error: Any) -> Response:
        names = ", ".join(dict.fromkeys(str(fault["loc"][-1]) for fault in error.errors()))
        text = f"Invalid: {names}. Choose what the form offers; a text has at most 255 characters."
        answer: Response = await error_page(422, "Invalid request", text)(request, error)
        return answer

    @app.exception_handler(NoSessionError)
    async def login_first(request: Request, _error: NoSessionError) -> Response:
        wanted = request.url.path.removeprefix(base(request))
        to = f"{base(request)}/login"
        return RedirectResponse(f"{to}?next={wanted}" if request.method == "GET" and wanted != "/jobs" else to, 303)

    @app.exception_handler(ConflictError)
    async def conflict(request: Request, error: ConflictError) -> Response:
        answer: Response = await error_page(409, "That cannot be done", f"{error}.")(request, error)
        return answer

    other_session = "This form was not made for your session. Load its page again, then send it."
    app.add_exception_handler(CsrfError, error_page(403, "Please try again", other_session))
    app.add_exception_handler(UnknownJobError, error_page(404, "No such job", "No job was opened with this id."))
    app.add_exception_handler(HTTPException, error_page(404, "Nothing here", "This page does not exist."))
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(ValidationError, invalid)
    away = error_page(503, "The database is away", "Nothing is lost. Please try again in a moment.")
    for fault in (psycopg.Error, PoolTimeout, PoolClosed, TimeoutError):
        app.add_exception_handler(fault, away)


def _add_login(app: FastAPI, page: PageContext) -> None:
    router = APIRouter()

    @router.get("/")
    async def home(request: Request) -> Response:
        return RedirectResponse(f"{base(request)}/jobs", 303)

    @router.get("/login")
    async def login_form(request: Request, next: TextQuery = None) -> Response:  # noqa: A002 - as the form calls it
        return page.templates.render(request, "login", None, next=next, refused=None)

    @router.post("/login")
    async def login(request: Request) -> Response:
        fields = await form_fields(request)
        wanted = fields.get("next", "")
        if (refused := page.refusal(request, page.sessions.is_token(fields.get("token", "").strip()))) is not None:
            answer = page.templates.render(request, "login", None, refused.status, next=wanted, refused=refused.text)
            if refused.wait:
                answer.headers["Retry-After"] = str(refused.wait)
            return answer
        entry = RedirectResponse(base(request) + (wanted if is_own_path(wanted) else "/jobs"), 303)
        set_session_cookie(request, entry, page.sessions.issue())
        return entry

    @router.post("/logout")
    async def logout(request: Request) -> Response:
        await page.form(request)
        answer = RedirectResponse(f"{base(request)}/login", 303)
        answer.delete_cookie(COOKIE, path="/")
        return answer

    app.include_router(router)


def _add_jobs(app: FastAPI, page: PageContext) -> None:
    store = page.store
    router = APIRouter()

    @router.get("/jobs")
    async def jobs(
        request: Request,
        session: CurrentSession,
        status: Annotated[str, Query(pattern=f"^({'|'.join(Status)})?$")] = "",
        source: TextQuery = None,
        before: Annotated[str | None, Query(pattern=JOB_ID)] = None,
    ) -> Response:
        """Jobs, the newest first."""
        found = await store.page(Status(status) if status else None, source or None, JOBS_MAX, before)
        return page.templates.render(
            request,
            "jobs",
            session,
            jobs=[(job, page.view(job)) for job in found.jobs],
            counts=await overview(store),
            statuses=list(Status),
            filters={"status": status or None, "source": source or None},
            before=before,
            next=found.next,
        )

    @router.get("/jobs/{job_id}")
    async def job(request: Request, session: CurrentSession, job_id: JobIdPath) -> Response:
        """One job, with what each pipeline reported of each attempt."""
        detail = await store.detail(job_id)
        counters = await store.query("counters", {"job_id": job_id})
        reasons = await store.failure_reasons({"pipeline": None, "job_id": job_id, "attempt": detail.attempt})
        return page.templates.render(
            request, "job", session, job=detail, view=page.view(detail), counters=counters, reasons=reasons.reasons
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


def _add_partitions(app: FastAPI, page: PageContext) -> None:
    @app.get("/partitions")
    async def partitions(request: Request, session: CurrentSession, pipeline: TextQuery = None) -> Response:
        """The last reported status of each partition."""
        found = (await page.store.partitions(pipeline or None)).partitions
        return page.templates.render(
            request,
            "partitions",
            session,
            pipelines=pipeline_views(found),
            wanted=pipeline or "",
            now=datetime.now(UTC),
        )


def _add_events(app: FastAPI, page: PageContext) -> None:
    async def all_jobs() -> AsyncIterator[Subscription]:
        with page.events.subscribe() as subscription:
            yield subscription

    @app.get("/events", dependencies=[Depends(session_of)])
    async def events(subscription: Annotated[Subscription, Depends(all_jobs)]) -> Response:
        """Jobs as they change, in the page's words."""
        return event_stream(job_events(page, subscription))


async def job_events(page: PageContext, subscription: Subscription) -> AsyncIterator[bytes]:
    """Yield the jobs that are moving, then every change, and every two seconds the jobs whose rate has changed."""
    sent: dict[str, JobView] = {}
    states = page.rates.states
    yield comment("listening")
    while not subscription.ended:
        for state in states:
            view = page.view(state)
            if sent.get(state.job_id) != view:
                sent[state.job_id] = view
                yield format_sse_event(event="job", data_str=msgspec.json.encode(view).decode())
        changed = await subscription.take(RATE_SECONDS)
        states = changed or page.rates.states
        if changed:
            await asyncio.sleep(0.1)  # a browser gets a job at most ten times a second
        else:
            sent = {state.job_id: sent[state.job_id] for state in states if state.job_id in sent}
            yield comment("still here")


async def overview(store: Store) -> dict[str, dict[str, int]]:
    """Count jobs by status and signals by state."""
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
    """Whether a path stays on the page: a link to the login may name any."""
    return path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
