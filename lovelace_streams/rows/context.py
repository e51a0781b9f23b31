"""`RecordContext`: what Kafka says of a message, for rows that a user's function makes of it."""

from datetime import datetime, timedelta
from typing import Self

import msgspec

from lovelace_streams.records import Record
from lovelace_streams.rows.coercion import EPOCH, after_epoch
from lovelace_streams.rows.values import ConversionError

_MILLISECOND = timedelta(milliseconds=1)


class RecordContext(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Kafka's values of a message. A mapping function gets it as `of`, and hands it on to `Row.from_raw`.

    A replayed dead letter has those of the message that was first read; its key and headers are the letter's. In a test
    the values are made up. Raises `ValueError` for a timestamp without an offset from UTC.

    >>> from datetime import UTC
    >>> RecordContext(timestamp=datetime(2024, 1, 1, tzinfo=UTC), offset=7).offset
    7
    """

    timestamp: datetime | None = None
    """None if the message has none."""
    topic: str = ""
    partition: int = 0
    offset: int = 0
    key: bytes | None = None
    headers: list[tuple[str, bytes | None]] = []

    def __post_init__(self) -> None:
        if self.timestamp is not None and self.timestamp.tzinfo is None:
            raise ValueError("timestamp needs an offset from UTC: datetime(…, tzinfo=UTC)")

    @classmethod
    def of(cls, record: Record) -> Self:
        """Take the values of a record. Raises `RecordFault` for a timestamp past the year 9999."""
        first = record.origin or record
        try:
            timestamp = after_epoch(first.timestamp * 1000) if first.timestamp >= 0 else None
        except ConversionError as error:
            raise error.at("Kafka's timestamp") from None
        return cls(
            timestamp=timestamp,
            topic=first.topic,
            partition=first.partition,
            offset=first.offset,
            key=record.key,
            headers=record.headers,
        )

    def record(self) -> Record:
        """Make a record with these values, which the mapping reads."""
        timestamp = -1 if self.timestamp is None else (self.timestamp - EPOCH) // _MILLISECOND
        return Record(self.topic, self.partition, self.offset, self.offset, 0, self.key, None, self.headers, timestamp)


class NoContextError(TypeError):
    """A row class reads Kafka's values, and `Row.from_raw` was given none. Its text holds no value (law 10)."""

    def __init__(self, row: str, columns: list[str]) -> None:
        *others, last = columns
        named = f"{', '.join(others)} and {last}" if others else last
        super().__init__(
            f"{row} reads {named} from Kafka's message, and from_raw got none: let the mapping function take it,"
            f" `def rows(item, *, of)`, and hand it on, {row}.from_raw(item, of=of); in a test make it up,"
            " of=RecordContext(timestamp=…)"
        )


def record_of(of: RecordContext | Record) -> Record:
    """Return the record that a row is made of. Raises `TypeError` for anything else."""
    if isinstance(of, RecordContext):
        return of.record()
    if isinstance(of, Record):
        return of
    raise TypeError(f"of= takes a RecordContext or a Record, not a {type(of).__name__}")
