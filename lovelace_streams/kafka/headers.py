"""What a message's headers say: job, attempt, number of items, and where a replayed letter came from.

Anybody may write to a topic, so what is not valid is no header, counted by name.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import cast

import msgspec
from confluent_kafka import Message

from lovelace_streams.observability import metrics
from lovelace_streams.records import ITEMS_MAX, Origin, Record
from lovelace_streams.runtime.in_flight import Assignment

JOB_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
OURS = frozenset(
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
    """What a message's headers say."""

    headers: Headers
    same: Headers | None = None
    """Headers equal to these say the same; None where one is not valid, which is counted each time."""
    job: str | None = None
    attempt: int = 1
    declared: int | None = None
    origin: Origin | None = None


NO_HEADERS = JobHeaders([], [])


def records_of(messages: Iterable[Message], assignment: Assignment) -> list[Record]:
    """Messages of one partition as records of its assignment, after what was read of that before.

    A job's messages mostly carry the same headers: comparing them with the last one's costs a tenth of reading
    them, and their list is shared, so nobody may change it.
    """
    topic, partition, number, after = assignment.topic, assignment.partition, assignment.number, assignment.next
    told = NO_HEADERS
    records = []
    for message in messages:
        offset = cast("int", message.offset())
        if offset < after:
            continue
        try:
            headers = cast("Headers", message.headers() or [])
        except UnicodeDecodeError:
            headers = headers_of(message)
        if headers != told.same:
            told = parse_job_headers(headers, topic)
        records.append(
            Record(
                topic,
                partition,
                offset,
                after,
                number,
                message.key(),
                message.value(),
                told.headers,
                message.timestamp()[1],
                told.job,
                told.attempt,
                told.declared,
                told.origin,
            )
        )
        after = offset + 1
    return records


def record_of(message: Message, assignment: Assignment) -> Record:
    """A message as a record of its assignment, which has read nothing from its offset on."""
    [record] = records_of([message], assignment)
    return record


def headers_of(message: Message) -> Headers:
    """The headers in their order; the client's type allows more than it ever gives."""
    try:
        return cast("Headers", message.headers() or [])
    except UnicodeDecodeError:  # a name that is not UTF-8: the client gives all or nothing
        metrics.BAD_HEADERS.labels("name").inc()
        return []


def parse_job_headers(headers: Headers, topic: str) -> JobHeaders:
    """Job, attempt, number of items and origin; the last of a name wins, what is not valid is no header."""
    told = JobHeaders(headers, headers)
    named = {name: value for name, value in headers if name in OURS and value is not None}
    if (job := named.get("lovelace-job-id")) is not None:
        told.job = _job(job)
        if told.job is not None:
            told.attempt = _number(named.get("lovelace-job-attempt"), 1, 2**31 - 1) or 1
        else:
            told.same = None
            metrics.BAD_HEADERS.labels("lovelace-job-id").inc()
    told.declared = _number(named.get("lovelace-items"), 0, ITEMS_MAX)
    if topic.endswith(".replay") and (origin := named.get("lovelace-origin")) is not None:
        told.origin = parse_origin(origin, named.get("lovelace-origin-timestamp"), named.get("lovelace-failed-items"))
    return told


@lru_cache(maxsize=1024)  # a job's messages all say the same
def _job(told: bytes) -> str | None:
    text = told.decode("ascii", "replace")
    return text if JOB_ID.match(text) else None


@lru_cache(maxsize=1024)
def _number(text: bytes | None, low: int, high: int) -> int | None:
    if text is None or not text.isdigit() or len(text) > 10:  # noqa: PLR2004 - digits of the largest one
        return None
    number = int(text)
    return number if low <= number <= high else None


def parse_origin(origin: bytes, timestamp: bytes | None, items: bytes | None) -> Origin | None:
    """The headers of a letter, as `dead_letter` wrote them; None where they are not ours.

    >>> parse_origin(b"id/topic/3/42", b"1700000000000", b"0-1:check, 7:null").items
    (0, 1, 7)
    """
    try:
        topic_id, rest = origin.decode().split("/", 1)
        topic, partition, offset = rest.rsplit("/", 2)
        # what the progress service takes, and no more: what it refuses stops the worker
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
            if not least <= int(first) <= int(last or first) < ITEMS_MAX:  # anybody may write to a replay topic
                return None
            numbers.extend(range(int(first), int(last or first) + 1))
        return Origin(topic_id, topic, int(partition), int(offset), int(timestamp or -1), tuple(numbers))
    except ValueError:
        return None
