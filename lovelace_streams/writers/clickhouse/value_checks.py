"""Which ClickHouse type can hold which Python type, and how one value is checked before it is sent.

ClickHouse's client cuts or wraps some values, and refuses a whole block for others without naming the row. So every
value is checked here, by the type of its column, with the code that the server has for it. A check changes nothing but
times: they are cut to the precision that the column declares. column_checks.py has the same checks for a whole column.
"""

import math
from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, get_args, get_origin
from uuid import UUID

import msgspec
from msgspec import UNSET

from lovelace_streams.records import Reason
from lovelace_streams.rows.decimals import fits_scale
from lovelace_streams.rows.json_values import json_text
from lovelace_streams.rows.types import scalar
from lovelace_streams.writers.clickhouse.faults import (
    DECIMAL_OVERFLOW,
    INCORRECT_DATA,
    NULL_IN_ORDINARY_COLUMN,
    TOO_LARGE_STRING_SIZE,
    TYPE_MISMATCH,
    UNKNOWN_ENUM_ELEMENT,
    VALUE_OUT_OF_RANGE,
    ColumnValueError,
)
from lovelace_streams.writers.clickhouse.times import (
    DATE32_BOUNDS,
    DATE_BOUNDS,
    EPOCH_DAY,
    at_precision,
    microseconds_of,
    time_bounds,
)
from lovelace_streams.writers.clickhouse.types import INTEGER_BOUNDS, ClickHouseType

ValueCheck = Callable[[Any], Any]
"""A row's value → the value for ClickHouse's client; raises `ColumnValueError`, or any of `_WRONG_TYPE`."""

FLOAT32_MAX = 3.4028235e38

_WRONG_TYPE = (TypeError, ValueError, AttributeError, ArithmeticError, msgspec.MsgspecError)
"""What a value of another type makes a check raise."""


def can_hold(declared: Any, column: ClickHouseType) -> bool:
    """Whether a column can hold values of a declared type.

    >>> from lovelace_streams.writers.clickhouse.types import parse_type
    >>> can_hold(int, parse_type("UInt8")), can_hold(list[int], parse_type("Array(Int64)"))
    (True, True)
    >>> can_hold(datetime, parse_type("Date"))
    False
    """
    plain = scalar(declared)
    if plain is dict:
        return column.name == "String"
    if get_origin(plain) is list:
        return column.name == "Array" and can_hold(get_args(plain)[0], column.element)
    return (plain, column.name) in VALUE_CHECKS


def value_check(declared: Any, column: ClickHouseType) -> ValueCheck:
    """Return the check of one value of a declared type, for a column that `can_hold` it.

    The check raises `ColumnValueError` alone.
    """
    check = _present_value_check(declared, column)
    if isinstance(declared, type) and issubclass(declared, Enum):
        plain_check = check

        def check(value: Any) -> Any:
            return plain_check(value.value)

    nullable = column.nullable

    def checked(value: Any) -> Any:
        if value is None:
            if nullable:
                return None
            raise ColumnValueError(Reason.NOT_NULL, NULL_IN_ORDINARY_COLUMN)
        # ClickHouse would store the type's default; `check_capabilities` stops flows with such rows at start
        if value is UNSET:
            raise ColumnValueError(Reason.MISSING, NULL_IN_ORDINARY_COLUMN)
        try:
            return check(value)
        except _WRONG_TYPE:
            raise ColumnValueError(Reason.BAD_VALUE, TYPE_MISMATCH) from None

    return checked


def _present_value_check(declared: Any, column: ClickHouseType) -> ValueCheck:
    plain = scalar(declared)
    if plain is dict:
        return json_text
    if get_origin(plain) is list:
        check_element = value_check(get_args(declared)[0], column.element)
        return lambda values: [check_element(value) for value in _as_list(values)]
    return VALUE_CHECKS[plain, column.name](column)


def _as_list(values: Any) -> Sequence[Any]:
    if not isinstance(values, list | tuple):
        raise TypeError("not a list")
    return values


def _integer(low: int, high: int) -> Callable[[ClickHouseType], ValueCheck]:
    def check(value: Any) -> int:
        if value.__class__ is not int and (isinstance(value, bool) or not isinstance(value, int)):
            raise TypeError("not an int")
        if not low <= value <= high:
            raise ColumnValueError(Reason.OUT_OF_RANGE, VALUE_OUT_OF_RANGE)
        return int(value)

    return lambda _column: check


