"""The progress service over HTTP: workers report, clients read the states of jobs. The endpoints: docs/api.md.

Errors name fields and never show values. While the database is away, frozen or being migrated the answer is 503 with
Retry-After. The service starts without the database and serves as soon as it answers.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Annotated

import psycopg
import structlog
from fastapi import APIRouter, Depends, FastAPI, Header, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, StreamingResponse
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST
from psycopg import AsyncConnection
from psycopg.rows import DictRow
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from lovelace_streams.api import gauges
from lovelace_streams.api.answers import (
    AWAY,
    CONFLICT,
    INVALID,
    METRICS,
    NOT_FOUND,
    NOT_LIVE,
    NOT_READY,
    RETRY_AFTER,
    STREAM,
    TOO_LARGE,
    UNAUTHORIZED,
    UNREADABLE,
)
from lovelace_streams.api.auth import TokenAuth
from lovelace_streams.api.config import ApiSettings
from lovelace_streams.api.connecting import Database, reason_of
from lovelace_streams.api.database import migrate
from lovelace_streams.api.events import Events, Subscription, comment, event_stream, states_of
from lovelace_streams.api.ledger import ConflictError, UnknownJobError
from lovelace_streams.api.models import (
    INT_MAX,
    JOB_ID,
    TEXT,
    CloseJob,
    Cover,
    Cursor,
    FailurePage,
    FailureReasons,
    FailuresFound,
    FindFailures,
    InputReceived,
    Job,
    JobDetail,
    JobPage,
    JobState,
    OpenJob,
    PartitionList,
    ProgressAnswer,
    ProgressRequest,
    Status,
)
from lovelace_streams.api.page import JobRates, Sessions, create_page
from lovelace_streams.api.page.dependencies import PageContext
from lovelace_streams.api.signals import Outbox, Signaller, TemporalSignaller, resend
from lovelace_streams.api.store import Store
from lovelace_streams.records import Reason
from lovelace_streams.runtime.backoff import Backoff

log = structlog.get_logger(__name__)

ERRORS_MAX = 20
"""The most faults that one 422 names: a body can hold a hundred thousand."""

JobIdPath = Annotated[str, Path(pattern=JOB_ID)]
TextPath = Annotated[str, Path(min_length=1, max_length=255, pattern=TEXT)]
TextQuery = Annotated[str | None, Query(min_length=1, max_length=255, pattern=TEXT)]
JobIdQuery = Annotated[str | None, Query(pattern=JOB_ID)]
AttemptQuery = Annotated[int | None, Query(ge=1, le=INT_MAX)]
IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=255, pattern=TEXT)]


class ProgressService:
    """The pool and the background work of the app: migrations, listener, the sender of signals, the sweeper."""

    def __init__(self, settings: ApiSettings, signaller: Signaller | None) -> None:
        self.settings = settings
        self.database = Database(settings)
        self.pool: AsyncConnectionPool[AsyncConnection[DictRow]] = AsyncConnectionPool(
            settings.dsn,
            connection_class=self.database.connection_class,
            kwargs=self.database.parameters,
            configure=self.database.configure,
            min_size=1,
            max_size=settings.pool_max,
            timeout=settings.request_seconds / 2,
            open=False,
            name="progress",
        )
        self.store = Store(settings, self.pool, self.database.outage)
        self.events = Events(self.store, self.database)
        self.outbox = Outbox(self.store, signaller, self.database.outage) if signaller is not None else None
        if self.outbox is not None:
            self.events.on_change = self.outbox.wake.set
        self.sessions = Sessions(settings.token, settings.samples_token)
        self.rates = JobRates()
        self.events.on_state = self.rates.note
        self.ready = False
        self.running: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Migrate, then listen, send and sweep until cancelled."""
        await self._retry_while_away(self._migrate)
        self.ready = True
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.events.run())
            tasks.create_task(self._sweep())
            if self.outbox is not None:
                tasks.create_task(self.outbox.run())

    async def _migrate(self) -> None:
        async with self.pool.connection() as conn:
            for name in await migrate(conn, self.settings):
                log.info("migrated", migration=name)

    async def _sweep(self) -> None:
        while True:
            await self._retry_while_away(self._sweep_once)
            await asyncio.sleep(self.settings.sweep_seconds)

    async def _sweep_once(self) -> None:
        for job_id in await self.store.stall():
            log.warning("job is stalled: nothing changed", job_id=job_id, seconds=self.settings.job_stall_seconds)
        await self.store.prune()

    async def _retry_while_away(self, work: Callable[[], Awaitable[None]]) -> None:
        """Try again after a fault of the database. Any other error is a bug and ends the background work."""
        backoff, failures = Backoff(), 0
        while True:
            try:
                await work()
            except (psycopg.Error, PoolTimeout, TimeoutError) as error:
                failures += 1
                self.database.outage.away(reason_of(error, self.database.cause))
                await asyncio.sleep(backoff.seconds(failures))
            else:
                return


