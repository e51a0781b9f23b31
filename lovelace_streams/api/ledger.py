"""The ledger as plain Python: progress is a set of offsets, so it cannot count twice (docs/decisions/0003-ledger.md).

`Ledger` is the model that the SQL of `store` is compared with (tests/properties/test_ledger_sql.py). What a request
does to one job (`opened`, `closed`) is decided here for both. No clock, no database and no HTTP here.

    report ─▶ offsets not covered yet ─▶ counters by (job, attempt, pipeline) ─▶ job ─▶ judged ─▶ one signal an attempt
                        └─▶ failed items by name ◀─ resolved by replayed letters
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from lovelace_streams.api.models import (
    Cover,
    InputReceived,
    Job,
    JobState,
    OpenJob,
    Overlap,
    ProgressAnswer,
    ProgressRequest,
    Range,
    Report,
    Resolved,
    Status,
    Sum,
)
from lovelace_streams.runtime.offsets import Offsets

INPUTS = ""
"""The pipeline of inputs that do not stream. No reporter can have this name, and every job counts it."""


class ConflictError(Exception):
    """The request contradicts what was decided before: 409."""


class UnknownJobError(Exception):
    """No job was opened with this id: 404."""


class Counts(NamedTuple):
    """Items by outcome."""

    succeeded: int = 0
    failed: int = 0
    skipped: int = 0

    def plus(self, other: "Counts", times: int = 1) -> "Counts":
        """Add counts, outcome by outcome."""
        return Counts(*(own + times * added for own, added in zip(self, other, strict=True)))


class Partition(NamedTuple):
    """The key of a cover. It has the topic's id, because a topic that is created again counts its offsets from zero."""

    pipeline: str
    topic_id: str
    partition: int


class Counter(NamedTuple):
    """The key of counts, which are kept also before a job is opened."""

    job_id: str
    attempt: int
    pipeline: str


class Item(NamedTuple):
    """The key of an item: where it was first read."""

    pipeline: str
    topic_id: str
    partition: int
    offset: int
    item: int


@dataclass
class FailedItem:
    """A failed item, and whether a replayed letter has written it since."""

    job_id: str | None
    attempt: int
    reason: str
    resolved: bool = False


