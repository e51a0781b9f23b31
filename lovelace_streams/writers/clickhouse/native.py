"""A block in ClickHouse's Native format: the bytes that an insert sends, made without a connection.

Numbers, times and lists of them are packed here, the other types by the client's own code. The client's `insert` also
packs lists of values, but only while it holds the connection. It packs nullable columns and lists value by value, and
its first call imports pandas if that is installed, as it is with chDB: 0.7 s (docs/decisions/0008-clickhouse.md).
"""

import struct
import sys
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, chain
from typing import Any

from lovelace_streams.records import Reason
from lovelace_streams.writers.clickhouse.faults import TYPE_MISMATCH, ColumnValueError
from lovelace_streams.writers.clickhouse.types import ARRAY_TYPECODES, parse_type

ColumnPacker = Callable[[Sequence[Any]], bytes]
"""Values for ClickHouse's client → the column's bytes; raises what Python or the client raises for a wrong value."""


class CheckedLists(list[Any]):
    """Lists whose elements were checked together, with all of these."""

    __slots__ = ("elements",)

    def __init__(self, lists: Iterable[Any], elements: Sequence[Any]) -> None:
        super().__init__(lists)
        self.elements = elements


_SIGN_FLIPPED = bytes(byte ^ 1 << 7 for byte in range(256))
_CONTINUES = 1 << 7
"""LEB128's bit for "another byte follows"."""


def native_block(columns: Mapping[str, str], rows: int, packed: Iterable[bytes]) -> bytes:
    """Join a block: `columns` are names and types, `rows` their count, `packed` the bytes of each column.

    >>> native_block({"k": "Int8"}, 2, [column_packer("Int8")([1, -1])])
    b'\\x01\\x02\\x01k\\x04Int8\\x01\\xff'
    """
    parts = [_leb128(len(columns)), _leb128(rows)]
    for (name, type_name), column in zip(columns.items(), packed, strict=True):
        parts += (_string(name), _string(type_name), column)
    return b"".join(parts)


def column_packer(type_name: str) -> ColumnPacker:
    """Return the packer of a column of this type, as `system.columns` names it.

    >>> column_packer("Nullable(Int8)")([1, None])
    b'\\x00\\x01\\x01\\x00'
    >>> column_packer("Array(UInt8)")([[7], []])
    b'\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x07'
    """
    column = parse_type(type_name)
    if "LowCardinality" in type_name:
        return _client_packer(type_name)
    if column.name == "Array":
        return _list_packer(column_packer(column.arguments))
    if column.name not in ARRAY_TYPECODES:
        return _client_packer(type_name)
    typecode = ARRAY_TYPECODES[column.name]
    return _nullable_number_packer(typecode) if column.nullable else _number_packer(typecode)


def pack_column(name: str, packer: ColumnPacker, values: Sequence[Any]) -> bytes:
    """Pack a column's values; raises `ColumnValueError` if one can't be packed.

    No such value is known to pass the checks that come before.
    """
    from clickhouse_connect.driver.exceptions import DataError

    try:
        return packer(values)
    except (TypeError, ValueError, AttributeError, ArithmeticError, struct.error, DataError):
        raise ColumnValueError(Reason.BAD_VALUE, TYPE_MISMATCH, name) from None


def pack_versions(sequences: Sequence[int], declared: bytes) -> bytes:
    """Pack integers of 128 bits: the place of each row, and above it 2⁶³ plus its declared version.

    `declared` are packed integers of 64 bits with a sign: to add 2⁶³ is to flip the sign.

    >>> pack_versions([1], column_packer("Int64")([-2])) == (2**63 - 2 << 64 | 1).to_bytes(16, "little")
    True
    """
    upper = bytearray(declared)
    upper[7::8] = upper[7::8].translate(_SIGN_FLIPPED)
    halves = array("Q", bytes(2 * len(upper)))
    halves[::2], halves[1::2] = array("Q", sequences), from_little_endian("Q", upper)
    return little_endian(halves)


def little_endian(values: "array[Any]") -> bytes:
    """Return the bytes of numbers as ClickHouse has them."""
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values.tobytes()


def from_little_endian(typecode: str, packed: bytes | bytearray) -> "array[Any]":
    """Return the numbers of such bytes."""
    values = array(typecode, packed)
    if sys.byteorder == "big":
        values.byteswap()
    return values


def _as_array(typecode: str, values: Sequence[Any]) -> "array[Any]":
    """Return the values as an array: the very object, if the column's check has made one already."""
    return values if values.__class__ is array and values.typecode == typecode else array(typecode, values)


def _number_packer(typecode: str) -> ColumnPacker:
    return lambda values: little_endian(_as_array(typecode, values))


def _nullable_number_packer(typecode: str) -> ColumnPacker:
    """Make a packer of a byte for each value (1: null), then all values, zeros for nulls."""
    size = array(typecode).itemsize

    def pack(values: Sequence[Any]) -> bytes:
        nulls = 0 if values.__class__ is array else values.count(None)
        if not nulls:
            return bytes(len(values)) + little_endian(_as_array(typecode, values))
        if nulls == len(values):
            return b"\1" * nulls + bytes(size * nulls)
        numbers = array(typecode, [0 if value is None else value for value in values])
        return bytes([value is None for value in values]) + little_endian(numbers)

    return pack


def _list_packer(pack_elements: ColumnPacker) -> ColumnPacker:
    """Make a packer of where each list ends, then the elements of all lists."""

    def pack(values: Sequence[Sequence[Any]]) -> bytes:
        ends = array("Q", accumulate(map(len, values)))
        elements = values.elements if isinstance(values, CheckedLists) else list(chain.from_iterable(values))
        return little_endian(ends) + pack_elements(elements)

    return pack


def _client_packer(type_name: str) -> ColumnPacker:
    from clickhouse_connect.datatypes.registry import get_from_name
    from clickhouse_connect.driver.insert import InsertContext

    client_type, context = get_from_name(type_name), InsertContext("", [], [])

    def pack(values: Sequence[Any]) -> bytes:
        packed = bytearray()
        if values:
            client_type.write_column(values, packed, context)
        return bytes(packed)

    return pack


def _string(value: str) -> bytes:
    encoded = value.encode()
    return _leb128(len(encoded)) + encoded


def _leb128(value: int) -> bytes:
    """Encode an integer, seven bits a byte, the least significant first."""
    encoded = bytearray()
    while value >= _CONTINUES:
        encoded.append(value % _CONTINUES | _CONTINUES)
        value //= _CONTINUES
    encoded.append(value)
    return bytes(encoded)