def create_app(settings: ApiSettings, signaller: Signaller | None = None) -> FastAPI:
    """Make the service as an ASGI app, without opening a connection. A test can pass a `signaller` instead of Temporal.

    Raises `DeploymentFault` if TEMPORAL_ADDRESS is set and Temporal's client is not installed.
    """
    if signaller is None and settings.temporal_address is not None:
        signaller = TemporalSignaller(settings.temporal_address, settings.temporal_namespace)
    service = ProgressService(settings, signaller)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await service.pool.open()
        service.running = running = asyncio.create_task(service.run())
        try:
            yield
        finally:
            service.events.end()
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            await service.pool.close()

    app = FastAPI(
        title="Lovelace progress",
        description="Exact, idempotent progress of jobs, and the one signal when all of a job's items are in.",
        version="1",
        lifespan=lifespan,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
    )
    app.state.service = service
    app.add_middleware(
        TokenAuth,
        token=settings.token,
        sessions=service.sessions,
        body_max=settings.body_max,
        is_open={"/", "/ui", "/healthz", "/readyz", *(["/metrics"] if settings.metrics_open else [])}.__contains__,
    )
    _add_errors(app)
    _add_health(app, service)
    _add_jobs(app, service)
    _add_progress(app, service)
    _add_failures(app, service)
    _add_events(app, service)
    _add_page(app, service)
    return app


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        # FastAPI's own handler echoes the input: a record's value may be in it (law 10).
        named = [{name: fault[name] for name in ("loc", "msg", "type")} for fault in error.errors()[:ERRORS_MAX]]
        return JSONResponse({"detail": named}, 422)

    @app.exception_handler(psycopg.DataError)
    async def out_of_range(_request: Request, error: psycopg.DataError) -> JSONResponse:
        fault = {
            "loc": ["body"],
            "msg": "a job's counts would exceed 64 bits: open a new attempt",
            "type": error.sqlstate or "data",
        }
        return JSONResponse({"detail": [fault]}, 422)

    @app.exception_handler(ConflictError)
    async def conflict(_request: Request, error: ConflictError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 409)

    @app.exception_handler(UnknownJobError)
    async def unknown(_request: Request, _error: UnknownJobError) -> JSONResponse:
        return JSONResponse({"detail": "no job was opened with this id: open it with POST /jobs"}, 404)

    async def away(_request: Request, error: Exception) -> JSONResponse:
        database = app.state.service.database
        database.outage.away(reason_of(error, database.cause))
        text = f"the database is not available: send the request again in {RETRY_AFTER} s"
        return JSONResponse({"detail": text}, 503, {"Retry-After": RETRY_AFTER})

    for fault in (psycopg.Error, PoolTimeout, PoolClosed, TimeoutError):
        app.add_exception_handler(fault, away)


def _add_health(app: FastAPI, service: ProgressService) -> None:
    @app.get("/healthz", responses=NOT_LIVE)
    async def healthz(response: Response) -> dict[str, str]:
        """The process and its background work live; without the latter no signal is sent."""
        if service.running is None or service.running.done():
            response.status_code = 503
            return {"status": "the background work has ended: restart the service"}
        return {"status": "ok"}

    @app.get("/readyz", responses=NOT_READY)
    async def readyz(response: Response) -> dict[str, str]:
        """The database answers and is migrated."""
        if not service.ready:
            response.status_code = 503
            response.headers["Retry-After"] = RETRY_AFTER
            return {"status": service.database.cause or "the database is not migrated yet"}
        await service.store.query("ping")
        return {"status": "ok"}

    @app.get("/metrics", response_class=Response, responses=METRICS | UNAUTHORIZED | AWAY)
    async def metrics() -> Response:
        """Jobs, items, signals and unknown jobs, for Prometheus."""
        return Response(gauges.render(await service.store.query("gauges")), media_type=CONTENT_TYPE_LATEST)


def _add_jobs(app: FastAPI, service: ProgressService) -> None:
    store = service.store
    router = _router()

    @router.post("/jobs", response_model=JobState, responses={201: {"model": JobState}} | UNREADABLE | CONFLICT)
    async def open_job(wanted: OpenJob, response: Response, idempotency_key: IdempotencyKey = None) -> Job:
        """Open a job (201) or change one (200); `restart` opens a new attempt, once for each Idempotency-Key."""
        job, is_new = await store.open(wanted, idempotency_key)
        response.status_code = 201 if is_new else 200
        return job

    @router.get("/jobs")
    async def jobs(
        status: Status | None = None,
        source: TextQuery = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        before: Annotated[str | None, Query(pattern=JOB_ID)] = None,
    ) -> JobPage:
        """List jobs, the newest first; `before` takes the `next` of the page before."""
        return await store.page(status, source, limit, before)

    @router.get("/jobs/{job_id}", responses=NOT_FOUND)
    async def job(job_id: JobIdPath) -> JobDetail:
        """Read one job, with the state of its signal."""
        return await store.detail(job_id)

    @router.post("/jobs/{job_id}/input-received", response_model=JobState, responses=UNREADABLE | NOT_FOUND)
    async def input_received(job_id: JobIdPath, received: InputReceived) -> Job:
        """Count a form, or another input that does not stream: the same completion, the same signal."""
        return await store.receive(job_id, received)

    @router.post("/jobs/{job_id}/close", response_model=JobState, responses=UNREADABLE | NOT_FOUND | CONFLICT)
    async def close(job_id: JobIdPath, body: CloseJob) -> Job:
        """End a job by hand, and signal."""
        return await store.close(job_id, body.reason)

    @router.post("/jobs/{job_id}/signal", responses=NOT_FOUND | CONFLICT)
    async def signal(job_id: JobIdPath) -> JobDetail:
        """Send an undeliverable signal again."""
        return await resend(store, job_id)

    app.include_router(router)


