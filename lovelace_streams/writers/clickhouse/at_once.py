"""How a column is checked and packed in one go, for the types that most columns have: 64 bits, times, truths, lists.

A packer here accepts nothing that `value_check` refuses, and gives the bytes that `column_packer` gives for what that
returns (tests/properties/test_clickhouse_columns.py). Values that are not of one form are left to column_checks.py.
"""

from array import array
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import accumulate, chain
from typing import Any, get_args, get_origin

from lovelace_streams.rows.types import scalar
from lovelace_streams.writers.clickhouse.messagepack import LANE, integers, microseconds, truths
from lovelace_streams.writers.clickhouse.native import from_little_endian, little_endian
from lovelace_streams.writers.clickhouse.times import microseconds_of, time_bounds
from lovelace_streams.writers.clickhouse.types import MICROSECOND_DIGITS, ClickHouseType

PackAtOnce = Callable[[Sequence[Any]], bytes | None]
"""All values of a column, at least one → its bytes; None, or one of `INCONCLUSIVE`, if it can't tell."""


def packer_at_once(declared: Any, column: ClickHouseType) -> PackAtOnce | None:
    """Return the packer of a column for values of a declared type; None if there is none.

    >>> from lovelace_streams.writers.clickhouse.types import parse_type
    >>> packer_at_once(bool, parse_type("Nullable(Bool)"))([True, False])
    b'\\x00\\x00\\x01\\x00'
    """
    plain = scalar(declared)
    if "LowCardinality" in column.full_name or (declared is not plain and isinstance(declared, type)):  # an Enum
        return None
    if get_origin(plain) is list:
        pack_elements = packer_at_once(get_args(plain)[0], column.element)
        return None if pack_elements is None else _lists(pack_elements)
    pack = _packer(plain, column)
    return _nullable(pack, 1 if pack is truths else LANE) if pack is not None and column.nullable else pack


def _packer(plain: Any, column: ClickHouseType) -> PackAtOnce | None:
    if plain is int and column.name in ("Int64", "UInt64"):
        return _signed if column.name == "Int64" else integers
    if plain is bool and column.name in ("Bool", "UInt8"):
        return truths
    if plain is datetime and column.name == "DateTime64" and column.fractional_digits == MICROSECOND_DIGITS:
        return _times(microseconds_of(time_bounds(column)[1]))
    return None


def _signed(values: Sequence[Any]) -> bytes | None:
    packed = integers(values)
    return packed if packed is not None and packed[LANE - 1 :: LANE].isascii() else None  # no upper bit is set


def _times(latest: int) -> PackAtOnce:
    """Make a packer of times from 1970 to the column's latest."""

    def pack(values: Sequence[Any]) -> bytes | None:
        packed = microseconds(values)
        return packed if packed is not None and max(from_little_endian("q", packed)) <= latest else None

    return pack


def _nullable(pack: PackAtOnce, size: int) -> PackAtOnce:
    """Make a packer of values that are all null, or none of them."""

    def pack_all_or_none(values: Sequence[Any]) -> bytes | None:
        count = len(values)
        if values[0] is None:
            return b"\1" * count + bytes(size * count) if values.count(None) == count else None
        packed = pack(values)
        return None if packed is None else bytes(count) + packed

    return pack_all_or_none


def _lists(pack_elements: PackAtOnce) -> PackAtOnce:
    def pack(values: Sequence[Any]) -> bytes | None:
        if set(map(type, values)) != {list}:
            return None
        elements = list(chain.from_iterable(values))
        packed = pack_elements(elements) if elements else b""
        return None if packed is None else little_endian(array("Q", accumulate(map(len, values)))) + packed

    return pack
