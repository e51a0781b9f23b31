"""The requests and answers of the progress service. All validation of requests is here.

Counts are *per offset* and offsets are inclusive, so a range can be cut anywhere and means the same. A request with one
range that breaks a rule is refused with 422. A worker treats that as a bug: it stops and names the range.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema, model_validator

from lovelace_streams.records import Reason

SPAN_MAX = 1_000_000
"""Offsets in a range that counts something; a range of zeros (offsets that the broker skipped) may be longer."""
COUNT_MAX = 100_000
"""Items of one message."""
OFFSET_MAX = 2**63 - 2
"""One less than a bigint holds, because the end of a range is exclusive in Postgres."""
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
FirstLast = Annotated[
    tuple[int, int],
    WithJsonSchema({"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}),
]
"""Inclusive first and last. Its schema is one that every version of OpenAPI has: `prefixItems`, which pydantic writes,
came with 3.1, and tools make of it a list under `items`, which 3.1 has no more."""


EMPTY: Any = ()
"""The default of lists that are mostly left out. Pydantic copies a default list each time, which was a third of the
time to validate a report of 5,000 ranges."""


DESCENDING = "last is less than first: both are inclusive, and first comes first"
NAMES_TOO_FEW = "failed_items must name as many items as failed counts"


class Status(StrEnum):
    """The status of a job. A `stalled` job is open and has not changed for a while; any change makes it `open`."""

    OPEN = "open"
    COMPLETED = "completed"
    STALLED = "stalled"
    CLOSED = "closed"

    @property
    def ended(self) -> bool:
        """Whether the status is final. Counts may still change."""
        return self in (Status.COMPLETED, Status.CLOSED)


class Body(BaseModel):
    """A request: types are not converted, and unknown fields are refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class FailedItems(Body):
    """Items `first` to `last` of one message, which failed for one reason: of an undecodable chunk all of them."""

    first: Number
    last: Number
    reason: Annotated[Reason, Field(strict=False)]

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if self.last < self.first:
            raise ValueError(DESCENDING)
        return self

    @property
    def length(self) -> int:
        """The number of items."""
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
    failed_items: list[FailedItems] = EMPTY
    resolves: list[Resolved] = EMPTY

    @property
    def length(self) -> int:
        """The number of offsets."""
        return self.last - self.first + 1

    @model_validator(mode="after")
    def _holds(self) -> Self:
        length = self.last - self.first + 1
        if length < 1:
            raise ValueError(DESCENDING)
        counts = self.succeeded or self.failed or self.skipped
        if counts and length > SPAN_MAX:
            raise ValueError(f"the range counts items and spans more than {SPAN_MAX} offsets: split it")
        if self.resolves and self.job_id is not None and counts:
            raise ValueError("a range of a job that resolves items counts nothing by itself: its counts must be 0")
        if self.failed or self.failed_items:
            self._names_what_failed(length)
        return self

    def _names_what_failed(self, length: int) -> None:
        if length > 1:
            raise ValueError("a range with failed items must hold one offset: first and last are equal")
        if sum(items.length for items in self.failed_items) != self.failed:
            raise ValueError(NAMES_TOO_FEW)
        named = sorted((items.first, items.last) for items in self.failed_items)
        if any(after[0] <= before[1] for before, after in pairwise(named)):
            raise ValueError("failed_items names an item twice: name each item once")


class Span(Body):
    """Consecutive offsets, without their outcomes."""

    first: Offset
    last: Offset

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if self.last < self.first:
            raise ValueError(DESCENDING)
        return self


class FailedItemsAt(FailedItems):
    """Failed items of the message at `offset`."""

    offset: Offset


class Sum(Body):
    """The outcomes of all items of one attempt of a job (or of no job) in a report's spans."""

    job_id: JobId | None = None
    attempt: Attempt = 1
    succeeded: Total = 0
    failed: Total = 0
    skipped: Total = 0
    failed_items: list[FailedItemsAt] = EMPTY

    @model_validator(mode="after")
    def _names_what_failed(self) -> Self:
        if sum(items.length for items in self.failed_items) != self.failed:
            raise ValueError(NAMES_TOO_FEW)
        return self


