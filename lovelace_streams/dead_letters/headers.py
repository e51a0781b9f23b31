"""Make the headers of a dead letter: the message's own, Kafka Connect's, and this library's."""

from functools import lru_cache

from lovelace_streams.dead_letters.letter import PendingDeadLetter
from lovelace_streams.records import Reason, Record
from lovelace_streams.runtime.ranges import failed_items
from lovelace_streams.runtime.worker import WorkerContext

FAILED_ITEMS_BYTES_MAX = 32 * 1024
"""The longest list of failed items in a header, in bytes; the progress service has all of them."""
_MORE_BYTES = len(", …100000 more".encode())
_Headers = tuple[tuple[str, bytes], ...]


def letter_headers(
    letter: PendingDeadLetter, context: WorkerContext, *, truncated: bool = False
) -> list[tuple[str, bytes | None]]:
    """Make a letter's headers (docs/operators/dead_letter.md); none holds the message's value or key (law 10)."""
    record, first = letter.record, letter.first
    origin = record.origin
    if origin is not None:
        read_at = f"{origin.topic_id}/{origin.topic}/{origin.partition}/{origin.offset}"
        timestamp = origin.timestamp
    else:
        read_at = f"{_topic_id(record, context)}/{record.topic}/{record.partition}/{record.offset}"
        timestamp = record.timestamp
    source, failure, ours = _shared_headers(
        record.topic, record.partition, first.step, first.reason, first.detail, first.code
    )
    headers = [
        *[(name, value) for name, value in record.headers if name not in LETTER_HEADER_NAMES],
        *source,
        ("__connect.errors.offset", b"%d" % record.offset),
        *failure,
        ("lovelace-origin", read_at.encode()),
        ("lovelace-origin-timestamp", b"%d" % timestamp),
        ("lovelace-failed-items", failed_items_header(letter.failures).encode()),
        *ours,
        ("lovelace-replays", b"%d" % _replays(record)),
    ]
    if truncated:
        headers.append(("lovelace-truncated", b"%d" % len(record.value or b"")))
    return headers


def _topic_id(record: Record, context: WorkerContext) -> str:
    held = context.in_flight.current.get(record.assignment)
    return held.topic_id if held is not None else context.topic_id(record.topic)


@lru_cache(maxsize=256)
def _shared_headers(
    topic: str, partition: int, step: str, reason: Reason, detail: str, code: str
) -> tuple[_Headers, _Headers, _Headers]:
    """Make the headers that many letters share; making them for each letter was two thirds of its headers' cost."""
    return (
        (("__connect.errors.topic", topic.encode()), ("__connect.errors.partition", b"%d" % partition)),
        (
            ("__connect.errors.stage", step.encode()),
            ("__connect.errors.exception.class.name", b"lovelace_streams.errors.RecordFault." + reason.encode()),
        ),
        (
            ("lovelace-reason", reason.encode()),
            ("lovelace-detail", detail[:1000].encode()),
            ("lovelace-step", step.encode()),
            *((("lovelace-code", code.encode()),) if code else ()),
        ),
    )


LETTER_HEADER_NAMES = frozenset(
    [f"__connect.errors.{name}" for name in ("topic", "partition", "offset", "stage", "exception.class.name")]
    + [
        f"lovelace-{name}"
        for name in ("origin", "origin-timestamp", "failed-items", "reason", "detail", "step", "code")
    ]
    + ["lovelace-replays", "lovelace-truncated"]
)
"""Headers that a letter sets itself; the message's own headers of these names are left out."""


def failed_items_header(failures: dict[int, Reason]) -> str:
    """Write failed items as `first-last:reason, …`, cut short at `FAILED_ITEMS_BYTES_MAX`."""
    if len(failures) == 1:
        [(item, reason)] = failures.items()
        return f"{item}-{item}:{reason}"
    runs = failed_items({item: str(reason) for item, reason in failures.items()})
    text = ""
    for index, run in enumerate(runs):
        part = f"{', ' if text else ''}{run.first}-{run.last}:{run.reason}"
        if len(text) + len(part) > FAILED_ITEMS_BYTES_MAX - _MORE_BYTES:
            return f"{text}, …{len(runs) - index} more"
        text += part
    return text


def _replays(record: Record) -> int:
    """Give how often the message was replayed. The sender of a replay counts; other messages never were."""
    if record.origin is None:
        return 0
    text = next((v for name, v in reversed(record.headers) if name == "lovelace-replays"), None) or b"0"
    return int(text) if text.isdigit() and len(text) < 10 else 0  # noqa: PLR2004
