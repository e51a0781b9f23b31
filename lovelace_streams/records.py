"""What flows: a `Record` as read, items in `Envelope`s, rows in `Batch`es, and the two ends `Settled`, `DeadLetter`.

    Record ─ decode ─▶ Envelope[raw item] ─ normalize ─▶ Envelope[Row] ─ batch ─▶ Batch ─ upsert ─▶ Settled
                  └──────────────────────────┴──── DeadLetter ─────────────────────────┘

An *item* is what is counted: a message holds one, or many (a chunk), or none. Everything here is a plain value that
survives pickling; nothing here knows Kafka's client, Bytewax or a database.
"""

from enum import StrEnum
from typing import Generic, TypeVar

import msgspec

ITEMS_MAX = 100_000
"""The most items that one message may hold (and the progress service counts for an offset)."""

P = TypeVar("P")
"""The payload of an envelope: bytes as read, a raw item as decoded, or a row (or tuple of rows) as normalized."""


class Outcome(StrEnum):
    """The closed set of ends that an item can come to (law 1)."""

    WRITTEN = "written"
    SUPERSEDED = "superseded"  # older than what is stored, or overwritten within its own batch; succeeded all the same
    DEAD_LETTERED = "dead_lettered"
    SKIPPED = "skipped"


class Reason(StrEnum):
    """Why an item was dead-lettered: a closed set, and an interface (docs/delivery-guarantees.md)."""

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
    """Why an item was skipped: a closed set. Skipped items count as processed."""

    UNKNOWN_EVENT = "unknown_event"
    TOMBSTONE = "tombstone"
    FILTERED = "filtered"
    EMPTY = "empty"
    SUPPRESSED = "suppressed"  # a trigger of the table returned nothing


class Origin(msgspec.Struct, frozen=True, gc=False):
    """Where a replayed message was first read: written once into a dead letter, never overwritten."""

    topic_id: str
    topic: str
    partition: int
    offset: int
    timestamp: int
    """Milliseconds since the epoch."""
    items: tuple[int, ...] = ()
    """The items to process again; the others of the message were settled when it was first read."""


class Record(msgspec.Struct, gc=False):
    """One Kafka message as read, shared by its items, with the tally that tells when its offset is settled."""

    topic: str
    partition: int
    offset: int
    after: int
    """The end of what was read before it in this assignment: offsets from here to `offset` do not exist."""
    assignment: int
    """The number of the assignment it was read in; what belongs to an ended one is dropped: the next owner reads it."""
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    timestamp: int
    """Milliseconds since the epoch, -1 where the message has none."""
    job: str | None = None
    attempt: int = 1
    declared: int | None = None
    """The header's number of items, None without one."""
    origin: Origin | None = None
    items: int = 0
    """How many items it holds: set by `decode`, or by whoever ends the message whole; 0 while unknown."""
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    failures: dict[int, str] | None = None
    """Failed item → reason."""


class Envelope(msgspec.Struct, Generic[P], gc=False):
    """One item on its way. `count` is above 1 only where a message ends whole (a chunk that does not decode)."""

    record: Record
    item: int
    payload: P
    count: int = 1


class Batch(msgspec.Struct, Generic[P], gc=False):
    """Rows that are written together, in the order read, and why the batch was closed (`rows`, `bytes` or `window`)."""

    envelopes: list[Envelope[P]]
    reason: str
    size: int
    """Bytes of the messages' values, shared out evenly among a message's items."""


class Settled(msgspec.Struct, gc=False):
    """Items whose effect is durable (law 2), with the one outcome they share."""

    outcome: Outcome
    envelopes: list[Envelope[object]]
    reason: SkipReason | None = None


class DeadLetter(msgspec.Struct, gc=False):
    """An item (or a whole message, `count` items from `item` on) that is its own fault; its value never appears."""

    record: Record
    item: int
    count: int
    step: str
    reason: Reason
    detail: str = ""
    """Path, what was expected and what kind was got, or the constraint or column: never a value (law 10)."""
    code: str = ""
    """SQLSTATE or another code of the destination; with `detail` what fail-fast compares (law 5)."""


class JobState(msgspec.Struct, frozen=True):
    """A job as the progress service sees it: absolute counts, and a version that only grows."""

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
