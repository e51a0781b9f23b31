"""Times and dates as the integers that ClickHouse stores: since 1970, in the precision of the column."""

from array import array
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

from lovelace_streams.writers.clickhouse.messagepack import microseconds
from lovelace_streams.writers.clickhouse.native import from_little_endian
from lovelace_streams.writers.clickhouse.types import MICROSECOND_DIGITS, ClickHouseType

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_DAY = date(1970, 1, 1)
MICROSECOND = timedelta(microseconds=1)
DATE_BOUNDS = EPOCH_DAY, EPOCH_DAY + timedelta(days=2**16 - 1)
DATE32_BOUNDS = date(1900, 1, 1), date(2299, 12, 31)

_EPOCH_ORDINAL = EPOCH_DAY.toordinal()
_DATETIME_MAX = EPOCH + timedelta(seconds=2**32 - 1)
_DATETIME64_MIN = datetime(1900, 1, 1, tzinfo=UTC)
_DATETIME64_MAX = datetime(2299, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
_NANOSECOND_DIGITS = 9
_NANOSECONDS_MAX = datetime(2262, 4, 11, tzinfo=UTC)
"""Nanoseconds since 1970 reach the end of 64 bits in 2262."""


def time_bounds(column: ClickHouseType) -> tuple[datetime, datetime]:
    """Return the first and the last time that a DateTime or DateTime64 column holds."""
    if column.name == "DateTime":
        return EPOCH, _DATETIME_MAX
    return _DATETIME64_MIN, _NANOSECONDS_MAX if column.fractional_digits == _NANOSECOND_DIGITS else _DATETIME64_MAX


def microseconds_of(value: datetime) -> int:
    """Return microseconds since 1970; raises `ValueError` for a time without offset.

    ClickHouse would read such a time in the server's time zone.
    """
    if value.tzinfo is None:
        raise ValueError("a time without offset")
    return (value - EPOCH) // MICROSECOND


def at_precision(microseconds: int, digits: int) -> int:
    """Convert microseconds to a column's precision, `digits` after the second; finer digits are cut off."""
    if digits > MICROSECOND_DIGITS:
        return int(microseconds * 10 ** (digits - MICROSECOND_DIGITS))
    return int(microseconds // 10 ** (MICROSECOND_DIGITS - digits))


def days_of_all(values: Sequence[date]) -> list[int]:
    """Return days since 1970."""
    return [value.toordinal() - _EPOCH_ORDINAL for value in values]


def microseconds_of_all(values: Sequence[datetime]) -> "array[int]":
    """Return microseconds since 1970, as `microseconds_of` does; raises `TypeError` for a time without offset."""
    packed = microseconds(values)
    if packed is not None:
        return from_little_endian("q", packed)
    return array("q", [(value - EPOCH) // MICROSECOND for value in values])
