"""Avro's logical types → Python's values. A value past the range of its type is refused, never bent into another.

`converter` makes the function for a type. It raises `ValueError` or `OverflowError` for an instant past the years 1 to
9999, a time of another day, or a decimal with more digits than its precision.
"""

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from lovelace_streams.rows.coercion import EPOCH
from lovelace_streams.rows.decimals import EXACT

_EPOCH_DAY = date(1970, 1, 1).toordinal()
_EPOCH_LOCAL = datetime(1970, 1, 1)  # noqa: DTZ001 - a local timestamp has no zone: rows refuse it, functions may not
_DAY = 86_400_000_000


class Logical(msgspec.Struct, frozen=True):
    """A known logical type. Unknown ones are ignored, as the specification asks."""

    name: str
    precision: int = 0
    scale: int = 0


def converter(logical: Logical, kind: str) -> Callable[[Any], Any]:
    """Return the function from values of a primitive type (`kind`) to those of a logical type on it."""
    if logical.name == "decimal":
        return _decimal(logical.precision, logical.scale)
    if logical.name == "uuid":
        return (lambda raw: UUID(bytes=raw)) if kind == "fixed" else UUID
    return _SIMPLE[logical.name]


def _decimal(precision: int, scale: int) -> Callable[[bytes], Decimal]:
    limit = 10**precision

    def convert(raw: bytes) -> Decimal:
        unscaled = int.from_bytes(raw, "big", signed=True)
        if not -limit < unscaled < limit:
            raise ValueError("more digits than the precision")
        return Decimal(unscaled).scaleb(-scale, EXACT)

    return convert


def _time(micros: int) -> time:
    if not 0 <= micros < _DAY:
        raise ValueError("not within a day")
    seconds, micros = divmod(micros, 1_000_000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return time(hours, minutes, seconds, micros)


_SIMPLE: dict[str, Callable[[int], Any]] = {
    "date": lambda days: date.fromordinal(days + _EPOCH_DAY),
    "time-millis": lambda millis: _time(millis * 1000),
    "time-micros": _time,
    "timestamp-millis": lambda millis: EPOCH + timedelta(0, 0, millis * 1000),
    "timestamp-micros": lambda micros: EPOCH + timedelta(0, 0, micros),
    "local-timestamp-millis": lambda millis: _EPOCH_LOCAL + timedelta(0, 0, millis * 1000),
    "local-timestamp-micros": lambda micros: _EPOCH_LOCAL + timedelta(0, 0, micros),
}
