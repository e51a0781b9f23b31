"""How all values of a column are checked at once, for the types that allow it.

A column check gives what `value_check` gives for each value, or it is inconclusive: it raises one of `INCONCLUSIVE`,
and the caller checks value by value. It never accepts a value that `value_check` refuses
(tests/properties/test_clickhouse_columns.py). It costs some 0.05 µs a value where `value_check` costs 0.3, which made
the writer four times as expensive as the client's own call (docs/decisions/0008-clickhouse.md).
"""

from array import array
from collections.abc import Callable, Sequence
from datetime import date, datetime
from itertools import chain
from types import NoneType
from typing import Any, get_args, get_origin
from uuid import UUID

from lovelace_streams.rows.types import scalar
from lovelace_streams.writers.clickhouse.native import CheckedLists
from lovelace_streams.writers.clickhouse.times import (
    DATE32_BOUNDS,
    DATE_BOUNDS,
    at_precision,
    days_of_all,
    microseconds_of,
    microseconds_of_all,
    time_bounds,
)
from lovelace_streams.writers.clickhouse.types import (
    ARRAY_TYPECODES,
    INTEGER_BOUNDS,
    MICROSECOND_DIGITS,
    ClickHouseType,
)

ColumnCheck = Callable[[Sequence[Any]], Sequence[Any]]
"""All values of a column → the values for ClickHouse's client; raises one of `INCONCLUSIVE`."""
INCONCLUSIVE = (TypeError, ValueError, OverflowError)


def column_check(declared: Any, column: ClickHouseType) -> ColumnCheck | None:
    """Return the check of a column for values of a declared type; None if its values can only be checked one by one.

    The values have to be of exactly one class (and None). Then the least and the greatest are compared with the bounds.

    >>> from lovelace_streams.writers.clickhouse.types import parse_type
    >>> column_check(int, parse_type("Nullable(Int8)"))([1, None, -128])
    [1, None, -128]
    >>> column_check(int, parse_type("Int8"))([1, 128])
    Traceback (most recent call last):
    OverflowError: signed char is greater than maximum
    """
    plain = scalar(declared)
    if declared is not plain and isinstance(declared, type):  # an Enum
        return None
    if get_origin(plain) is list:
        check_elements = column_check(get_args(plain)[0], column.element)
        return None if check_elements is None else _of_one_class(list, _lists(check_elements), column.nullable)
    make_check = _COLUMN_CHECKS.get((plain, column.name))
    return None if make_check is None else _of_one_class(plain, make_check(column), column.nullable)


def _of_one_class(plain: type, check_present: ColumnCheck, nullable: bool) -> ColumnCheck:
    """Make a check of values that are all of one class, but for nulls if the column takes them.

    `check_present` is given no null.
    """

    def check(values: Sequence[Any]) -> Sequence[Any]:
        classes = set(map(type, values))
        if classes == {plain}:
            return check_present(values)
        if not nullable or not classes <= {plain, NoneType}:
            raise TypeError
        present = [value for value in values if value is not None]
        checked = check_present(present) if present else present
        if _is_unchanged(checked, present):
            return values
        remaining = iter(checked)
        return [None if value is None else next(remaining) for value in values]

    return check


def _is_unchanged(checked: Sequence[Any], values: Sequence[Any]) -> bool:
    """Whether values are sent as they are: the very list, or the same integers in an array."""
    return checked is values or (checked.__class__ is array and values[0].__class__ is int)


def _lists(check_elements: ColumnCheck) -> ColumnCheck:
    """Make a check of lists; it is inconclusive if elements are not sent as they are."""

    def check(values: Sequence[list[Any]]) -> Sequence[list[Any]]:
        elements = list(chain.from_iterable(values))
        if not elements:
            return values
        checked = check_elements(elements)
        if not _is_unchanged(checked, elements):
            raise TypeError
        return CheckedLists(values, checked)

    return check


def _long_integers(low: int, high: int) -> Callable[[ClickHouseType], ColumnCheck]:
    def check(values: Sequence[int]) -> Sequence[int]:
        if not low <= min(values) <= max(values) <= high:
            raise ValueError
        return values

    return lambda _column: check


def _integers_in_array(column: ClickHouseType) -> ColumnCheck:
    """Make a check by filling an array: it raises for an integer out of its bounds, and holds the bytes to send."""
    typecode = ARRAY_TYPECODES[column.name]
    return lambda values: array(typecode, values)


def _strings(_column: ClickHouseType) -> ColumnCheck:
    def check(values: Sequence[str]) -> Sequence[str]:
        text = "".join(values)
        if not text.isascii():
            text.encode()  # raises UnicodeEncodeError, which is a ValueError
        return values

    return check


def _enums(column: ClickHouseType) -> ColumnCheck:
    members = column.members

    def check(values: Sequence[str]) -> Sequence[str]:
        if not members.issuperset(values):
            raise ValueError
        return values

    return check


def _times(column: ClickHouseType) -> ColumnCheck:
    low, high = map(microseconds_of, time_bounds(column))
    digits = column.fractional_digits

    def check(values: Sequence[datetime]) -> Sequence[int]:
        microseconds = microseconds_of_all(values)
        if not low <= min(microseconds) <= max(microseconds) <= high:
            raise ValueError
        if digits == MICROSECOND_DIGITS:
            return microseconds
        return [at_precision(value, digits) for value in microseconds]

    return check


def _dates(low: date, high: date) -> Callable[[ClickHouseType], ColumnCheck]:
    def check(values: Sequence[date]) -> list[int]:
        if not low <= min(values) <= max(values) <= high:
            raise ValueError
        return days_of_all(values)

    return lambda _column: check


def _any_of_its_class(_column: ClickHouseType) -> ColumnCheck:
    return lambda values: values


_COLUMN_CHECKS: dict[tuple[Any, str], Callable[[ClickHouseType], ColumnCheck]] = {
    **{
        (int, name): _integers_in_array if name in ARRAY_TYPECODES else _long_integers(*bounds)
        for name, bounds in INTEGER_BOUNDS.items()
    },
    (bool, "Bool"): _any_of_its_class,
    (bool, "UInt8"): _any_of_its_class,
    (float, "Float64"): _any_of_its_class,
    (str, "String"): _strings,
    (str, "Enum8"): _enums,
    (str, "Enum16"): _enums,
    (datetime, "DateTime"): _times,
    (datetime, "DateTime64"): _times,
    (date, "Date"): _dates(*DATE_BOUNDS),
    (date, "Date32"): _dates(*DATE32_BOUNDS),
    (UUID, "UUID"): _any_of_its_class,
}
