"""The values that flow: `Record` as read, `Envelope` of an item, `Batch` of rows, and `Settled` or `DeadLetter`.

    Record ─ decode ─▶ Envelope[raw item] ─ normalize ─▶ Envelope[Row] ─ batch ─▶ Batch ─ upsert ─▶ Settled
                  └──────────────────────────┴──── DeadLetter ─────────────────────────┘

An *item* is the unit that is counted: a message holds one, or many (a chunk), or none. All classes here are plain
values that survive pickling; none knows Kafka's client, Bytewax or a database.
"""

import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, Generic, TypeVar

import msgspec

ITEMS_MAX = 100_000
"""The most items that a message may hold, and that the progress service counts for an offset."""

P = TypeVar("P")
"""The payload of an envelope: bytes as read, a raw item as decoded, or a row (or tuple of rows) as normalized."""


class Outcome(StrEnum):
    """The closed set of an item's outcomes (law 1)."""

    WRITTEN = "written"
    SUPERSEDED = "superseded"  # older than the stored row, or overwritten within its own block; it counts as succeeded
    DEAD_LETTERED = "dead_lettered"
    SKIPPED = "skipped"


class Reason(StrEnum):
    """The closed set of reasons for a dead letter; users depend on it (docs/delivery-guarantees.md)."""

    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    NOT_AVRO = "not_avro"
    UNKNOWN_SCHEMA = "unknown_schema"
    TOO_LARGE = "too_large"
    TOO_DEEP = "too_deep"
    ITEMS_MISMATCH = "items_mismatch"
    MISSING = "missing"
    NULL = "null"
    WRONG_TYPE = "wrong_type"
    OUT_OF_RANGE = "out_of_range"
    BAD_VALUE = "bad_value"
    RULE = "rule"
    VERSION_IN_FUTURE = "version_in_future"
    NOT_NULL = "not_null"
    CHECK = "check"
    UNIQUE = "unique"
    FOREIGN_KEY = "foreign_key"
    REFUSED = "refused"
    HARMS_DESTINATION = "harms_destination"


class SkipReason(StrEnum):
    """The closed set of reasons for skipping an item. Skipped items count as processed.

    A flow closes it with reasons of its own: `skip_reasons`.
    """

    UNKNOWN_EVENT = "unknown_event"
    NO_EVENT = "no_event"  # the field that names the event is absent, or has no name
    TOMBSTONE = "tombstone"
    FILTERED = "filtered"
    EMPTY = "empty"
    SUPPRESSED = "suppressed"  # a trigger of the table returned nothing


_SKIP_NAME = re.compile(r"[a-z_]{1,40}\Z")


def check_skip_name(name: object) -> None:
    """Raise `ValueError` for a name that can't be a reason for skipping: metrics have it as a label."""
    if not isinstance(name, str) or not _SKIP_NAME.match(name):
        raise ValueError("a reason for skipping has 1 to 40 letters a-z or _, such as 'draft'")


def skip_reasons(own: Iterable[str] = ()) -> frozenset[str]:
    """Return the reasons that a flow may skip items for: ours, and those that it declares as its own.

    The set is closed again, so labels of metrics stay few. Raises `TypeError` for a text instead of a collection, and
    `ValueError` for a name that can't be a reason, or that has a meaning already.

    >>> sorted(skip_reasons(["draft"]) - set(SkipReason))
    ['draft']
    """
    if isinstance(own, str):
        raise TypeError(f"skips={own!r} is one text: write skips=({own!r},)")
    declared = frozenset(own)
    for name in declared:
        check_skip_name(name)
        if name in _TAKEN:
            raise ValueError(
                f"the reason {name!r} has a meaning already: leave it out if it is meant, or choose another"
            )
    return declared | frozenset(SkipReason)


_TAKEN = frozenset((*SkipReason, *Reason, *Outcome))


class Origin(msgspec.Struct, frozen=True, gc=False):
    """Where a replayed message was first read; written once into a dead letter, never overwritten."""

    topic_id: str
    topic: str
    partition: int
    offset: int
    timestamp: int
    """Milliseconds since the epoch."""
    items: tuple[int, ...] = ()
    """The items to process again; the message's other items were settled when it was first read."""


class Record(msgspec.Struct, gc=False):
    """One Kafka message as read, shared by its items, with the counts that tell when its offset is settled."""

    topic: str
    partition: int
    offset: int
    after: int
    """The offset after the previous record of this assignment: offsets from here to `offset` do not exist."""
    assignment: int
    """The number of the assignment it was read in. Records of an ended one are dropped: the next owner reads them."""
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    timestamp: int
    """Milliseconds since the epoch, -1 if the message has none."""
    job: str | None = None
    attempt: int = 1
    declared: int | None = None
    """The number of items that the header declares, None without the header."""
    origin: Origin | None = None
    items: int = 0
    """How many items it holds, 0 while unknown. Set by `decode`, or by the step that ends the message as a whole."""
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    failures: dict[int, str] | None = None
    """Failed item → reason."""


class Envelope(msgspec.Struct, Generic[P], gc=False):
    """One item on its way. `count` is above 1 only if a message ends as a whole (a chunk that does not decode)."""

    record: Record
    item: int
    payload: P
    count: int = 1


class Batch(msgspec.Struct, Generic[P], gc=False):
    """Rows to write together, in the order read; `reason` is why the batch was closed: `rows`, `bytes` or `window`."""

    parts: list[Any]
    """Items (`Envelope`), and slices of columns (`columns.Slice`), each of which is several items."""
    reason: str
    size: int
    """Bytes of the messages' values; each item of a message counts an equal share."""
    count: int = 0
    """How many items it has."""

    def __post_init__(self) -> None:
        self.count = self.count or sum([1 if part.__class__ is Envelope else len(part) for part in self.parts])

    @property
    def envelopes(self) -> list[Envelope[P]]:
        """The rows, item by item."""
        return envelopes_of(self.parts)


class Settled(msgspec.Struct, gc=False):
    """Items whose effect is durable (law 2), with the outcome that they share."""

    outcome: Outcome
    parts: list[Any]
    """Items (`Envelope`), and slices of columns (`columns.Slice`), each of which is several items."""
    reason: str | None = None
    """Why they are skipped: a `SkipReason`, or one that the flow declares. None for other outcomes."""

    @property
    def envelopes(self) -> list[Envelope[Any]]:
        """All of it, item by item."""
        return envelopes_of(self.parts)


def envelopes_of(parts: Sequence[Any]) -> list[Envelope[Any]]:
    """Return items, and slices of columns, item by item."""
    if set(map(type, parts)) <= {Envelope}:
        return list(parts)
    return [e for part in parts for e in ((part,) if part.__class__ is Envelope else part.envelopes())]


class DeadLetter(msgspec.Struct, gc=False):
    """An item, or a message's `count` items from `item` on, that failed by the record's fault; it holds no value."""

    record: Record
    item: int
    count: int
    step: str
    reason: Reason
    detail: str = ""
    """The path, the expected type and the type found; or the constraint or column. Never a value (law 10)."""
    code: str = ""
    """SQLSTATE or another code of the destination. Fail-fast compares `code` and `detail` (law 5)."""


class JobState(msgspec.Struct, frozen=True):
    """A job as the progress service has it: absolute counts, and a version that only grows."""

    job_id: str
    attempt: int
    version: int
    source: str | None
    workflow_id: str | None
    total_items: int | None
    succeeded: int
    failed: int
    skipped: int
    status: str
