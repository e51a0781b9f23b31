"""What the progress service takes and answers. Everything that can be wrong about a request is decided here.

Counts are *per offset*, offsets are inclusive: a range can be cut anywhere and means the same. A range that breaks a
rule is refused as a whole request with 422, which a worker takes for a bug: it stops with the range named.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from lovelace_streams.records import Reason

SPAN_MAX = 1_000_000
"""Offsets in a range that counts something; a range of zeros (offsets that the broker skipped) may be longer."""
COUNT_MAX = 100_000
"""Items of one message."""
OFFSET_MAX = 2**63 - 2
"""The end of a range is exclusive in Postgres, hence one less than a bigint holds."""
INT_MAX = 2**31 - 2
PARTITIONS_MAX = 10_000
"""Partitions of one worker."""
ORIGINS_MAX = 5000
"""Messages that one request may ask about."""

JOB_ID = r"^[A-Za-z0-9._:-]{1,128}$"
TEXT = r"^[^\x00-\x1f\x7f]+$"

JobId = Annotated[str, StringConstraints(pattern=JOB_ID)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=TEXT)]
Attempt = Annotated[int, Field(ge=1, le=INT_MAX)]
Offset = Annotated[int, Field(ge=0, le=OFFSET_MAX)]
Number = Annotated[int, Field(ge=0, le=INT_MAX)]
Count = Annotated[int, Field(ge=0, le=COUNT_MAX)]
Total = Annotated[int, Field(ge=0, le=2**53 - 1)]


NONE: Any = ()
"""The default of lists that are mostly left out: pydantic copies a list for each of them, which was a third of the time
that a report of 5,000 ranges took to check."""


class Status(StrEnum):
    """Where a job stands. `stalled` is a view of `open`: any change ends it."""

    OPEN = "open"
    COMPLETED = "completed"
    STALLED = "stalled"
    CLOSED = "closed"

    @property
    def ended(self) -> bool:
        """Completed or closed: counts may still move, the status never."""
        return self in (Status.COMPLETED, Status.CLOSED)


class Body(BaseModel):
    """A request: no guessing of types, no field that nobody reads."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class FailedItems(Body):
    """Items `first` to `last` of one message, which failed for one reason (an undecodable chunk: all of them)."""

    first: Number
    last: Number
    reason: Annotated[Reason, Field(strict=False)]

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if self.last < self.first:
            raise ValueError("last is before first")
        return self

    @property
    def length(self) -> int:
        """How many items."""
        return self.last - self.first + 1


class Resolved(Body):
    """A failed item, by its origin, that a replayed letter has written."""

    topic_id: Text
    partition: Number
    offset: Offset
    item: Number


class Range(Body):
    """Consecutive offsets with one outcome."""

    job_id: JobId | None = None
    attempt: Attempt = 1
    first: Offset
    last: Offset
    succeeded: Count = 0
    failed: Count = 0
    skipped: Count = 0
    failed_items: list[FailedItems] = NONE
    resolves: list[Resolved] = NONE

    @property
    def length(self) -> int:
        """How many offsets."""
        return self.last - self.first + 1

    @model_validator(mode="after")
    def _holds(self) -> Self:
        length = self.last - self.first + 1
        if length < 1:
            raise ValueError("last is before first")
        counts = self.succeeded or self.failed or self.skipped
        if counts and length > SPAN_MAX:
            raise ValueError(f"a range that counts something spans at most {SPAN_MAX} offsets")
        if self.resolves and self.job_id is not None and counts:
            raise ValueError("a range that resolves adds nothing to a job by itself: its counts are zeros")
        if self.failed or self.failed_items:
            self._names_what_failed(length)
        return self

    def _names_what_failed(self, length: int) -> None:
        if length > 1:
            raise ValueError("a range with failed items has length 1")
        if sum(items.length for items in self.failed_items) != self.failed:
            raise ValueError("failed_items names exactly as many items as failed says")
        named = sorted((items.first, items.last) for items in self.failed_items)
        if any(after[0] <= before[1] for before, after in pairwise(named)):
            raise ValueError("failed_items names an item twice")


class Span(Body):
    """Consecutive offsets, whatever became of them."""

    first: Offset
    last: Offset

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if self.last < self.first:
            raise ValueError("last is before first")
        return self


class FailedThere(FailedItems):
    """Failed items of the message at `offset`."""

    offset: Offset


