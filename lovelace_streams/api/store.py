"""The ledger in Postgres: each request is one transaction that locks partitions, then jobs, in order.

What a request does to one job is decided in `ledger`; counting is one statement over all ranges, and one over all sums.
Equal to `ledger.Ledger` for any sequence of requests (tests/properties/test_ledger_sql.py).
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import datetime
from typing import Any, TypeVar

import structlog
from psycopg import AsyncConnection, AsyncCursor, Error, errors
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from lovelace_streams.api.config import ApiSettings
from lovelace_streams.api.database import Queries, array
from lovelace_streams.api.ledger import UnknownJob, all_received, closed, opened, payload
from lovelace_streams.api.models import (
    Cover,
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
    Place,
    ProgressAnswer,
    ProgressRequest,
    Standing,
    Status,
)

log = structlog.get_logger(__name__)

Connection = AsyncConnection[DictRow]
Pool = AsyncConnectionPool[Connection]
T = TypeVar("T")
"""What a transaction answers."""


class _PartitionsMissing(Exception):  # noqa: N818 - never leaves this module
    """A partition reports for the first time: its row is made ahead of the transaction that locks it."""


AT_ONCE = 3
"""Deadlocks and serialization failures are tried again at once, thrice (law 5)."""
FAILURES: dict[str, Any] = dict.fromkeys(("pipeline", "job_id", "attempt", "reason", "open", "seconds"))
"""What failed items may be asked for by: None is any; `seconds` is how long ago at most."""
STALE_SECONDS = 30.0
"""A worker says every five seconds where it stands."""
STANDINGS_SECONDS = 7 * 86400.0
STANDINGS_MAX = 5000
PRUNE_UNKNOWN = 100
"""Unknown jobs go after this many times `job_stall_seconds` without an opening: else misspelt ids stay for ever."""


class Store:
    """What the endpoints ask of the database. Raises psycopg's errors; who answers 503 is `app`."""

    def __init__(self, settings: ApiSettings, pool: Pool) -> None:
        self.settings = settings
        self.queries = Queries(settings)
        self._pool = pool
        self._running: set[asyncio.Task[Any]] = set()

    async def report(self, request: ProgressRequest) -> ProgressAnswer:
        """Count what is not covered yet; the states of the jobs it names, and how many offsets were known.

        Where the worker stands is noted apart and afterwards: a report is accepted without it.
        """
        answer = await self._count(request) if request.reports else ProgressAnswer(jobs=[], known=0)
        if request.partitions:
            await self._note_standings(request)
        return answer

    async def _note_standings(self, request: ProgressRequest) -> None:
        columns = {name: [getattr(each, name) for each in request.partitions] for name in Standing.model_fields}
        try:
            await self.query("tell_standings", {"pipeline": request.pipeline, **columns})
        except (Error, PoolTimeout, TimeoutError) as error:
            log.warning("where a worker stands is not noted", code=getattr(error, "sqlstate", None))

    async def _count(self, request: ProgressRequest) -> ProgressAnswer:
        reported, summed, resolves = _reported(request), _summed(request), _resolves(request)
        mine = _partitions(request.pipeline, reported, summed)

        async def work(conn: Connection) -> ProgressAnswer:
            await self._lock_partitions(conn, mine, resolves)
            jobs = {job_id for job_id in reported["jobs"] + summed["jobs"] if job_id is not None}
            if resolves["items"]:
                jobs |= {row["job_id"] for row in await self._all(conn, "jobs_of_items", resolves)}
            if jobs:
                await self._all(conn, "lock_jobs", {"jobs": sorted(jobs)})
            known = (await self._all(conn, "count_ranges", reported))[0]["known"] if reported["firsts"] else 0
            overlaps = await self._all(conn, "count_sums", summed) if summed["firsts"] else []
            if resolves["items"]:
                # Items that failed in this very request have no row, hence no job, before they are counted.
                jobs |= {row["job_id"] for row in await self._all(conn, "jobs_of_items", resolves)}
                await self._run(conn, "resolve_items", resolves)
            return ProgressAnswer(
                jobs=list(await self._judge(conn, sorted(jobs))),
                known=int(known),
                overlaps=[Overlap.model_validate(row) for row in overlaps],
            )

        try:
            return await self._transaction(work)
        except _PartitionsMissing:
            await self.query("make_partitions", mine)
            return await self._transaction(work)

    async def open(self, wanted: OpenJob, key: str | None) -> tuple[Job, bool]:
        """Open a job or a new attempt (then True), or say more about one. Raises `Conflict`."""

        async def work(conn: Connection) -> tuple[Job, bool]:
            now = await self._lock_job(conn, wanted.job_id)
            keyed = None
            if key is not None:
                found = await self._all(conn, "find_key", {"job_id": wanted.job_id, "key": key})
                keyed = found[0]["attempt"] if found else None
            before = await self._job(conn, wanted.job_id)
            job, is_new = opened(before, wanted, keyed, now)
            if job is not before:
                await self._save(conn, job)
            if is_new and key is not None:
                await self._run(conn, "keep_key", {"job_id": job.job_id, "key": key, "attempt": job.attempt})
            return (await self._judge(conn, [job.job_id]))[0], is_new

        return await self._transaction(work)

    async def receive(self, job_id: str, received: InputReceived) -> Job:
        """Count an input that does not stream, once by its id. Raises `UnknownJob`."""

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
        """End a job by hand and queue its signal. Raises `UnknownJob`, and `Conflict` for a completed one."""

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
        """One job with its signal. Raises `UnknownJob`."""
        rows = await self.query("detail", {"job_id": job_id})
        if not rows:
            raise UnknownJob(job_id)
        return JobDetail.model_validate(rows[0])

    async def page(self, status: Status | None, source: str | None, limit: int, before: str | None) -> JobPage:
        """Jobs, the newest first."""
        wanted = {"status": status and status.value, "source": source, "limit": limit + 1, "before": before}
        rows = await self.query("page", wanted)
        jobs = [JobState.model_validate(row) for row in rows[:limit]]
        return JobPage(jobs=jobs, next=jobs[-1].job_id if len(rows) > limit else None)

    async def states(self, jobs: Sequence[str]) -> list[JobState]:
        """The jobs of these that are open or ended."""
        return [JobState.model_validate(row) for row in await self.query("states", {"jobs": list(jobs)})]

    async def changed_since(self, since: datetime) -> list[JobState]:
        """What an event stream may have missed."""
        return [JobState.model_validate(row) for row in await self.query("changed_since", {"since": since})]

    async def cover(self, pipeline: str, topic_id: str) -> Cover:
        """What is settled of one topic: where a worker without committed offsets starts."""
        rows = await self.query("cover", {"pipeline": pipeline, "topic_id": topic_id})
        return Cover(partitions={str(row["partition"]): row["ranges"] for row in rows})

    async def failures(self, wanted: dict[str, Any], after: Place | None, limit: int) -> FailurePage:
        """Failed items in order; `wanted`: some of `FAILURES`."""
        at = dict.fromkeys(Place.model_fields) if after is None else after.model_dump()
        place = {f"after_{name}": value for name, value in at.items()}
        rows = await self.query("failures", {**FAILURES, **wanted, **place, "limit": limit + 1})
        found = [Failure.model_validate(row) for row in rows[:limit]]
        return FailurePage(failures=found, next=Place.of(found[-1]).cursor if len(rows) > limit else None)

    async def find_failures(self, wanted: FindFailures) -> FailuresFound:
        """The failed items of these messages."""
        places = {
            "topic_ids": [at.topic_id for at in wanted.origins],
            "partitions": [at.partition for at in wanted.origins],
            "offsets": [at.offset for at in wanted.origins],
        }
        rows = await self.query("find_failures", {"pipeline": wanted.pipeline, **places})
        return FailuresFound(failures=[Failure.model_validate(row) for row in rows])

    async def failure_reasons(self, wanted: dict[str, Any]) -> FailureReasons:
        """Failed items counted by pipeline and reason; `wanted`: some of `FAILURES`."""
        rows = await self.query("failure_reasons", {**FAILURES, **wanted})
        return FailureReasons(reasons=[FailureReason.model_validate(row) for row in rows])

    async def standings(self, pipeline: str | None) -> PartitionList:
        """Where workers stand, as they said last."""
        wanted = {"pipeline": pipeline, "stale": STALE_SECONDS, "limit": STANDINGS_MAX}
        rows = await self.query("standings", wanted)
        return PartitionList(partitions=[PartitionState.model_validate(row) for row in rows])

    async def stall(self) -> list[str]:
        """Mark the open jobs that did not change for `job_stall_seconds`."""
        return [row["job_id"] for row in await self.query("stall", {"seconds": self.settings.job_stall_seconds})]

    async def prune(self) -> None:
        """Forget unknown jobs, old failed items and workers that nobody heard of; the cover never."""
        await self.query("prune_unknown", {"seconds": PRUNE_UNKNOWN * self.settings.job_stall_seconds})
        await self.query("prune_failed_items", {"seconds": self.settings.keep_failed_seconds})
        await self.query("prune_standings", {"seconds": STANDINGS_SECONDS})

    async def query(self, name: str, arguments: dict[str, Any] | None = None) -> list[DictRow]:
        """One named statement, which is a transaction of its own."""

        async def alone() -> list[DictRow]:
            async with self._pool.connection() as conn:
                return await self._all(conn, name, arguments or {})

        return await self._tried(alone)

    async def _transaction(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        async def together() -> T:
            async with self._pool.connection() as conn, conn.transaction():
                return await work(conn)

        return await self._tried(together)

    async def _tried(self, attempt: Callable[[], Coroutine[Any, Any, T]]) -> T:
        for _ in range(AT_ONCE):
            try:
                return await self._once(attempt)
            except (errors.DeadlockDetected, errors.SerializationFailure):
                continue
        return await self._once(attempt)

    async def _once(self, attempt: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Under a deadline of our own, past which nobody waits for the connection to be given up.

        A frozen server answers nothing: psycopg's own cancelling waits five seconds more for it.
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
            done.exception()  # whoever waited has it; past the deadline nobody does

    async def _lock_partitions(self, conn: Connection, mine: dict[str, Any], resolves: dict[str, Any]) -> None:
        """All partitions that the request touches, those of the items that it resolves too, in order."""
        locked = await self._all(conn, "lock_partitions", _partitions(mine["pipeline"], mine, resolves))
        found = {(row["topic_id"], row["partition"]) for row in locked}
        if not found.issuperset(zip(mine["topic_ids"], mine["partitions"], strict=True)):
            raise _PartitionsMissing

    async def _lock_job(self, conn: Connection, job_id: str) -> datetime:
        """The time of the transaction: every timestamp of the ledger is the database's."""
        now: datetime = (await self._all(conn, "lock_jobs", {"jobs": [job_id]}))[0]["now"]
        return now

    async def _locked(self, conn: Connection, job_id: str) -> tuple[Job, datetime]:
        if not await self._all(conn, "states", {"jobs": [job_id]}):
            raise UnknownJob(job_id)  # before the lock, which would make a row of an id that nobody opened
        now = await self._lock_job(conn, job_id)
        job = await self._job(conn, job_id)
        if job is None:
            raise UnknownJob(job_id)
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


def _reported(request: ProgressRequest) -> dict[str, Any]:
    """The ranges of a request as arrays, and the failed items by the number of their range, counted from 1."""
    ranges = [(report, part) for report in request.reports for part in report.ranges]
    failed = [(n, items) for n, (_, part) in enumerate(ranges, start=1) for items in part.failed_items]
    return {
        "pipeline": request.pipeline,
        "topic_ids": [report.topic_id for report, _ in ranges],
        "partitions": [report.partition for report, _ in ranges],
        "jobs": [part.job_id for _, part in ranges],
        "attempts": [part.attempt for _, part in ranges],
        "firsts": [part.first for _, part in ranges],
        "lasts": [part.last for _, part in ranges],
        "succeeded": [part.succeeded for _, part in ranges],
        "failed": [part.failed for _, part in ranges],
        "skipped": [part.skipped for _, part in ranges],
        "item_ranges": [n for n, _ in failed],
        "item_firsts": [items.first for _, items in failed],
        "item_lasts": [items.last for _, items in failed],
        "item_reasons": [items.reason.value for _, items in failed],
    }


def _summed(request: ProgressRequest) -> dict[str, Any]:
    """The spans of a request, its sums and the failed items by the number of their sum, counted from 1, as arrays."""
    spans = [(report, span) for report in request.reports for span in report.spans]
    sums = [(report, each) for report in request.reports for each in report.sums]
    failed = [(n, items) for n, (_, each) in enumerate(sums, start=1) for items in each.failed_items]
    return {
        "pipeline": request.pipeline,
        "topic_ids": [report.topic_id for report, _ in spans],
        "partitions": [report.partition for report, _ in spans],
        "firsts": [span.first for _, span in spans],
        "lasts": [span.last for _, span in spans],
        "sum_topic_ids": [report.topic_id for report, _ in sums],
        "sum_partitions": [report.partition for report, _ in sums],
        "jobs": [each.job_id for _, each in sums],
        "attempts": [each.attempt for _, each in sums],
        "succeeded": [each.succeeded for _, each in sums],
        "failed": [each.failed for _, each in sums],
        "skipped": [each.skipped for _, each in sums],
        "item_sums": [n for n, _ in failed],
        "item_offsets": [items.offset for _, items in failed],
        "item_firsts": [items.first for _, items in failed],
        "item_lasts": [items.last for _, items in failed],
        "item_reasons": [items.reason.value for _, items in failed],
    }


def _resolves(request: ProgressRequest) -> dict[str, Any]:
    """The items that a request resolves, as arrays."""
    items = [item for report in request.reports for part in report.ranges for item in part.resolves]
    return {
        "pipeline": request.pipeline,
        "topic_ids": [item.topic_id for item in items],
        "partitions": [item.partition for item in items],
        "offsets": [item.offset for item in items],
        "items": [item.item for item in items],
    }


def _partitions(pipeline: str, *those: dict[str, Any]) -> dict[str, Any]:
    """The distinct partitions of what the functions above answer, in order."""
    distinct = sorted({at for of in those for at in zip(of["topic_ids"], of["partitions"], strict=True)})
    return {
        "pipeline": pipeline,
        "topic_ids": [topic_id for topic_id, _ in distinct],
        "partitions": [partition for _, partition in distinct],
    }