@dataclass
class Ledger:
    """Covers, counters, failed items, jobs and the signals they queue."""

    covers: dict[Partition, Offsets] = field(default_factory=dict)
    counters: dict[Counter, Counts] = field(default_factory=dict)
    """In the order of first report, which decides the pipeline that counts for a job that names none."""
    failed_items: dict[Item, FailedItem] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    keys: dict[tuple[str, str], int] = field(default_factory=dict)
    """(job, Idempotency-Key) → the attempt that it opened."""
    inputs: set[tuple[str, int, str]] = field(default_factory=set)
    signals: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    """The outbox: one payload a (job, attempt)."""

    def report(self, request: ProgressRequest, now: datetime) -> ProgressAnswer:
        """Count what is not covered yet, then resolve what replayed letters wrote; known offsets are accepted."""
        named: set[str] = set()
        known = 0
        overlaps = []
        for report in request.reports:
            cover = self.covers.setdefault(Partition(request.pipeline, report.topic_id, report.partition), Offsets())
            named |= {each.job_id for each in report.sums if each.job_id is not None}
            if any(cover.touches(span.first, span.last) for span in report.spans):
                overlaps.append(Overlap(topic_id=report.topic_id, partition=report.partition))
                continue
            self._sum(request.pipeline, report, cover)
            for part in report.ranges:
                new = cover.add(part.first, part.last)
                known += part.length - new
                if part.job_id is not None:
                    named.add(part.job_id)
                if new:
                    self._count(request.pipeline, report, part, new)
        for resolved in (
            resolved for report in request.reports for part in report.ranges for resolved in part.resolves
        ):
            named |= self._resolve(request.pipeline, resolved)
        return ProgressAnswer(
            jobs=[self._judge(job_id, now) for job_id in sorted(named & self.jobs.keys())],
            known=known,
            overlaps=sorted(overlaps, key=lambda each: (each.topic_id, each.partition)),
        )

    def open(self, wanted: OpenJob, key: str | None, now: datetime) -> tuple[Job, bool]:
        """Open a job or a new attempt (then True), or change one. Raises `ConflictError`."""
        keyed_attempt = None if key is None else self.keys.get((wanted.job_id, key))
        job, is_new = opened(self.jobs.get(wanted.job_id), wanted, keyed_attempt, now)
        self.jobs[job.job_id] = job
        if is_new and key is not None:
            self.keys[job.job_id, key] = job.attempt
        return self._judge(job.job_id, now), is_new

    def receive(self, job_id: str, received: InputReceived, now: datetime) -> Job:
        """Count an input that does not stream, once by its id. Raises `UnknownJobError`."""
        job = self._known(job_id)
        if (job_id, job.attempt, received.input_id) not in self.inputs:
            self.inputs.add((job_id, job.attempt, received.input_id))
            self._add(Counter(job_id, job.attempt, INPUTS), _counts(received))
        job = self._judge(job_id, now)
        self.jobs[job_id] = job_with_total = all_received(job)
        return self._judge(job_id, now) if job_with_total is not job else job

    def close(self, job_id: str, reason: str, now: datetime) -> Job:
        """End a job by hand and signal. Raises `UnknownJobError`, and `ConflictError` for a completed one."""
        job = self._known(job_id)
        self.jobs[job_id] = ended = closed(job, reason, now)
        if ended is not job:
            self._signal(ended)
        return ended

    def stall(self, before: datetime) -> list[str]:
        """Mark open jobs that did not change since `before`."""
        quiet = [job for job in self.jobs.values() if job.status is Status.OPEN and job.changed_at < before]
        for job in quiet:
            self.jobs[job.job_id] = job.model_copy(update={"status": Status.STALLED, "version": job.version + 1})
        return [job.job_id for job in quiet]

    def cover(self, pipeline: str, topic_id: str) -> Cover:
        """Tell what is settled of one topic."""
        found = {key.partition: list(cover) for key, cover in self.covers.items() if key[:2] == (pipeline, topic_id)}
        return Cover(partitions={str(partition): cover for partition, cover in sorted(found.items())})

    def _known(self, job_id: str) -> Job:
        if job_id not in self.jobs:
            raise UnknownJobError(job_id)
        return self.jobs[job_id]

    def _count(self, pipeline: str, report: Report, part: Range, new: int) -> None:
        if part.job_id is not None:
            self._add(Counter(part.job_id, part.attempt, pipeline), _counts(part), new)
        for items in part.failed_items:
            for item in range(items.first, items.last + 1):
                at = Item(pipeline, report.topic_id, report.partition, part.first, item)
                self.failed_items[at] = FailedItem(part.job_id, part.attempt, items.reason)

    def _sum(self, pipeline: str, report: Report, cover: Offsets) -> None:
        """Count sums of spans of which nothing is covered yet, as their ranges would count."""
        for span in report.spans:
            cover.add(span.first, span.last)
        for each in report.sums:
            if each.job_id is not None:
                self._add(Counter(each.job_id, each.attempt, pipeline), _counts(each))
            for items in each.failed_items:
                for item in range(items.first, items.last + 1):
                    at = Item(pipeline, report.topic_id, report.partition, items.offset, item)
                    self.failed_items[at] = FailedItem(each.job_id, each.attempt, items.reason)

    def _resolve(self, pipeline: str, resolved: Resolved) -> set[str]:
        """Move one count from failed to succeeded, once for each item that failed; answer its job."""
        at = Item(pipeline, resolved.topic_id, resolved.partition, resolved.offset, resolved.item)
        item = self.failed_items.get(at)
        if item is None or item.job_id is None:
            if item is not None:
                item.resolved = True
            return set()
        if not item.resolved:
            item.resolved = True
            self._add(Counter(item.job_id, item.attempt, pipeline), Counts(succeeded=1, failed=-1))
        return {item.job_id}

    def _add(self, counter: Counter, counts: Counts, times: int = 1) -> None:
        self.counters[counter] = self.counters.get(counter, Counts()).plus(counts, times)

    def _counted(self, job: Job) -> Counts:
        found = {c.pipeline: counts for c, counts in self.counters.items() if c[:2] == (job.job_id, job.attempt)}
        pipelines = job.pipelines or [pipeline for pipeline in found if pipeline != INPUTS][:1]
        total = Counts()
        for pipeline in (INPUTS, *pipelines):
            total = total.plus(found.get(pipeline, Counts()))
        return total

    def _judge(self, job_id: str, now: datetime) -> Job:
        """Update a job's counts and judge whether it is complete.

        Every transaction that changes a job does so, because it may be the last one.
        """
        job = self.jobs[job_id]
        counts = self._counted(job)
        completes = not job.status.ended and job.total_items is not None and sum(counts) >= job.total_items
        if completes or counts != Counts(job.succeeded, job.failed, job.skipped):
            changes = {**counts._asdict(), "status": _status(job, completes), "completed_at": job.completed_at}
            job = _changed(job, changes | ({"completed_at": now} if completes else {}), now)
            self.jobs[job_id] = job
        if completes:
            self._signal(job)
        return job

    def _signal(self, job: Job) -> None:
        if job.workflow_id is not None:
            self.signals.setdefault((job.job_id, job.attempt), payload(job))


