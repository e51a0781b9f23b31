"""Read a message's headers: job, attempt, number of items, and the origin of a replayed letter.

Any producer may write to a topic, so an invalid header is read as absent, and counted by its name.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import islice
from operator import ge
from typing import cast

import msgspec
from confluent_kafka import Message

from lovelace_streams.columns import Chunk, Run
from lovelace_streams.observability import metrics
from lovelace_streams.records import ITEMS_MAX, Origin, Record
from lovelace_streams.runtime.in_flight import Assignment

JOB_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
READ_HEADERS = frozenset(
    {
        "lovelace-job-id",
        "lovelace-job-attempt",
        "lovelace-items",
        "lovelace-origin",
        "lovelace-origin-timestamp",
        "lovelace-failed-items",
    }
)
TOPIC_ID = re.compile(r"[^\x00-\x1f\x7f]{1,255}\Z")
Headers = list[tuple[str, bytes | None]]


class JobHeaders(msgspec.Struct, gc=False):
    """What a message's headers say, parsed once for messages with equal headers."""

    headers: Headers
    same: Headers | None = None
    """Messages with headers equal to these share the result; None if one is invalid, so that each message counts it."""
    job: str | None = None
    attempt: int = 1
    declared: int | None = None
    origin: Origin | None = None


NO_HEADERS = JobHeaders([], [])


def records_of(messages: Iterable[Message], assignment: Assignment) -> list[Record]:
    """Make records of one partition's messages; messages that its assignment has read already are left out.

    A job's messages mostly carry the same headers. Comparing them with those of the message before costs a tenth of
    parsing them. Their list is shared, so no step may change it.
    """
    topic, partition, number, after = assignment.topic, assignment.partition, assignment.number, assignment.next
    parsed = NO_HEADERS
    records = []
    for message in messages:
        offset = cast("int", message.offset())
        if offset < after:
            continue
        try:
            headers = cast("Headers", message.headers() or [])
        except UnicodeDecodeError:
            headers = headers_of(message)
        if headers != parsed.same:
            parsed = parse_job_headers(headers, topic)
        records.append(
            Record(
                topic,
                partition,
                offset,
                after,
                number,
                message.key(),
                message.value(),
                parsed.headers,
                message.timestamp()[1],
                parsed.job,
                parsed.attempt,
                parsed.declared,
                parsed.origin,
            )
        )
        after = offset + 1
    return records


def chunk_of(messages: Sequence[Message], assignment: Assignment) -> Chunk | None:
    """Make a chunk of one partition's messages, without those that its assignment has read; None if none is left.

    Each field is asked for by the method of their class: one of each message would be an object of its own.
    """
    message = messages[0].__class__
    offsets = cast("list[int]", list(map(message.offset, messages)))
    if offsets[0] < assignment.next or any(map(ge, offsets, islice(offsets, 1, None))):
        messages, offsets = _unread(messages, offsets, assignment.next)
        if not messages:
            return None
    return Chunk(
        assignment.topic,
        assignment.partition,
        assignment.number,
        offsets,
        list(map(message.key, messages)),
        list(map(message.value, messages)),
        [timestamp for _, timestamp in map(message.timestamp, messages)],
        _header_runs(_headers_of_all(messages), offsets, assignment),
    )


def _unread(messages: Sequence[Message], offsets: list[int], after: int) -> tuple[list[Message], list[int]]:
    """Leave out messages that were read before."""
    left: list[tuple[Message, int]] = []
    for message, offset in zip(messages, offsets, strict=True):
        if offset >= after:
            left.append((message, offset))
            after = offset + 1
    return [message for message, _ in left], [offset for _, offset in left]


def _headers_of_all(messages: Sequence[Message]) -> list[Headers | None]:
    try:
        return cast("list[Headers | None]", list(map(messages[0].__class__.headers, messages)))
    except UnicodeDecodeError:
        return [headers_of(message) for message in messages]


