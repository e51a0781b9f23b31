"""Dead letters as they lie in their topic: read, told apart by origin, counted by reason (for `lovelace dlq`)."""

import base64
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from confluent_kafka import Message

from lovelace_streams.peek import messages
from lovelace_streams.settings import Settings
from lovelace_streams.source import headers_of

FAILED = re.compile(r"(\d{1,6})-(\d{1,6}):(\w+)")
"""One run of `lovelace-failed-items`; whatever else stands there (anybody may write to the topic) is not one."""


class DeadLettered(msgspec.Struct, frozen=True):
    """One letter: where it came from, what of it failed and why."""

    origin: str
    timestamp: int
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

    def matches(self, reason: str | None, job: str | None) -> bool:
        """Whether it has this reason (for any of its items) and job."""
        reasons = {self.reason, *(named for _, _, named in FAILED.findall(self.failed))}
        return (reason is None or reason in reasons) and (job is None or job == self.job)

    @property
    def items(self) -> list[tuple[int, str]]:
        """The failed items with their reasons."""
        return [
            (item, reason)
            for first, last, reason in FAILED.findall(self.failed)
            for item in range(int(first), int(last) + 1)
        ]

    def shown(self, *, with_value: bool) -> dict[str, Any]:
        """As JSON; the value (base64 unless it is text) only where asked for."""
        shown = {name: getattr(self, name) for name in self.__struct_fields__ if name not in {"key", "value"}}
        if with_value and self.value is not None:
            try:
                shown["value"] = self.value.decode()
            except UnicodeDecodeError:
                shown["value_base64"] = base64.b64encode(self.value).decode()
        return shown


def read_letters(settings: Settings, topic: str, *, with_values: bool = False) -> Iterator[DeadLettered]:
    """All letters of a topic up to now, the last one of each origin; their values only where asked for.

    Raises `DeploymentFault` where there is no such topic, `DestinationFault` where the broker is away.
    """
    letters: dict[str, DeadLettered] = {}
    for message in messages(settings.kafka, topic):
        letter = letter_of(message, with_value=with_values)
        letters.pop(letter.origin, None)  # the last one, in the last one's place
        letters[letter.origin] = letter
    return iter(letters.values())


def letter_of(message: Message, *, with_value: bool) -> DeadLettered:
    named = {name: value.decode("utf-8", "replace") for name, value in headers_of(message) if value is not None}
    return DeadLettered(
        origin=named.get("lovelace-origin", f"?/{message.topic()}/{message.partition()}/{message.offset()}"),
        timestamp=_number(named.get("lovelace-origin-timestamp", ""), -1),
        reason=named.get("lovelace-reason", ""),
        detail=named.get("lovelace-detail", ""),
        step=named.get("lovelace-step", named.get("__connect.errors.stage", "")),
        job=named.get("lovelace-job-id", ""),
        failed=named.get("lovelace-failed-items", ""),
        replays=_number(named.get("lovelace-replays", ""), 0),
        truncated="lovelace-truncated" in named,
        key=message.key(),
        value=message.value() if with_value else None,
    )


def _number(text: str, otherwise: int) -> int:
    return int(text) if text.isdecimal() and len(text) < 20 else otherwise  # noqa: PLR2004 - more than 64 bits hold


def summary(letters: Iterable[DeadLettered], reason: str | None = None) -> list[tuple[str, str, str, int, int]]:
    """(reason, step, job, letters, items), the most frequent first; of one reason, if it is given."""
    items: Counter[tuple[str, str, str]] = Counter()
    count: Counter[tuple[str, str, str]] = Counter()
    for letter in letters:
        for named, number in Counter(named for _, named in letter.items).items():
            if reason in {None, named}:
                items[named, letter.step, letter.job] += number
                count[named, letter.step, letter.job] += 1
    return [(*key, count[key], number) for key, number in items.most_common()]
