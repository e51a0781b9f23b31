"""The ledger in Postgres: each request is one transaction that locks partitions, then jobs, in order.

`ledger` decides what a request does to one job; one statement counts all ranges, another all sums. The result equals
that of `ledger.Ledger` for any sequence of requests (tests/properties/test_ledger_sql.py).
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, TypeVar

import structlog
from psycopg import AsyncConnection, AsyncCursor, Error, errors
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from lovelace_streams.api.config import ApiSettings
from lovelace_streams.api.database import Queries, array
from lovelace_streams.api.ledger import UnknownJobError, all_received, closed, opened, payload
from lovelace_streams.api.models import (
    Cover,
    Cursor,
    Failure,
    FailurePage,
    FailureReason,
    FailureReasons,
    FailuresFound,
    FindFailures,
    InputReceived,
    Job,
    JobDetail,
    JobPage,
    JobState,
    OpenJob,
    Overlap,
    PartitionList,
    PartitionState,
    PartitionStatus,
    ProgressAnswer,
    ProgressRequest,
    Status,
)
from lovelace_streams.observability.outages import OutageLog

log = structlog.get_logger(__name__)

Connection = AsyncConnection[DictRow]
Pool = AsyncConnectionPool[Connection]
T = TypeVar("T")
"""A transaction's answer."""

PARTITION = {"topic_ids": "topic_id", "partitions": "partition"}
MESSAGE = PARTITION | {"offsets": "offset"}
SPAN = {"firsts": "first", "lasts": "last"}
COUNTS = {name: name for name in ("succeeded", "failed", "skipped")} | {"jobs": "job_id", "attempts": "attempt"}
FAILED_ITEMS = {"item_firsts": "first", "item_lasts": "last", "item_reasons": "reason.value"}
ITEM_OFFSET = {"item_offsets": "offset"}
PARTITION_STATUS = {name: name for name in PartitionStatus.model_fields}
"""Parameters of statements → attributes of what is in a request."""


class _PartitionsMissingError(Exception):
    """A partition is reported for the first time: its row is made before the transaction that locks it."""


RETRIES_MAX = 3
"""A transaction that ends in a deadlock or a serialization failure is tried again at once, three times (law 5)."""
FAILURES: dict[str, Any] = dict.fromkeys(("pipeline", "job_id", "attempt", "reason", "open", "seconds"))
"""The filters of failed items: None accepts any; `seconds` is the highest age."""
STALE_SECONDS = 30.0
"""A status is stale after this long. Workers report it every five seconds."""
PARTITION_STATUS_SECONDS = 7 * 86400.0
PARTITION_STATUSES_MAX = 5000
UNKNOWN_JOB_STALLS_MAX = 100
"""Jobs that were never opened are deleted after this many times `job_stall_seconds`, else misspelt ids pile up."""


