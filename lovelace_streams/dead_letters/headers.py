"""What a dead letter says of itself: the original headers, Kafka Connect's names, and ours."""

from functools import lru_cache

from lovelace_streams.dead_letters.letter import PendingDeadLetter
from lovelace_streams.records import Reason, Record
from lovelace_streams.runtime.ranges import failed_items
from lovelace_streams.sources.kafka import KafkaSource

NAMES_MAX = 32 * 1024
"""The longest list of failed items in a header, in bytes; the progress service has all of them."""
MORE = len(", …100000 more".encode())
_Headers = tuple[tuple[str, bytes], ...]


def letter_headers(
    letter: PendingDeadLetter, source: KafkaSource, *, truncated: bool = False
) -> list[tuple[str, bytes | None]]:
    """The original headers, Kafka Connect's names, and ours (docs/operators/dead_letter.md); no value, no key."""
    record, first = letter.record, letter.first
    origin = record.origin
    if origin is not None:
        at = f"{origin.topic_id}/{origin.topic}/{origin.partition}/{origin.offset}"
        timestamp = origin.timestamp
    else:
        at = f"{_topic_id(record, source)}/{record.topic}/{record.partition}/{record.offset}"
        timestamp = record.timestamp
    place, cause, why = _said(record.topic, record.partition, first.step, first.reason, first.detail)
    headers = [
        *[each for each in record.headers if each[0] not in NAMES],
        *place,
        ("__connect.errors.offset", b"%d" % record.offset),
        *cause,
        ("lovelace-origin", at.encode()),
        ("lovelace-origin-timestamp", b"%d" % timestamp),
        ("lovelace-failed-items", _names(letter.failures).encode()),
        *why,
        ("lovelace-replays", b"%d" % _replays(record)),
    ]
    if truncated:
        headers.append(("lovelace-truncated", b"%d" % len(record.value or b"")))
    return headers


def _topic_id(record: Record, source: KafkaSource) -> str:
    held = source.in_flight.current.get(record.assignment)
    return held.topic_id if held is not None else source.topic_id(record.topic)


@lru_cache(maxsize=256)
def _said(topic: str, partition: int, step: str, reason: Reason, detail: str) -> tuple[_Headers, _Headers, _Headers]:
    """What is the same for many letters: making it anew for each was two thirds of its headers."""
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
        ),
    )


NAMES = frozenset(
    [f"__connect.errors.{name}" for name in ("topic", "partition", "offset", "stage", "exception.class.name")]
    + [f"lovelace-{name}" for name in ("origin", "origin-timestamp", "failed-items", "reason", "detail", "step")]
    + ["lovelace-replays", "lovelace-truncated"]
)
"""What a letter says anew, whatever the message's own headers said."""


def _names(failures: dict[int, Reason]) -> str:
    if len(failures) == 1:
        [(item, reason)] = failures.items()
        return f"{item}-{item}:{reason}"
    runs = failed_items({item: str(reason) for item, reason in failures.items()})
    text = ""
    for at, run in enumerate(runs):
        part = f"{', ' if text else ''}{run.first}-{run.last}:{run.reason}"
        if len(text) + len(part) > NAMES_MAX - MORE:
            return f"{text}, …{len(runs) - at} more"
        text += part
    return text


def _replays(record: Record) -> int:
    """Counted by whoever sends a replay; a message of the source's own topics was never replayed."""
    if record.origin is None:
        return 0
    text = next((v for name, v in reversed(record.headers) if name == "lovelace-replays"), None) or b"0"
    return int(text) if text.isdigit() and len(text) < 10 else 0  # noqa: PLR2004