def _boolean(_column: ClickHouseType) -> ValueCheck:
    def check(value: Any) -> bool:
        if not isinstance(value, bool):
            raise TypeError("not a bool")
        return value

    return check


def _float(_column: ClickHouseType) -> ValueCheck:
    def check(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError("not a float")
        return float(value)

    return check


def _float32(column: ClickHouseType) -> ValueCheck:
    check_float = _float(column)

    def check(value: Any) -> float:
        number: float = check_float(value)
        if math.isfinite(number) and abs(number) > FLOAT32_MAX:
            raise ColumnValueError(Reason.OUT_OF_RANGE, VALUE_OUT_OF_RANGE)
        return number

    return check


def _decimal(column: ClickHouseType) -> ValueCheck:
    precision, scale = (int(part) for part in column.arguments.split(","))

    def check(value: Any) -> Decimal:
        if not isinstance(value, Decimal):
            raise TypeError("not a Decimal")
        if not value.is_finite():
            raise ColumnValueError(Reason.OUT_OF_RANGE, DECIMAL_OVERFLOW)
        if value and value.adjusted() >= precision - scale:
            raise ColumnValueError(Reason.OUT_OF_RANGE, DECIMAL_OVERFLOW)
        if not fits_scale(value, scale):  # the client would cut it
            raise ColumnValueError(Reason.OUT_OF_RANGE, DECIMAL_OVERFLOW)
        return value

    return check


def _string(_column: ClickHouseType) -> ValueCheck:
    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise TypeError("not a str")
        if not value.isascii():
            _to_utf8(value)
        return str(value)

    return check


def _to_utf8(value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise ColumnValueError(Reason.BAD_VALUE, INCORRECT_DATA) from None


def _fixed_string(column: ClickHouseType) -> ValueCheck:
    size = int(column.arguments)

    def check(value: Any) -> bytes:
        if not isinstance(value, str):
            raise TypeError("not a str")
        encoded = _to_utf8(value)
        if len(encoded) > size:
            raise ColumnValueError(Reason.OUT_OF_RANGE, TOO_LARGE_STRING_SIZE)
        return encoded.ljust(size, b"\0")

    return check


def _enum(column: ClickHouseType) -> ValueCheck:
    members = column.members

    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise TypeError("not a str")
        if value not in members:
            raise ColumnValueError(Reason.BAD_VALUE, UNKNOWN_ENUM_ELEMENT)
        return str(value)

    return check


def _time(column: ClickHouseType) -> ValueCheck:
    low, high = time_bounds(column)
    digits = column.fractional_digits

    def check(value: Any) -> int:
        microseconds = microseconds_of(value)
        if not low <= value <= high:
            raise ColumnValueError(Reason.OUT_OF_RANGE, VALUE_OUT_OF_RANGE)
        return at_precision(microseconds, digits)

    return check


def _date(low: date, high: date) -> Callable[[ClickHouseType], ValueCheck]:
    def check(value: Any) -> int:
        if isinstance(value, datetime) or not isinstance(value, date):
            raise TypeError("not a date")
        if not low <= value <= high:
            raise ColumnValueError(Reason.OUT_OF_RANGE, VALUE_OUT_OF_RANGE)
        return (value - EPOCH_DAY).days

    return lambda _column: check


def _uuid(_column: ClickHouseType) -> ValueCheck:
    def check(value: Any) -> UUID:
        if not isinstance(value, UUID):
            raise TypeError("not a UUID")
        return value

    return check


def _uuid_as_string(_column: ClickHouseType) -> ValueCheck:
    return UUID.__str__


VALUE_CHECKS: dict[tuple[Any, str], Callable[[ClickHouseType], ValueCheck]] = {
    **{(int, name): _integer(*bounds) for name, bounds in INTEGER_BOUNDS.items()},
    (bool, "Bool"): _boolean,
    (bool, "UInt8"): _boolean,
    (float, "Float64"): _float,
    (float, "Float32"): _float32,
    (Decimal, "Decimal"): _decimal,
    (str, "String"): _string,
    (str, "FixedString"): _fixed_string,
    (str, "Enum8"): _enum,
    (str, "Enum16"): _enum,
    (datetime, "DateTime"): _time,
    (datetime, "DateTime64"): _time,
    (date, "Date"): _date(*DATE_BOUNDS),
    (date, "Date32"): _date(*DATE32_BOUNDS),
    (UUID, "UUID"): _uuid,
    (UUID, "String"): _uuid_as_string,
}
"""Python's plain type and ClickHouse's type → the check of a value, made for a column."""