class Sum(Body):
    """What became of all items of one attempt of a job (or of none) in a report's spans."""

    job_id: JobId | None = None
    attempt: Attempt = 1
    succeeded: Total = 0
    failed: Total = 0
    skipped: Total = 0
    failed_items: list[FailedThere] = NONE

    @model_validator(mode="after")
    def _names_what_failed(self) -> Self:
        if sum(items.length for items in self.failed_items) != self.failed:
            raise ValueError("failed_items names exactly as many items as failed says")
        return self


class Report(Body):
    """What is settled in a partition of a topic: ranges, or spans and sums (docs/decisions/0015-sums-in-reports.md)."""

    topic: Text
    topic_id: Text
    partition: Number
    ranges: list[Range] = []
    spans: list[Span] = []
    """Accepted as a whole, and only where they touch nothing covered."""
    sums: list[Sum] = []

    @model_validator(mode="after")
    def _holds(self) -> Self:
        if self.spans and self.ranges:
            raise ValueError("a report has ranges, or spans with sums")
        for name, pieces in (("ranges", self.ranges), ("spans", self.spans)):
            _ascend(name, pieces)
        if self.spans or self.sums:
            self._adds_up(sum(span.last - span.first + 1 for span in self.spans))
        return self

    def _adds_up(self, length: int) -> None:
        if length > SPAN_MAX:
            raise ValueError(f"spans hold at most {SPAN_MAX} offsets")
        if len({(each.job_id, each.attempt) for each in self.sums}) < len(self.sums):
            raise ValueError("sums: an attempt of a job is named twice")
        if len(self.sums) > length:
            raise ValueError("sums: more than there are offsets in the spans")
        for name in ("succeeded", "failed", "skipped"):
            if sum(getattr(each, name) for each in self.sums) > length * COUNT_MAX:
                raise ValueError(f"sums: {name} is more than {COUNT_MAX} an offset")
        if any(each.failed_items for each in self.sums):
            self._names_what_failed()

    def _names_what_failed(self) -> None:
        named = sorted(
            (items.offset, items.first, items.last, of)
            for of, each in enumerate(self.sums)
            for items in each.failed_items
        )
        for (offset, _, last, of), (offset_after, first_after, _, of_after) in pairwise(named):
            if offset == offset_after and (of != of_after or first_after <= last):
                raise ValueError("failed_items names an item twice, or for two jobs")
        failed: dict[int, int] = {}
        for offset, first, last, _ in named:
            failed[offset] = failed.get(offset, 0) + last - first + 1
        if max(failed.values()) > COUNT_MAX:
            raise ValueError(f"sums: failed is more than {COUNT_MAX} an offset")
        spans = iter(self.spans)
        span = next(spans)
        for offset in failed:  # both ascend
            while span.last < offset:
                if (following := next(spans, None)) is None:
                    raise ValueError("failed_items names an offset outside of the spans")
                span = following
            if offset < span.first:
                raise ValueError("failed_items names an offset outside of the spans")


def _ascend(name: str, pieces: Sequence[Range | Span]) -> None:
    for index, (before, after) in enumerate(pairwise(pieces), start=1):
        if after.first <= before.last:
            raise ValueError(f"{name} are disjoint and ascending: {name}[{index}] starts before the end of the last")


class Standing(Body):
    """Where a worker stands in a partition: what it read up to, the end, items in hand and for how long the oldest is.

    For people to look at: nothing is counted or decided by it.
    """

    topic: Text
    topic_id: Text
    partition: Number
    position: Offset
    end: Offset | None = None
    pending: Offset = 0
    oldest_unsettled_ms: Offset = 0


class ProgressRequest(Body):
    """One report of one pipeline: several partitions, each once; and where its partitions stand, if it says so."""

    pipeline: Text
    reports: list[Report]
    partitions: Annotated[list[Standing], Field(max_length=PARTITIONS_MAX)] = []

    @model_validator(mode="after")
    def _names_each_partition_once(self) -> Self:
        named: dict[str, Sequence[Report | Standing]] = {"reports": self.reports, "partitions": self.partitions}
        for name, those in named.items():
            if len({(each.topic_id, each.partition) for each in those}) < len(those):
                raise ValueError(f"{name}: a partition is named twice")
        return self


class OpenJob(Body):
    """Open a job, or say more about it. What is not mentioned stays."""

    job_id: JobId
    source: Text
    workflow_id: Text | None = None
    total_items: Total | None = None
    pipelines: Annotated[list[Text], Field(min_length=1, max_length=100)] | None = None
    """The pipelines that count; without them the first that reports."""
    restart: bool = False
    """Open a new attempt, from zero."""


