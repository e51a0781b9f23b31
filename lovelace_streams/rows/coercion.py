"""Plain value → column value: a function for each type, the authoritative side of `types`.

A plain value is what `values.parse` gives (`int`, `Decimal`, `str`, `bool`, None, `dict`, `list`), what Avro's logical
types give (`datetime`, `UUID`, …), or what a user's function returns. Every function raises `ConversionError` for a
value that it does not accept. None uses msgspec's `strict=False`, which accepts 1.0 as an int and "true" as a bool.
"""

import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec

from lovelace_streams.records import Reason
from lovelace_streams.rows.declaration import EPOCH_UNITS
from lovelace_streams.rows.values import DIGITS_MAX, INT_MAX, INT_MIN, ConversionError, fraction, json_type_name

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NANOSECONDS_PER_MICROSECOND = 1_000
WORDS = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True),
    **dict.fromkeys(("0", "false", "f", "no", "n", "off"), False),
}
"""The words that `Lenient` accepts for a `bool`, in upper or lower case: those that Postgres accepts."""
_INTEGER = re.compile(r"-?[0-9]+", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)
_LENIENT_NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*", re.ASCII)
"""What Postgres accepts for a `float`, but NaN, infinity and hexadecimal digits."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_NUMERIC_EXPONENT_MIN, _NUMERIC_EXPONENT_MAX = -16383, 131071  # of the digits that Postgres' numeric can hold


def wrong_type(expected: str, value: Any) -> ConversionError:
    """Make the error for a value of another JSON type."""
    return ConversionError(Reason.WRONG_TYPE, expected, json_type_name(value))


# ---- numbers, text, words -------------------------------------------------------------------------------------------


def to_int(value: Any) -> int:
    if isinstance(value, str):
        if not (value.isascii() and value.isdigit()) and not _INTEGER.fullmatch(value):
            raise wrong_type("int", value)
        if len(value) >= DIGITS_MAX:
            raise ConversionError(Reason.OUT_OF_RANGE, "int of 64 bits", "a longer one")
        value = int(value)
    elif isinstance(value, Decimal) and value.is_finite() and value.adjusted() + 2 >= DIGITS_MAX:
        raise ConversionError(Reason.OUT_OF_RANGE, "int of 64 bits", "a longer one")
    elif isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type("int", value)
    if not INT_MIN <= value <= INT_MAX:
        raise ConversionError(Reason.OUT_OF_RANGE, "int of 64 bits", "a longer one")
    return int(value)


def to_str(value: Any) -> str:
    if not isinstance(value, str):
        raise wrong_type("str", value)
    if not value.isprintable():  # NUL and surrogates are not printable, and most text is: one test instead of two
        if "\0" in value:
            raise ConversionError(Reason.BAD_VALUE, "str", "str with NUL")
        if _SURROGATE.search(value):
            raise ConversionError(Reason.BAD_VALUE, "str", "str with a lone surrogate")
    return value


def to_lenient_str(value: Any) -> str:
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return str(value)
    return to_str(value)


def to_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise wrong_type("bool", value)
    return value


def to_lenient_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, list | dict) or value is None:
        raise wrong_type("bool", value)
    word = WORDS.get(str(value).strip().lower())
    if word is None:
        raise ConversionError(Reason.BAD_VALUE, "bool", f"{json_type_name(value)} that says neither")
    return word


def to_float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise wrong_type("float", value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ConversionError(Reason.OUT_OF_RANGE, "float", "a number that is not finite")
    return number


def to_lenient_float(value: Any) -> float:
    if not isinstance(value, str):
        return to_float(value)
    if not _LENIENT_NUMBER.fullmatch(value):
        raise ConversionError(Reason.BAD_VALUE, "float", "str that is no number")
    return to_float(float(value))


def to_decimal(value: Any) -> Decimal:
    if isinstance(value, str):
        if not _NUMBER.fullmatch(value):
            raise ConversionError(Reason.BAD_VALUE, "Decimal", "str that is no number")
        value = fraction(value)
    elif isinstance(value, float):
        value = Decimal(repr(value))
    elif isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise wrong_type("Decimal", value)
    number = Decimal(value)
    if not number.is_finite():
        raise ConversionError(Reason.OUT_OF_RANGE, "Decimal", "a number that is not finite")
    if int(number.as_tuple().exponent) < _NUMERIC_EXPONENT_MIN or (
        number and number.adjusted() > _NUMERIC_EXPONENT_MAX
    ):
        raise ConversionError(Reason.OUT_OF_RANGE, "Decimal", "a number past Postgres' numeric")
    return number


# ---- instants and days ----------------------------------------------------------------------------------------------


def to_datetime(value: Any) -> datetime:
    if isinstance(value, str):
        try:
            value = iso_datetime(value)
        except ValueError:
            raise ConversionError(Reason.BAD_VALUE, "datetime", "str that is no ISO datetime") from None
        except OverflowError:
            raise ConversionError(Reason.BAD_VALUE, "datetime", "one past the years 1 to 9999") from None
    elif not isinstance(value, datetime):
        raise wrong_type("datetime", value)
    return utc(value)


def iso_datetime(text: str) -> datetime:
    """Read ISO 8601, with or without an offset; a leap second, `:60`, is the second after it.

    Raises `ValueError`, or `OverflowError` for a leap second that ends the year 9999.

    >>> iso_datetime("2016-12-31T23:59:60Z").isoformat(), iso_datetime("2017-01-01T01:00+01").isoformat()
    ('2017-01-01T00:00:00+00:00', '2017-01-01T01:00:00+01:00')
    """
    try:
        return msgspec.convert(text, datetime)
    except ValueError:  # it reads RFC 3339 only; ISO 8601 has more forms
        pass
    if leap := _LEAP_SECOND.match(text):
        return iso_datetime(f"{leap[1]}59{text[leap.end() :]}") + _SECOND
    if _OFFSET_PAST_59.search(text):  # `fromisoformat` reads +10:60 as +11:00
        raise ValueError("an offset with more than 59 minutes or seconds")
    return datetime.fromisoformat(text)


_LEAP_SECOND = re.compile(r"([0-9W-]{7,10}[Tt ][0-9]{2}(:?)[0-9]{2}\2)60(?![0-9])", re.ASCII)
_OFFSET_PAST_59 = re.compile(r"[Tt ].*[+-][0-9]{2}:?([6-9][0-9]|[0-9]{2}:?[6-9][0-9])", re.ASCII)
_SECOND = timedelta(seconds=1)


def utc(value: datetime) -> datetime:
    """Return the same instant in UTC; refuses one without offset, or that lies past the years 1 to 9999 in UTC."""
    if value.utcoffset() is None:
        raise ConversionError(Reason.BAD_VALUE, "datetime with offset", "one without")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ConversionError(Reason.BAD_VALUE, "datetime", "one past the years 1 to 9999") from None


def after_epoch(microseconds: int) -> datetime:
    """Return the instant that is so many microseconds after 1970; refuses one past the years 1 to 9999."""
    try:
        return EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        raise ConversionError(Reason.BAD_VALUE, "datetime", "a number past the years 1 to 9999") from None


def number_since_1970(instant: datetime, unit: str) -> int:
    """Return an instant as a whole number of units since 1970.

    >>> number_since_1970(datetime(1970, 1, 1, 0, 1, tzinfo=UTC), "ms")
    60000
    """
    return (instant - EPOCH) // timedelta(microseconds=1) * NANOSECONDS_PER_MICROSECOND // EPOCH_UNITS[unit]


def epoch_of(nanoseconds: int) -> Callable[[Any], datetime]:
    """Make a function for numbers since 1970, by the nanoseconds of their unit; parts of a microsecond are cut."""

    def coerce(value: Any) -> datetime:
        if isinstance(value, datetime):
            return utc(value)
        if isinstance(value, str):
            if not _NUMBER.fullmatch(value):
                raise ConversionError(Reason.BAD_VALUE, "number since 1970", "str that is no number")
            value = fraction(value)
        if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
            raise wrong_type("number since 1970", value)
        if isinstance(value, int):
            return after_epoch(value * nanoseconds // NANOSECONDS_PER_MICROSECOND)
        if not math.isfinite(float(value)):
            raise ConversionError(Reason.BAD_VALUE, "datetime", "a number past the years 1 to 9999")
        return after_epoch(round(float(value) * nanoseconds / NANOSECONDS_PER_MICROSECOND))

    return coerce


def to_date(value: Any) -> date:
    if isinstance(value, str):
        try:
            return msgspec.convert(value, date)
        except ValueError:  # a lone surrogate raises UnicodeEncodeError
            raise ConversionError(Reason.BAD_VALUE, "date", "str that is no ISO date") from None
    if isinstance(value, datetime) or not isinstance(value, date):
        raise wrong_type("date", value)
    return value


def to_uuid(value: Any) -> UUID:
    if isinstance(value, str):
        try:
            return msgspec.convert(value, UUID)
        except ValueError:
            raise ConversionError(Reason.BAD_VALUE, "UUID", "str that is none") from None
    if not isinstance(value, UUID):
        raise wrong_type("UUID", value)
    return value


# ---- choices --------------------------------------------------------------------------------------------------------


def choice_of(expected: str, members: dict[Any, Any]) -> Callable[[Any], Any]:
    """Make a function for an `Enum` or `Literal`; `members`: JSON value → the column's value."""
    types = {type(value) for value in members}

    def coerce(value: Any) -> Any:
        if isinstance(value, Enum) and value in members.values():
            return value
        if isinstance(value, Decimal | float):
            value = to_float(value)
        if type(value) not in types:
            raise wrong_type(expected, value)
        if value not in members:
            raise ConversionError(Reason.BAD_VALUE, expected, f"another {json_type_name(value)}")
        return members[value]

    return coerce