def _header_runs(headers: list[Headers | None], offsets: Sequence[int], assignment: Assignment) -> list[Run]:
    """Cut a chunk's messages into runs; the headers of each run are parsed once."""
    count, after = len(offsets), assignment.next
    runs: list[Run] = []
    parsed = NO_HEADERS
    is_whole = offsets[-1] - offsets[0] == count - 1
    if is_whole and headers.count(headers[0]) == count:  # nearly always: one job, and nothing is compacted
        parsed = parse_job_headers(headers[0] or [], assignment.topic)
        if parsed.same is not None:
            return [_run(0, count, offsets[0], after, parsed)]
        runs = [_run(0, 1, offsets[0], after, parsed)]
        after = offsets[0] + 1
    for place in range(len(runs), count):
        found, offset = headers[place], offsets[place]
        is_same = (found or []) == parsed.same
        if not is_same:
            parsed = parse_job_headers(found or [], assignment.topic)
        if is_same and runs and offset == after:
            runs[-1].stop = place + 1
        else:
            runs.append(_run(place, place + 1, offset, after, parsed))
        after = offset + 1
    return runs


def _run(start: int, stop: int, offset: int, after: int, parsed: JobHeaders) -> Run:
    return Run(start, stop, offset, after, parsed.headers, parsed.job, parsed.attempt, parsed.declared)


def has_replays(topic: str) -> bool:
    """Whether messages of a topic may be replayed letters: a pipeline's, or one that was named like it."""
    return topic.endswith(".replay")


def record_of(message: Message, assignment: Assignment) -> Record:
    """Make a record of a message that its assignment has not read yet."""
    [record] = records_of([message], assignment)
    return record


def headers_of(message: Message) -> Headers:
    """Give the headers in their order, with the type that the client really returns."""
    try:
        return cast("Headers", message.headers() or [])
    except UnicodeDecodeError:  # a name that is not UTF-8: the client returns no headers at all then
        metrics.BAD_HEADERS.labels("name").inc()
        return []


def parse_job_headers(headers: Headers, topic: str) -> JobHeaders:
    """Parse job, attempt, number of items and origin; the last header of a name wins, an invalid one is absent."""
    parsed = JobHeaders(headers, headers)
    named = {name: value for name, value in headers if name in READ_HEADERS and value is not None}
    if (job := named.get("lovelace-job-id")) is not None:
        parsed.job = _job(job)
        if parsed.job is not None:
            parsed.attempt = _number(named.get("lovelace-job-attempt"), 1, 2**31 - 1) or 1
        else:
            parsed.same = None
            metrics.BAD_HEADERS.labels("lovelace-job-id").inc()
    parsed.declared = _number(named.get("lovelace-items"), 0, ITEMS_MAX)
    if has_replays(topic) and (origin := named.get("lovelace-origin")) is not None:
        parsed.origin = parse_origin(origin, named.get("lovelace-origin-timestamp"), named.get("lovelace-failed-items"))
    return parsed


@lru_cache(maxsize=1024)  # a job's messages all carry the same value
def _job(value: bytes) -> str | None:
    text = value.decode("ascii", "replace")
    return text if JOB_ID.match(text) else None


@lru_cache(maxsize=1024)
def _number(text: bytes | None, low: int, high: int) -> int | None:
    if text is None or not text.isdigit() or len(text) > 10:  # noqa: PLR2004 - digits of the largest one
        return None
    number = int(text)
    return number if low <= number <= high else None


def parse_origin(origin: bytes, timestamp: bytes | None, items: bytes | None) -> Origin | None:
    """Parse the headers that `dead_letter` wrote; None if something else wrote them.

    >>> parse_origin(b"id/topic/3/42", b"1700000000000", b"0-1:check, 7:null").items
    (0, 1, 7)
    """
    try:
        topic_id, rest = origin.decode().split("/", 1)
        topic, partition, offset = rest.rsplit("/", 2)
        # The progress service's own limits: a report that it refuses would stop the worker.
        if not (
            TOPIC_ID.match(topic_id) and topic and 0 <= int(partition) < 2**31 - 1 and 0 <= int(offset) < 2**63 - 1
        ):
            return None
        numbers: list[int] = []
        for part in filter(None, (items or b"").decode().split(",")):
            if part.startswith(" …"):  # the list was too long for a header
                break
            first, _, last = part.strip().split(":", 1)[0].partition("-")
            least = numbers[-1] + 1 if numbers else 0  # ascending, so that no header names more than ITEMS_MAX
            if not least <= int(first) <= int(last or first) < ITEMS_MAX:  # any producer may write to a replay topic
                return None
            numbers.extend(range(int(first), int(last or first) + 1))
        return Origin(topic_id, topic, int(partition), int(offset), int(timestamp or -1), tuple(numbers))
    except ValueError:
        return None