class InputReceived(Body):
    """An input that does not stream. Absolute: the first with an `input_id` decides. Without a total it is all."""

    input_id: Text = "input"
    succeeded: Count = 1
    failed: Count = 0
    skipped: Count = 0


class CloseJob(Body):
    """Why a job is ended by hand."""

    reason: Text


class JobState(BaseModel):
    """A job as it stands: absolute and versioned, so that of two states the one with the higher version is true."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    attempt: int
    version: int
    source: str
    workflow_id: str | None
    total_items: int | None
    succeeded: int
    failed: int
    skipped: int
    status: Status
    created_at: datetime
    completed_at: datetime | None
    signalled_at: datetime | None

    @property
    def processed(self) -> int:
        """What is compared with the total."""
        return self.succeeded + self.failed + self.skipped


class Job(JobState):
    """A job with what only the service needs."""

    pipelines: list[str] | None = None
    closed_reason: str | None = None
    changed_at: datetime


class JobDetail(Job):
    """A job with the state of its attempt's signal: `pending`, `sent`, `undeliverable`, or None before and without."""

    signal: str | None = None


class Overlap(BaseModel):
    """A report with sums of which an offset is covered already."""

    topic_id: str
    partition: int


class ProgressAnswer(BaseModel):
    """The states of the jobs concerned that are open or ended, and how many offsets were known already (accepted)."""

    jobs: list[JobState]
    known: int
    overlaps: list[Overlap] = []
    """Of these reports nothing was counted or covered: their ranges have to be sent."""


class JobPage(BaseModel):
    """Jobs, the newest first; `next` is what `before` takes for the page after."""

    jobs: list[JobState]
    next: str | None


class FailedAt(Body):
    """Where a message was first read: what a dead letter's `lovelace-origin` says, without the topic's name."""

    topic_id: Text
    partition: Number
    offset: Offset


class FindFailures(Body):
    """Which items of these messages failed, as the pipeline reported them."""

    pipeline: Text
    origins: Annotated[list[FailedAt], Field(max_length=ORIGINS_MAX)]


class Failure(BaseModel):
    """Items `first` to `last` of one message, failed for one reason, and those that a replayed letter has written."""

    pipeline: str
    topic_id: str
    partition: int
    offset: int
    first: int
    last: int
    reason: str
    job_id: str | None
    attempt: int
    resolved: list[tuple[int, int]]
    """Inclusive first and last items."""
    created_at: datetime

    @property
    def is_open(self) -> bool:
        """Whether an item of it is written by no replay yet."""
        return sum(last + 1 - first for first, last in self.resolved) < self.last + 1 - self.first


class FailurePage(BaseModel):
    """Failed items in the order of pipeline and place; `next` is what `after` takes for the page after."""

    failures: list[Failure]
    next: str | None


class FailuresFound(BaseModel):
    """Of the messages asked for those with failed items; what is not among them did not fail, or is forgotten."""

    failures: list[Failure]


class FailureReason(BaseModel):
    """How many items failed for a reason, and how many of them a replay has written since."""

    pipeline: str
    reason: str
    failed: int
    resolved: int


class FailureReasons(BaseModel):
    """The most frequent first."""

    reasons: list[FailureReason]


class PartitionState(BaseModel):
    """Where a pipeline stands in a partition, as its worker said last at `heard_at`; `stale`: not for a while."""

    pipeline: str
    topic: str
    topic_id: str
    partition: int
    position: int
    end: int | None
    lag: int | None
    pending: int
    oldest_unsettled_ms: int
    heard_at: datetime
    stale: bool


class PartitionList(BaseModel):
    """By pipeline, topic and partition."""

    partitions: list[PartitionState]


class Place(Body):
    """A row of failed items by its key, in a cursor's clothes."""

    pipeline: Text
    topic_id: Text
    partition: Number
    offset: Offset
    first: Number

    @classmethod
    def of(cls, failure: Failure) -> Self:
        """Where this failure stands."""
        return cls(**{name: getattr(failure, name) for name in cls.model_fields})

    @classmethod
    def from_cursor(cls, cursor: str) -> Self:
        """Raises `ValueError` (pydantic's is one) for what no page gave."""
        return cls.model_validate_json(urlsafe_b64decode(cursor.encode("ascii")))

    @property
    def cursor(self) -> str:
        """Opaque to whoever pages."""
        return urlsafe_b64encode(self.model_dump_json().encode()).decode()


class Cover(BaseModel):
    """What is settled, by partition: inclusive first and last offsets."""

    partitions: dict[str, list[tuple[int, int]]]
