"""Read dead letters from their topic, one for each origin; filter them, count them by reason (for `lovelace dlq`)."""

import base64
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, cast

import msgspec
from confluent_kafka import Message

from lovelace_streams.kafka.headers import headers_of, parse_origin
from lovelace_streams.kafka.topic_reader import messages
from lovelace_streams.records import ITEMS_MAX, Origin
from lovelace_streams.settings import KafkaSettings, Settings

FAILED_ITEMS = re.compile(r"(\d{1,6})-(\d{1,6}):(\w+)")
"""One run of `lovelace-failed-items`; other text is ignored, because any producer may write to the topic."""

NO_TOPIC_ID = "?"
"""The topic id of a letter without an origin, which is identified by its own position instead."""
LetterPosition = tuple[int, int]
"""Partition and offset in the dead-letter topic."""


class StoredDeadLetter(msgspec.Struct, frozen=True):
    """A letter as its topic holds it: its origin, which items failed, and why."""

    origin: str
    timestamp: int
    """The timestamp of the message when it was first read, in milliseconds since 1970."""
    reason: str
    detail: str
    step: str
    job: str
    failed: str
    """`first-last:reason, …`"""
    replays: int
    truncated: bool
    key: bytes | None
    value: bytes | None
    at: int = -1
    """When the letter was sent, in milliseconds since 1970."""
    position: LetterPosition = (0, 0)
    bytes: int = 0
    code: str = ""
    """The destination's code for the first failed item: its SQLSTATE, or ClickHouse's."""

    def matches(self, reason: str | None, job: str | None) -> bool:
        """Whether it has this reason (for any of its items) and job."""
        return Filter(reason=reason, job=job).takes(self)

    @property
    def items(self) -> list[tuple[int, str]]:
        """The failed items with their reasons; runs must ascend, so that no header names more than `ITEMS_MAX`."""
        items: list[tuple[int, str]] = []
        for first, last, reason in FAILED_ITEMS.findall(self.failed):
            if (items[-1][0] if items else -1) < int(first) and int(last) < ITEMS_MAX:
                items += [(item, reason) for item in range(int(first), int(last) + 1)]
        return items

    @property
    def source(self) -> Origin | None:
        """Its origin in parts, with the failed items; None if this library did not write the headers."""
        if self.origin.startswith(f"{NO_TOPIC_ID}/"):
            return None
        return parse_origin(self.origin.encode(), str(self.timestamp).encode(), self.failed.encode())

    def shown(self, *, with_value: bool) -> dict[str, Any]:
        """Give it as JSON, with the value (base64 unless it is text) if `with_value`."""
        hidden = {"key", "value", "at", "position", "bytes"}
        shown = {name: getattr(self, name) for name in self.__struct_fields__ if name not in hidden}
        if with_value and self.value is not None:
            try:
                shown["value"] = self.value.decode()
            except UnicodeDecodeError:
                shown["value_base64"] = base64.b64encode(self.value).decode()
        return shown


class Filter(msgspec.Struct, frozen=True):
    """Which letters a command is about; a field that is None matches all.

    >>> letter = StoredDeadLetter("id/orders/2/41", 0, "null", "", "normalize", "june", "0-0:null", 0, *[None] * 3)
    >>> Filter(job="june", offsets=(40, 50)).takes(letter), Filter(reason="check").takes(letter)
    (True, False)
    """

    reason: str | None = None
    """The reason of any of its items."""
    job: str | None = None
    step: str | None = None
    topic: str | None = None
    """The topic that its message was first read from; `partition` and `offsets` (first, last) are of that topic."""
    partition: int | None = None
    offsets: tuple[int, int] | None = None
    since: int | None = None
    """The earliest time that it was sent, in milliseconds since 1970."""
    until: int | None = None
    """The end (exclusive) of the time that it was sent."""

    def takes(self, letter: StoredDeadLetter) -> bool:
        """Whether it matches a letter."""
        return (
            (self.reason is None or self.reason in {letter.reason, *(named for _, named in letter.items)})
            and self.job in {None, letter.job}
            and self.step in {None, letter.step}
            and (self.since is None or letter.at >= self.since)
            and (self.until is None or letter.at < self.until)
            and self._takes_origin(letter)
        )

    def _takes_origin(self, letter: StoredDeadLetter) -> bool:
        if self.topic is None and self.partition is None and self.offsets is None:
            return True
        origin = letter.source
        return (
            origin is not None
            and self.topic in {None, origin.topic}
            and self.partition in {None, origin.partition}
            and (self.offsets is None or self.offsets[0] <= origin.offset <= self.offsets[1])
        )


def read_letters(
    settings: Settings | KafkaSettings, topic: str, *, with_values: bool = False
) -> Iterator[StoredDeadLetter]:
    """Read the letters that a topic holds now, the last one of each origin, with their values if `with_values`.

    Raises `NoSuchTopic`, and `DestinationFault` if the broker is away.
    """
    letters: dict[str, StoredDeadLetter] = {}
    for message in messages(settings if isinstance(settings, KafkaSettings) else settings.kafka, topic):
        letter = letter_of(message, with_value=with_values)
        before = letters.pop(letter.origin, None)  # the last one replaces it, and comes later in the order
        if before is not None and before.replays > letter.replays:  # its message was read again since (a rewind)
            letter = msgspec.structs.replace(letter, replays=before.replays)
        letters[letter.origin] = letter
    return iter(letters.values())


def letter_of(message: Message, *, with_value: bool) -> StoredDeadLetter:
    """Make a letter of a message of the topic; headers that are absent or invalid become empty values."""
    named = {name: value.decode("utf-8", "replace") for name, value in headers_of(message) if value is not None}
    value = message.value()
    return StoredDeadLetter(
        origin=named.get(
            "lovelace-origin", f"{NO_TOPIC_ID}/{message.topic()}/{message.partition()}/{message.offset()}"
        ),
        timestamp=_number(named.get("lovelace-origin-timestamp", ""), -1),
        reason=named.get("lovelace-reason", ""),
        detail=named.get("lovelace-detail", ""),
        code=named.get("lovelace-code", ""),
        step=named.get("lovelace-step", named.get("__connect.errors.stage", "")),
        job=named.get("lovelace-job-id", ""),
        failed=named.get("lovelace-failed-items", ""),
        replays=replays_of(named.get("lovelace-replays", "")),
        truncated="lovelace-truncated" in named,
        key=message.key(),
        value=value if with_value else None,
        at=message.timestamp()[1],
        position=cast("LetterPosition", (message.partition(), message.offset())),
        bytes=len(value or b""),
    )


def replays_of(text: str) -> int:
    """Parse `lovelace-replays`; 0 if it is absent or invalid."""
    return _number(text, 0)


def _number(text: str, otherwise: int) -> int:
    return int(text) if text.isdecimal() and len(text) < 20 else otherwise  # noqa: PLR2004 - more than 64 bits hold


def summary(letters: Iterable[StoredDeadLetter], reason: str | None = None) -> list[tuple[str, str, str, int, int]]:
    """Count letters: (reason, step, job, letters, items), the most frequent first, then by name.

    With a `reason` only the items that failed for it count.
    """
    items: Counter[tuple[str, str, str]] = Counter()
    count: Counter[tuple[str, str, str]] = Counter()
    for letter in letters:
        for named, number in Counter(named for _, named in letter.items).items():
            if reason in {None, named}:
                items[named, letter.step, letter.job] += number
                count[named, letter.step, letter.job] += 1
    return [(*key, count[key], number) for key, number in sorted(items.items(), key=lambda pair: (-pair[1], pair[0]))]