class Report(Body):
    """The settled offsets of a partition: ranges, or spans and sums (docs/decisions/0015-sums-in-reports.md)."""

    topic: Text
    topic_id: Text
    partition: Number
    ranges: list[Range] = []
    spans: list[Span] = []
    """Accepted as a whole, and only if none of their offsets is covered."""
    sums: list[Sum] = []

    @model_validator(mode="after")
    def _holds(self) -> Self:
        if self.spans and self.ranges:
            raise ValueError("the report has both ranges and spans: send ranges, or spans with sums")
        for name, pieces in (("ranges", self.ranges), ("spans", self.spans)):
            _ascend(name, pieces)
        if self.spans or self.sums:
            self._adds_up(sum(span.last - span.first + 1 for span in self.spans))
        return self

    def _adds_up(self, length: int) -> None:
        if length > SPAN_MAX:
            raise ValueError(f"spans hold more than {SPAN_MAX} offsets: send them in several requests")
        if len({(each.job_id, each.attempt) for each in self.sums}) < len(self.sums):
            raise ValueError("sums name an attempt of a job twice: add their counts up")
        if len(self.sums) > length:
            raise ValueError("there are more sums than offsets in the spans: a sum belongs to at least one offset")
        for name in ("succeeded", "failed", "skipped"):
            if sum(getattr(each, name) for each in self.sums) > length * COUNT_MAX:
                raise ValueError(f"{name} of the sums is more than {COUNT_MAX} an offset of the spans")
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
                raise ValueError("failed_items of the sums name an item twice: name each item once, for one job")
        failed: dict[int, int] = {}
        for offset, first, last, _ in named:
            failed[offset] = failed.get(offset, 0) + last - first + 1
        if max(failed.values()) > COUNT_MAX:
            raise ValueError(f"failed_items of the sums name more than {COUNT_MAX} items of one offset")
        spans = iter(self.spans)
        span = next(spans)
        for offset in failed:  # both ascend
            while span.last < offset:
                if (following := next(spans, None)) is None:
                    raise ValueError("failed_items of the sums name an offset that is not in the spans")
                span = following
            if offset < span.first:
                raise ValueError("failed_items of the sums name an offset that is not in the spans")


def _ascend(name: str, pieces: Sequence[Range | Span]) -> None:
    for index, (before, after) in enumerate(pairwise(pieces), start=1):
        if after.first <= before.last:
            raise ValueError(f"{name}[{index}] starts before {name}[{index - 1}] ends: sort them, and let none overlap")


class PartitionStatus(Body):
    """How far a worker is in a partition: position, the partition's end, items in flight, the age of the oldest record.

    `waiting_for` is what it waits for, if it does: a schema that the registry does not give, say. The status is shown
    to people; the service counts and decides nothing by it.
    """

    topic: Text
    topic_id: Text
    partition: Number
    position: Offset
    end: Offset | None = None
    pending: Offset = 0
    oldest_unsettled_ms: Offset = 0
    waiting_for: Text | None = None


class ProgressRequest(Body):
    """The reports of one pipeline, each partition once, and the status of its partitions."""

    pipeline: Text
    reports: list[Report]
    partitions: Annotated[list[PartitionStatus], Field(max_length=PARTITIONS_MAX)] = []

    @model_validator(mode="after")
    def _names_each_partition_once(self) -> Self:
        lists: dict[str, Sequence[Report | PartitionStatus]] = {"reports": self.reports, "partitions": self.partitions}
        for name, members in lists.items():
            if len({(each.topic_id, each.partition) for each in members}) < len(members):
                raise ValueError(f"{name} name a partition twice: name each once")
        return self


class OpenJob(Body):
    """Open a job, or change it. A field that is left out stays as it is."""

    job_id: JobId
    source: Text
    workflow_id: Text | None = None
    total_items: Total | None = None
    pipelines: Annotated[list[Text], Field(min_length=1, max_length=100)] | None = None
    """The pipelines that count for the job; without them the first that reports."""
    restart: bool = False
    """Open a new attempt, which counts from zero."""


class InputReceived(Body):
    """An input that does not stream. The first with an `input_id` counts. A job without a total completes with it."""

    input_id: Text = "input"
    succeeded: Count = 1
    failed: Count = 0
    skipped: Count = 0


class CloseJob(Body):
    """End a job by hand, with a reason."""

    reason: Text


