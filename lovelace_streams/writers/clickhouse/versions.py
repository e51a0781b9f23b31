"""The version column: the one integer by which the table tells which row of a key is the last.

It holds the declared version in the upper 64 bits and the row's place in its partition (`Entry.sequence`) in the lower
ones; the place alone if the row class declares no version. Why: docs/decisions/0008-clickhouse.md.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from operator import attrgetter
from typing import Any, Protocol

from lovelace_streams.records import Reason
from lovelace_streams.writers import Entry
from lovelace_streams.writers.clickhouse.faults import VALUE_OUT_OF_RANGE, ColumnValueError
from lovelace_streams.writers.clickhouse.native import column_packer, pack_uint128
from lovelace_streams.writers.clickhouse.times import days_of_all, microseconds_of_all
from lovelace_streams.writers.clickhouse.types import MICROSECOND_DIGITS, ClickHouseType

VERSION_BIAS = 2**63
"""Added to a declared version, which has a sign: the sum has none and sorts alike."""
SEQUENCE_BITS = 64
SEQUENCE_TYPES = ("UInt64", "UInt128", "UInt256")
"""Types of a version column that hold a row's place."""
VERSION_TYPES = ("UInt128", "UInt256")
"""Types of a version column that hold a declared version beside it."""
TO_NUMBERS: dict[Any, Callable[[list[Any]], list[int]]] = {
    int: lambda values: values,
    datetime: microseconds_of_all,
    date: days_of_all,
}
"""Python's type of a declared version → its values as signed integers of 64 bits."""


class Versions(Protocol):
    """What fills the version column."""

    def numbers(self, entries: Sequence[Entry]) -> list[int]:
        """Return the version of each entry; raises `ColumnValueError`."""

    def packed(self, entries: Sequence[Entry], checked: Mapping[str, Sequence[Any]]) -> bytes:
        """Return the versions as they are sent; `checked` are the block's other columns, by name.

        Raises `ColumnValueError`.
        """


class SequenceVersions:
    """The place in the partition alone, for rows without a declared version."""

    def __init__(self, type_name: str) -> None:
        self._pack = column_packer(type_name)

    def numbers(self, entries: Sequence[Entry]) -> list[int]:
        """Return the place of each entry."""
        return sequences_of(entries)

    def packed(self, entries: Sequence[Entry], _checked: Mapping[str, Sequence[Any]]) -> bytes:
        """Return the places as they are sent."""
        return self._pack(sequences_of(entries))


class DeclaredVersions:
    """The declared version, then the place in the partition.

    `declared` is the name of the version's own column, `plain` its Python type, `column` the column's type, `attribute`
    the row's field.
    """

    def __init__(self, type_name: str, declared: str, plain: Any, column: ClickHouseType, attribute: str) -> None:
        self._type_name = type_name
        self._pack = column_packer(type_name)
        self._declared = declared
        self._value_of = attrgetter(attribute)
        self._to_numbers = TO_NUMBERS[plain]
        self._is_sent_as_number = column.name != "DateTime" and (
            column.name != "DateTime64" or column.fractional_digits == MICROSECOND_DIGITS
        )
        """Whether the version's own column is sent as the very numbers that the version column needs."""

    def numbers(self, entries: Sequence[Entry]) -> list[int]:
        """Return the version of each entry as one integer; raises `ColumnValueError`."""
        declared = self._biased(self._to_numbers([self._value_of(entry.row) for entry in entries]))
        return [high << SEQUENCE_BITS | low for high, low in zip(declared, sequences_of(entries), strict=True)]

    def packed(self, entries: Sequence[Entry], checked: Mapping[str, Sequence[Any]]) -> bytes:
        """Return the versions as they are sent; raises `ColumnValueError`."""
        if self._type_name != "UInt128":
            return self._pack(self.numbers(entries))
        if self._is_sent_as_number:
            declared = checked[self._declared]
        else:
            declared = self._to_numbers([self._value_of(entry.row) for entry in entries])
        return pack_uint128(sequences_of(entries), self._biased(declared))

    def _biased(self, numbers: Sequence[int]) -> list[int]:
        if not -VERSION_BIAS <= min(numbers) <= max(numbers) < VERSION_BIAS:
            raise ColumnValueError(Reason.OUT_OF_RANGE, VALUE_OUT_OF_RANGE, self._declared)
        return [number + VERSION_BIAS for number in numbers]


def sequences_of(entries: Sequence[Entry]) -> list[int]:
    """Return the places of entries in their partitions."""
    return [entry.sequence for entry in entries]