class Store:
    """The operations of the endpoints on the database. Raises psycopg's errors, which `app` answers with 503."""

    def __init__(self, settings: ApiSettings, pool: Pool, outage: OutageLog) -> None:
        self.settings = settings
        self._outage = outage
        self.queries = Queries(settings)
        self._pool = pool
        self._running: set[asyncio.Task[Any]] = set()

    async def report(self, request: ProgressRequest) -> ProgressAnswer:
        """Count what is not covered yet; answer the states of the jobs concerned and how many offsets were known.

        The status of partitions is stored afterwards, in a transaction of its own: a report is accepted without it.
        """
        answer = await self._count(request) if request.reports else ProgressAnswer(jobs=[], known=0)
        if request.partitions:
            await self._save_partition_status(request)
        return answer

    async def _save_partition_status(self, request: ProgressRequest) -> None:
        columns = columns_of(request.partitions, PARTITION_STATUS)
        try:
            await self.query("save_partition_status", {"pipeline": request.pipeline, **columns})
        except (Error, PoolTimeout, TimeoutError) as error:
            self._outage.away(getattr(error, "sqlstate", None) or type(error).__name__)

    async def _count(self, request: ProgressRequest) -> ProgressAnswer:
        ranges, sums, resolved = _range_columns(request), _sum_columns(request), _resolved_columns(request)
        partitions = _partition_columns(request.pipeline, ranges, sums)

        async def work(conn: Connection) -> ProgressAnswer:
            await self._lock_partitions(conn, partitions, resolved)
            jobs = {job_id for job_id in ranges["jobs"] + sums["jobs"] if job_id is not None}
            if resolved["items"]:
                jobs |= {row["job_id"] for row in await self._all(conn, "jobs_of_items", resolved)}
            if jobs:
                await self._all(conn, "lock_jobs", {"jobs": sorted(jobs)})
            known = (await self._all(conn, "count_ranges", ranges))[0]["known"] if ranges["firsts"] else 0
            overlaps = await self._all(conn, "count_sums", sums) if sums["firsts"] else []
            if resolved["items"]:
                # Items that failed in this very request have no row, hence no job, before they are counted.
                jobs |= {row["job_id"] for row in await self._all(conn, "jobs_of_items", resolved)}
                await self._run(conn, "resolve_items", resolved)
            return ProgressAnswer(
                jobs=list(await self._judge(conn, sorted(jobs))),
                known=int(known),
                overlaps=[Overlap.model_validate(row) for row in overlaps],
            )

        try:
            return await self._transaction(work)
        except _PartitionsMissingError:
            await self.query("make_partitions", partitions)
            return await self._transaction(work)

    async def open(self, wanted: OpenJob, key: str | None) -> tuple[Job, bool]:
        """Open a job or a new attempt (then True), or change one. Raises `ConflictError`."""

        async def work(conn: Connection) -> tuple[Job, bool]:
            now = await self._lock_job(conn, wanted.job_id)
            keyed_attempt = None
            if key is not None:
                found = await self._all(conn, "find_key", {"job_id": wanted.job_id, "key": key})
                keyed_attempt = found[0]["attempt"] if found else None
            before = await self._job(conn, wanted.job_id)
            job, is_new = opened(before, wanted, keyed_attempt, now)
            if job is not before:
                await self._save(conn, job)
            if is_new and key is not None:
                await self._run(conn, "keep_key", {"job_id": job.job_id, "key": key, "attempt": job.attempt})
            return (await self._judge(conn, [job.job_id]))[0], is_new

        return await self._transaction(work)

    async def receive(self, job_id: str, received: InputReceived) -> Job:
        """Count an input that does not stream, once by its id. Raises `UnknownJobError`."""

        async def work(conn: Connection) -> Job:
            job, _now = await self._locked(conn, job_id)
            await self._run(conn, "receive_input", {**received.model_dump(), "job_id": job_id, "attempt": job.attempt})
            [job] = await self._judge(conn, [job_id])
            with_total = all_received(job)
            if with_total is not job:
                await self._save(conn, with_total)
                [job] = await self._judge(conn, [job_id])
            return job

        return await self._transaction(work)

    async def close(self, job_id: str, reason: str) -> Job:
        """End a job by hand and queue its signal. Raises `UnknownJobError`, and `ConflictError` for a completed one."""

        async def work(conn: Connection) -> Job:
            job, now = await self._locked(conn, job_id)
            ended = closed(job, reason, now)
            if ended is not job:
                await self._save(conn, ended)
                if ended.workflow_id is not None:
                    signal = {"job_id": job_id, "attempt": ended.attempt, "workflow_id": ended.workflow_id}
                    await self._run(conn, "queue_signal", {**signal, "payload": Jsonb(payload(ended))})
            return ended

        return await self._transaction(work)

    async def detail(self, job_id: str) -> JobDetail:
        """Read one job with its signal. Raises `UnknownJobError`."""
        rows = await self.query("detail", {"job_id": job_id})
        if not rows:
            raise UnknownJobError(job_id)
        return JobDetail.model_validate(rows[0])

    async def page(self, status: Status | None, source: str | None, limit: int, before: str | None) -> JobPage:
        """List jobs, the newest first."""
        wanted = {"status": status and status.value, "source": source, "limit": limit + 1, "before": before}
        rows = await self.query("page", wanted)
        jobs = [JobState.model_validate(row) for row in rows[:limit]]
        return JobPage(jobs=jobs, next=jobs[-1].job_id if len(rows) > limit else None)

    async def states(self, jobs: Sequence[str]) -> list[JobState]:
        """Read those of these jobs that were opened."""
        return [JobState.model_validate(row) for row in await self.query("states", {"jobs": list(jobs)})]

    async def changed_since(self, since: datetime) -> list[JobState]:
        """Read the jobs that changed after a time, which an event stream may have missed."""
        return [JobState.model_validate(row) for row in await self.query("changed_since", {"since": since})]

    async def cover(self, pipeline: str, topic_id: str) -> Cover:
        """Read what is settled of one topic, from which a worker without committed offsets finds its start."""
        rows = await self.query("cover", {"pipeline": pipeline, "topic_id": topic_id})
        return Cover(partitions={str(row["partition"]): row["ranges"] for row in rows})

    async def failures(self, wanted: dict[str, Any], after: Cursor | None, limit: int) -> FailurePage:
        """List failed items in order; `wanted`: some of `FAILURES`."""
        key = dict.fromkeys(Cursor.model_fields) if after is None else after.model_dump()
        cursor = {f"after_{name}": value for name, value in key.items()}
        rows = await self.query("failures", {**FAILURES, **wanted, **cursor, "limit": limit + 1})
        found = [Failure.model_validate(row) for row in rows[:limit]]
        return FailurePage(failures=found, next=Cursor.of(found[-1]).encode() if len(rows) > limit else None)

    async def find_failures(self, wanted: FindFailures) -> FailuresFound:
        """Read the failed items of these messages."""
        origins = columns_of(wanted.origins, MESSAGE)
        rows = await self.query("find_failures", {"pipeline": wanted.pipeline, **origins})
        return FailuresFound(failures=[Failure.model_validate(row) for row in rows])

    async def failure_reasons(self, wanted: dict[str, Any]) -> FailureReasons:
        """Count failed items by pipeline and reason; `wanted`: some of `FAILURES`."""
        rows = await self.query("failure_reasons", {**FAILURES, **wanted})
        return FailureReasons(reasons=[FailureReason.model_validate(row) for row in rows])

    async def partitions(self, pipeline: str | None) -> PartitionList:
        """List the last reported status of each partition."""
        wanted = {"pipeline": pipeline, "stale": STALE_SECONDS, "limit": PARTITION_STATUSES_MAX}
        rows = await self.query("partitions", wanted)
        return PartitionList(partitions=[PartitionState.model_validate(row) for row in rows])

    async def stall(self) -> list[str]:
        """Mark the open jobs that did not change for `job_stall_seconds`."""
        return [row["job_id"] for row in await self.query("stall", {"seconds": self.settings.job_stall_seconds})]

    async def prune(self) -> None:
        """Delete unknown jobs, old failed items and old statuses of partitions; never the cover."""
        await self.query("prune_unknown", {"seconds": UNKNOWN_JOB_STALLS_MAX * self.settings.job_stall_seconds})
        await self.query("prune_failed_items", {"seconds": self.settings.keep_failed_seconds})
        await self.query("prune_partition_status", {"seconds": PARTITION_STATUS_SECONDS})

    async def query(self, name: str, arguments: dict[str, Any] | None = None) -> list[DictRow]:
        """Run one named statement as a transaction of its own."""

        async def attempt() -> list[DictRow]:
            async with self._pool.connection() as conn:
                return await self._all(conn, name, arguments or {})

        return await self._with_retries(attempt)

    async def _transaction(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        async def attempt() -> T:
            async with self._pool.connection() as conn, conn.transaction():
                return await work(conn)

        return await self._with_retries(attempt)

    async def _with_retries(self, attempt: Callable[[], Coroutine[Any, Any, T]]) -> T:
        for _ in range(RETRIES_MAX):
            try:
                return await self._with_deadline(attempt)
            except (errors.DeadlockDetected, errors.SerializationFailure):
                continue
        return await self._with_deadline(attempt)

    async def _with_deadline(self, attempt: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Wait for an attempt until the deadline; past it the connection is given up in the background.

        A frozen server answers nothing, and psycopg's own cancelling waits five seconds more for it.
        """
        running = asyncio.create_task(attempt())
        self._running.add(running)
        running.add_done_callback(self._forget)
        try:
            done, _ = await asyncio.wait({running}, timeout=self.settings.request_seconds)
        except asyncio.CancelledError:
            running.cancel()
            raise
        if not done:
            running.cancel()
            raise TimeoutError
        return running.result()

    def _forget(self, done: asyncio.Task[Any]) -> None:
        self._running.discard(done)
        if not done.cancelled():
            done.exception()  # retrieved here, because past the deadline no request waits for it

    async def _lock_partitions(self, conn: Connection, reported: dict[str, Any], resolved: dict[str, Any]) -> None:
        """Lock all partitions that the request touches, in order: reported ones and those of the items it resolves."""
        wanted = _partition_columns(reported["pipeline"], reported, resolved)
        locked = {(row["topic_id"], row["partition"]) for row in await self._all(conn, "lock_partitions", wanted)}
        if not locked.issuperset(zip(reported["topic_ids"], reported["partitions"], strict=True)):
            raise _PartitionsMissingError

    async def _lock_job(self, conn: Connection, job_id: str) -> datetime:
        """Lock a job; answer the time of the transaction, because every timestamp of the ledger is the database's."""
        now: datetime = (await self._all(conn, "lock_jobs", {"jobs": [job_id]}))[0]["now"]
        return now

    async def _locked(self, conn: Connection, job_id: str) -> tuple[Job, datetime]:
        if not await self._all(conn, "states", {"jobs": [job_id]}):
            raise UnknownJobError(job_id)  # before the lock, which would make a row for an id that was never opened
        now = await self._lock_job(conn, job_id)
        job = await self._job(conn, job_id)
        if job is None:
            raise UnknownJobError(job_id)
        return job, now

    async def _job(self, conn: Connection, job_id: str) -> Job | None:
        rows = await self._all(conn, "lock_state", {"job_id": job_id})
        return Job.model_validate(rows[0]) if rows else None

    async def _save(self, conn: Connection, job: Job) -> None:
        await self._run(conn, "save", {**job.model_dump(), "status": job.status.value})

    async def _judge(self, conn: Connection, jobs: list[str]) -> list[Job]:
        if not jobs:
            return []
        await self._run(conn, "judge", {"jobs": jobs})
        return [Job.model_validate(row) for row in await self._all(conn, "states", {"jobs": jobs})]

    async def _all(self, conn: Connection, name: str, arguments: dict[str, Any]) -> list[DictRow]:
        cursor = await self._run(conn, name, arguments)
        return await cursor.fetchall() if cursor.description else []

    async def _run(self, conn: Connection, name: str, arguments: dict[str, Any]) -> AsyncCursor[DictRow]:
        given = {name: array(value) if isinstance(value, list) else value for name, value in arguments.items()}
        return await conn.execute(self.queries[name], {"channel": self.queries.channel, **given})


def columns_of(rows: Iterable[Any], names: Mapping[str, str]) -> dict[str, list[Any]]:
    """Turn rows into arrays for a statement; `names`: parameter → attribute of a row.

    >>> columns_of([Overlap(topic_id="T", partition=7)], {"topic_ids": "topic_id", "partitions": "partition"})
    {'topic_ids': ['T'], 'partitions': [7]}
    """
    rows = list(rows)
    return {name: list(map(attrgetter(attribute), rows)) for name, attribute in names.items()}


def _range_columns(request: ProgressRequest) -> dict[str, Any]:
    """The ranges of a request, and their failed items by the number of their range, counted from 1."""
    ranges = [part for report in request.reports for part in report.ranges]
    return {
        "pipeline": request.pipeline,
        **columns_of((report for report in request.reports for _ in report.ranges), PARTITION),
        **columns_of(ranges, SPAN | COUNTS),
        "item_ranges": [n for n, part in enumerate(ranges, start=1) for _ in part.failed_items],
        **columns_of((items for part in ranges for items in part.failed_items), FAILED_ITEMS),
    }


def _sum_columns(request: ProgressRequest) -> dict[str, Any]:
    """The spans of a request, its sums, and their failed items by the number of their sum, counted from 1."""
    sums = [each for report in request.reports for each in report.sums]
    owners = columns_of((report for report in request.reports for _ in report.sums), PARTITION)
    return {
        "pipeline": request.pipeline,
        **columns_of((report for report in request.reports for _ in report.spans), PARTITION),
        **columns_of((span for report in request.reports for span in report.spans), SPAN),
        **{f"sum_{name}": values for name, values in owners.items()},
        **columns_of(sums, COUNTS),
        "item_sums": [n for n, each in enumerate(sums, start=1) for _ in each.failed_items],
        **columns_of((items for each in sums for items in each.failed_items), ITEM_OFFSET | FAILED_ITEMS),
    }


def _resolved_columns(request: ProgressRequest) -> dict[str, Any]:
    """The items that a request resolves."""
    items = (item for report in request.reports for part in report.ranges for item in part.resolves)
    return {"pipeline": request.pipeline, **columns_of(items, MESSAGE | {"items": "item"})}


def _partition_columns(pipeline: str, *columns: dict[str, Any]) -> dict[str, Any]:
    """The distinct partitions of what the functions above answer, in order."""
    distinct = sorted({at for each in columns for at in zip(each["topic_ids"], each["partitions"], strict=True)})
    return {
        "pipeline": pipeline,
        "topic_ids": [topic_id for topic_id, _ in distinct],
        "partitions": [partition for _, partition in distinct],
    }