class JobState(BaseModel):
    """The state of a job: absolute and versioned, so of two states the one with the higher version is true."""

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
        """The items that are compared with the total."""
        return self.succeeded + self.failed + self.skipped


class Job(JobState):
    """A job with the fields that only the service needs."""

    pipelines: list[str] | None = None
    closed_reason: str | None = None
    changed_at: datetime


class JobDetail(Job):
    """A job with the state of its attempt's signal: `pending`, `sent`, `undeliverable`, or None before and without."""

    signal: str | None = None


class Problem(BaseModel):
    """Why a request was refused, and what to do; never a value of it."""

    detail: str


class Fault(BaseModel):
    """One fault of an invalid request."""

    loc: list[str | int]
    msg: str
    type: str


class Faults(BaseModel):
    """The faults of an invalid request: the first twenty."""

    detail: list[Fault]


class Overlap(BaseModel):
    """A report with sums, one of whose offsets is covered already."""

    topic_id: str
    partition: int


class ProgressAnswer(BaseModel):
    """The states of the jobs that the request concerns, and how many of its offsets were known before."""

    jobs: list[JobState]
    known: int
    overlaps: list[Overlap] = []
    """Nothing of these reports was counted or covered: send their ranges."""


class JobPage(BaseModel):
    """Jobs, the newest first; `next` is the `before` of the next page."""

    jobs: list[JobState]
    next: str | None


class FailedAt(Body):
    """Where a message was first read: a dead letter's `lovelace-origin` without the topic's name."""

    topic_id: Text
    partition: Number
    offset: Offset


class FindFailures(Body):
    """Ask which items of these messages failed, as the pipeline reported them."""

    pipeline: Text
    origins: Annotated[list[FailedAt], Field(max_length=ORIGINS_MAX)]


class Failure(BaseModel):
    """Items `first` to `last` of one message, which failed for one reason, and those a replay has written since."""

    pipeline: str
    topic_id: str
    partition: int
    offset: int
    first: int
    last: int
    reason: str
    job_id: str | None
    attempt: int
    resolved: list[FirstLast]
    """Inclusive first and last items."""
    created_at: datetime

    @property
    def is_open(self) -> bool:
        """Whether a replay has still to write an item of it."""
        return sum(last + 1 - first for first, last in self.resolved) < self.last + 1 - self.first


class FailurePage(BaseModel):
    """Failed items, ordered by pipeline and partition; `next` is the `after` of the next page."""

    failures: list[Failure]
    next: str | None


class FailuresFound(BaseModel):
    """The messages with failed items. A message that is not among them did not fail, or its failure was deleted."""

    failures: list[Failure]


class FailureReason(BaseModel):
    """How many items failed for a reason, and how many of them a replay has written since."""

    pipeline: str
    reason: str
    failed: int
    resolved: int


class FailureReasons(BaseModel):
    """Reasons, the most frequent first."""

    reasons: list[FailureReason]


class PartitionState(BaseModel):
    """The last status of a partition, which its worker reported at `heard_at`; `stale` after 30 seconds."""

    pipeline: str
    topic: str
    topic_id: str
    partition: int
    position: int
    end: int | None
    lag: int | None
    pending: int
    oldest_unsettled_ms: int
    waiting_for: str | None
    heard_at: datetime
    stale: bool


class PartitionList(BaseModel):
    """Partitions, ordered by pipeline, topic and partition."""

    partitions: list[PartitionState]


class Cursor(Body):
    """The key of the last failed item of a page, from which the next page begins."""

    pipeline: Text
    topic_id: Text
    partition: Number
    offset: Offset
    first: Number

    @classmethod
    def of(cls, failure: Failure) -> Self:
        """Take the key of a failed item."""
        return cls(**{name: getattr(failure, name) for name in cls.model_fields})

    @classmethod
    def decode(cls, text: str) -> Self:
        """Read what `encode` made. Raises `ValueError` (pydantic's is one) for any other text."""
        return cls.model_validate_json(urlsafe_b64decode(text.encode("ascii")))

    def encode(self) -> str:
        """Make a text that means nothing to the caller."""
        return urlsafe_b64encode(self.model_dump_json().encode()).decode()


class Cover(BaseModel):
    """The settled offsets by partition, as inclusive first and last offsets."""

    partitions: dict[str, list[FirstLast]]
