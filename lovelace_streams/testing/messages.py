"""What a test sends: anything that a topic could hold, with as little said as possible."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from lovelace_streams.flows.spec import Outgoing

FIRST_TIMESTAMP = datetime(2024, 1, 1, tzinfo=UTC)
"""Kafka's timestamp of the first message, unless it says another; each later one is a millisecond newer."""


class Message(msgspec.Struct, frozen=True):
    """A message and what a topic says of it.

    `value`: bytes as they are, text in UTF-8, None for a tombstone, all else as JSON. `job` and `items` become the
    headers that `lovelace submit` writes. Without a `topic` it is the first that the flow reads.

    >>> Message({"id": 7}, key="7", job="job-1").headers_sent
    [('lovelace-job-id', b'job-1')]
    """

    value: Any
    key: bytes | str | None = None
    headers: Mapping[str, bytes | str | None] | Sequence[tuple[str, bytes | None]] = ()
    timestamp: datetime | None = None
    job: str | None = None
    items: int | None = None
    topic: str | None = None
    partition: int = 0

    @classmethod
    def of(cls, it: Any) -> "Message":
        """A message as it is; of an `Outgoing` (what `SOURCE.messages` makes) key, value and items; else a value."""
        if isinstance(it, Outgoing):
            return cls(it.value, key=it.key, items=it.items)
        return it if isinstance(it, cls) else cls(it)

    @property
    def value_sent(self) -> bytes | None:
        """The value's bytes."""
        if self.value is None or isinstance(self.value, bytes):
            return self.value
        return self.value.encode() if isinstance(self.value, str) else msgspec.json.encode(self.value)

    @property
    def key_sent(self) -> bytes | None:
        """The key's bytes."""
        return self.key.encode() if isinstance(self.key, str) else self.key

    @property
    def headers_sent(self) -> list[tuple[str, bytes | None]]:
        """The headers, those of the job first."""
        named: list[tuple[str, bytes | None]] = []
        if self.job is not None:
            named.append(("lovelace-job-id", self.job.encode()))
        if self.items is not None:
            named.append(("lovelace-items", str(self.items).encode()))
        given = self.headers.items() if isinstance(self.headers, Mapping) else self.headers
        return named + [(name, value.encode() if isinstance(value, str) else value) for name, value in given]

    def ms(self, place: int) -> int:
        """Milliseconds since the epoch, of the message at this place among all that are sent."""
        return int((self.timestamp or FIRST_TIMESTAMP).timestamp() * 1000) + (place if self.timestamp is None else 0)
