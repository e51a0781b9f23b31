"""A block as ClickHouse's Native format has it: what an insert sends, made without a connection.

Numbers, times and lists of them are packed here, the other types by the client's own code. Its `insert` does the same
of lists of values, but only while the connection is held; it packs nullable columns and lists value by value, and where
pandas is installed (as it is with chDB) imports it within the first insert: 0.7 s.
"""

import struct
import sys
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, chain
from typing import Any

from lovelace_streams.records import Reason
from lovelace_streams.writers.clickhouse.types import CODES, TYPE_MISMATCH, Unfit, parse

Pack = Callable[[Sequence[Any]], bytes]
"""Values as the client would be given them → the column's bytes; raises for what it can't spell."""


def block(columns: Mapping[str, str], count: int, packed: Iterable[bytes]) -> bytes:
    """One block of so many rows; `packed` are the bytes of each column.

    >>> block({"k": "Int8"}, 2, [pack("Int8")([1, -1])])
    b'\\x01\\x02\\x01k\\x04Int8\\x01\\xff'
    """
    parts = [_leb128(len(columns)), _leb128(count)]
    for (name, shown), body in zip(columns.items(), packed, strict=True):
        parts += (_text(name), _text(shown), body)
    return b"".join(parts)


def pack(shown: str) -> Pack:
    """How a column of this type is packed.

    >>> pack("Nullable(Int8)")([1, None]), pack("Array(UInt8)")([[7], []])
    (b'\\x00\\x01\\x01\\x00', b'\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x07')
    """
    real = parse(shown)
    if "LowCardinality" in shown:
        return _by_client(shown)
    if real.name == "Array":
        return _lists(pack(real.arguments))
    if real.name not in CODES:
        return _by_client(shown)
    return _nullable(CODES[real.name]) if real.nullable else _numbers(CODES[real.name])


def packed(name: str, way: Pack, values: Sequence[Any]) -> bytes:
    """A column's bytes; raises `Unfit` where a value can't be spelled: none is known to pass the checks before."""
    from clickhouse_connect.driver.exceptions import DataError

    try:
        return way(values)
    except (TypeError, ValueError, AttributeError, ArithmeticError, struct.error, DataError):
        raise Unfit(Reason.BAD_VALUE, TYPE_MISMATCH, name) from None


def halves(low: Sequence[int], high: Sequence[int]) -> bytes:
    """Integers of 128 bits, given as two of 64: a third of what it costs to spell the whole ones.

    >>> halves([1], [2]) == (2 << 64 | 1).to_bytes(16, "little")
    True
    """
    whole = array("Q", bytes(16 * len(low)))
    whole[::2], whole[1::2] = array("Q", low), array("Q", high)
    return _little(whole)


def _little(values: "array[Any]") -> bytes:
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values.tobytes()


def _array(code: str, values: Sequence[Any]) -> "array[Any]":
    """The values themselves, where the check has put them into such an array already."""
    return values if values.__class__ is array and values.typecode == code else array(code, values)


def _numbers(code: str) -> Pack:
    return lambda values: _little(_array(code, values))


def _nullable(code: str) -> Pack:
    """Which are null, then all of them, with zeros for nulls."""
    size = array(code).itemsize

    def take(values: Sequence[Any]) -> bytes:
        nulls = 0 if values.__class__ is array else values.count(None)
        if not nulls:
            return bytes(len(values)) + _little(_array(code, values))
        if nulls == len(values):
            return b"\1" * nulls + bytes(size * nulls)
        present = array(code, [0 if value is None else value for value in values])
        return bytes([value is None for value in values]) + _little(present)

    return take


def _lists(element: Pack) -> Pack:
    """Where each list ends, then the elements of all."""

    def take(values: Sequence[Sequence[Any]]) -> bytes:
        ends = array("Q", accumulate(map(len, values)))
        return _little(ends) + element(list(chain.from_iterable(values)))

    return take


def _by_client(shown: str) -> Pack:
    from clickhouse_connect.datatypes.registry import get_from_name
    from clickhouse_connect.driver.insert import InsertContext

    kind = get_from_name(shown)

    def take(values: Sequence[Any]) -> bytes:
        body = bytearray()
        if values:
            kind.write_column(values, body, InsertContext("", [], []))
        return bytes(body)

    return take


def _text(value: str) -> bytes:
    encoded = value.encode()
    return _leb128(len(encoded)) + encoded


def _leb128(value: int) -> bytes:
    """Seven bits a byte, the least first."""
    encoded = bytearray()
    while value >= _MORE:
        encoded.append(value % _MORE | _MORE)
        value //= _MORE
    encoded.append(value)
    return bytes(encoded)


_MORE = 1 << 7