def _add_progress(app: FastAPI, service: ProgressService) -> None:
    store = service.store
    router = _router()

    @router.post("/progress", responses=UNREADABLE)
    async def progress(request: ProgressRequest) -> ProgressAnswer:
        """Count what is not counted yet. Repeating a report changes nothing."""
        return await store.report(request)

    @router.get("/partitions")
    async def partitions(pipeline: TextQuery = None) -> PartitionList:
        """List the last reported status of each partition, for people; the service decides nothing by it."""
        return await store.partitions(pipeline)

    @router.get("/progress/{pipeline}/{topic_id}")
    async def cover(pipeline: TextPath, topic_id: TextPath) -> Cover:
        """Read what is settled, for a worker that starts without committed offsets."""
        return await store.cover(pipeline, topic_id)

    app.include_router(router)


def _add_failures(app: FastAPI, service: ProgressService) -> None:
    store = service.store
    router = _router()

    @router.get("/failures")
    async def failures(
        pipeline: TextQuery = None,
        job_id: JobIdQuery = None,
        attempt: AttemptQuery = None,
        reason: Reason | None = None,
        open: bool | None = None,  # noqa: A002 - the name of the query parameter
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        after: Annotated[str | None, Query(max_length=4096)] = None,
    ) -> FailurePage:
        """List failed items by pipeline and partition; `open`: those with items that no replay has written yet."""
        wanted = {"pipeline": pipeline, "job_id": job_id, "attempt": attempt, "reason": reason, "open": open}
        return await store.failures(wanted, _cursor_of(after), limit)

    @router.get("/failures/reasons")
    async def reasons(
        pipeline: TextQuery = None, job_id: JobIdQuery = None, attempt: AttemptQuery = None
    ) -> FailureReasons:
        """Count failed items by pipeline and reason."""
        return await store.failure_reasons({"pipeline": pipeline, "job_id": job_id, "attempt": attempt})

    @router.post("/failures/find", responses=UNREADABLE)
    async def find(wanted: FindFailures) -> FailuresFound:
        """Find the failed items of these messages, and which of them a replay has written."""
        return await store.find_failures(wanted)

    app.include_router(router)


def _cursor_of(cursor: str | None) -> Cursor | None:
    try:
        return None if cursor is None else Cursor.decode(cursor)
    except ValueError:
        fault = {"loc": ("query", "after"), "msg": "not the `next` of a page: pass it unchanged", "type": "cursor"}
        raise RequestValidationError([fault]) from None


def _add_events(app: FastAPI, service: ProgressService) -> None:
    store, events, heartbeat = service.store, service.events, service.settings.heartbeat
    router = _router()

    async def one_job(job_id: JobIdPath) -> AsyncIterator[Subscription]:
        await store.detail(job_id)
        with events.subscribe(job_id) as subscription:
            for state in await store.states([job_id]):  # after subscribing: nothing is missed in between
                subscription.put(state)
            yield subscription

    async def all_jobs() -> AsyncIterator[Subscription]:
        with events.subscribe() as subscription:
            yield subscription

    @router.get("/jobs/{job_id}/events", response_class=StreamingResponse, responses=STREAM | NOT_FOUND)
    async def job_events(subscription: Annotated[Subscription, Depends(one_job)]) -> Response:
        """Stream the job's states, the present one first; the stream ends when the job has ended."""
        return event_stream(states_of(subscription, heartbeat))

    @router.get("/events", response_class=StreamingResponse, responses=STREAM)
    async def all_events(subscription: Annotated[Subscription, Depends(all_jobs)]) -> Response:
        """Stream all jobs' states as they change."""

        async def frames() -> AsyncIterator[bytes]:
            yield comment("listening")
            async for frame in states_of(subscription, heartbeat):
                yield frame

        return event_stream(frames())

    app.include_router(router)


def _add_page(app: FastAPI, service: ProgressService) -> None:
    @app.get("/", include_in_schema=False)
    async def home(request: Request) -> Response:
        return RedirectResponse(f"{request.scope.get('root_path', '')}/ui/jobs", 303)

    page = PageContext(service.settings, service.store, service.events, service.rates, service.sessions)
    app.mount("/ui", create_page(page))


def _router() -> APIRouter:
    """Make a router of endpoints behind the token. `TokenAuth` checks it; it is named here for the OpenAPI document."""
    token = Depends(HTTPBearer(auto_error=False, description="PROGRESS_API_TOKEN"))
    return APIRouter(dependencies=[token], responses=UNAUTHORIZED | TOO_LARGE | INVALID | AWAY)