def opened(job: Job | None, wanted: OpenJob, keyed_attempt: int | None, now: datetime) -> tuple[Job, bool]:
    """Apply `POST /jobs` to a job; answer it, not judged yet, and whether an attempt was opened.

    `keyed_attempt` is the one that the request's Idempotency-Key opened before. Source and pipelines are fixed for an
    attempt; the total and the workflow may change until it ends. Raises `ConflictError`.
    """
    if keyed_attempt is not None and job is not None and keyed_attempt != job.attempt:
        raise ConflictError(
            "a later attempt superseded the one that this Idempotency-Key opened: restart with a new key"
        )
    if job is None or (wanted.restart and keyed_attempt is None):
        return _attempt(job, wanted, now), True
    given = wanted.model_dump(exclude={"job_id", "restart"}, exclude_none=True)
    changes = {name: value for name, value in given.items() if getattr(job, name) != value}
    for name in sorted(changes):
        if job.status.ended:
            raise ConflictError(
                f"{name} cannot change, because the job is {job.status}: open a new attempt with restart"
            )
        if name in {"source", "pipelines"}:
            raise ConflictError(f"{name} cannot change within an attempt: open a new attempt with restart")
    return (_changed(job, changes | {"status": Status.OPEN}, now) if changes else job), False


def closed(job: Job, reason: str, now: datetime) -> Job:
    """End a job by hand; a closed one stays as it is. Raises `ConflictError` for a completed one."""
    if job.status is Status.COMPLETED:
        raise ConflictError("the job is completed already: only an open or stalled job can be closed")
    if job.status is Status.CLOSED:
        return job
    return _changed(job, {"status": Status.CLOSED, "closed_reason": reason, "completed_at": now}, now)


def all_received(job: Job) -> Job:
    """Set the total of a job without one to what it has received: an input (a form) is all that comes."""
    if job.total_items is not None or job.status.ended:
        return job
    return job.model_copy(update={"total_items": job.processed, "version": job.version + 1})


def payload(job: JobState) -> dict[str, Any]:
    """Write the signal's payload, the same for all inputs. The receiver makes its effect once by `signal_id`."""
    return {
        "signal_id": f"{job.job_id}#{job.attempt}",
        "job_id": job.job_id,
        "source": job.source,
        "succeeded": job.succeeded,
        "failed": job.failed,
        "skipped": job.skipped,
    }


def _attempt(job: Job | None, wanted: OpenJob, now: datetime) -> Job:
    """Open the first or the next attempt. Workflow and pipelines stay unless the request names others."""
    return Job(
        job_id=wanted.job_id,
        attempt=job.attempt + 1 if job else 1,
        version=job.version + 1 if job else 1,
        source=wanted.source,
        workflow_id=wanted.workflow_id or (job.workflow_id if job else None),
        total_items=wanted.total_items,
        succeeded=0,
        failed=0,
        skipped=0,
        status=Status.OPEN,
        created_at=job.created_at if job else now,
        completed_at=None,
        signalled_at=None,
        pipelines=wanted.pipelines or (job.pipelines if job else None),
        changed_at=now,
    )


def _changed(job: Job, changes: dict[str, Any], now: datetime) -> Job:
    return job.model_copy(update={**changes, "version": job.version + 1, "changed_at": now})


def _status(job: Job, completes: bool) -> Status:
    if completes:
        return Status.COMPLETED
    return Status.OPEN if job.status is Status.STALLED else job.status


def _counts(of: Range | Sum | InputReceived) -> Counts:
    return Counts(of.succeeded, of.failed, of.skipped)
