"""The messages that a test sends: anything that a topic could hold; what the test does not name has a default."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from lovelace_streams.flows.spec import Outgoing

FIRST_TIMESTAMP = datetime(2024, 1, 1, tzinfo=UTC)
"""Kafka's timestamp of the first message; each later one is a millisecond newer. A message may name its own."""


class Message(msgspec.Struct, frozen=True):
    """A message for `run` or `mapped`, with its key, headers, timestamp, topic and partition.

    `value`: bytes as they are, text in UTF-8, None for a tombstone, anything else as JSON. `timestamp` is Kafka's, a
    millisecond after the message before by default, the first at 2024-01-01 UTC. `job` and `items` (how many items the
    message holds) become the headers that `lovelace submit` writes. `topic` is by default the first that the flow
    reads. Raises `TypeError` when it is sent, if the value is not JSON.

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
    def of(cls, payload: Any) -> "Message":
        """Make a message of a payload, or of an `Outgoing` (which `SOURCE.messages` makes); a message is returned."""
        if isinstance(payload, Outgoing):
            return cls(payload.value, key=payload.key, items=payload.items)
        return payload if isinstance(payload, cls) else cls(payload)

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

    def ms(self, number: int) -> int:
        """Give its timestamp in milliseconds since 1970, as the `number`-th message (from 0)."""
        return int((self.timestamp or FIRST_TIMESTAMP).timestamp() * 1000) + (number if self.timestamp is None else 0)
