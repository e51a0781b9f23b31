"""The version column: the one integer by which the table tells which row of a key is the last.

It holds the declared version in the upper 64 bits and the row's place in its partition (`Entry.sequence`) in the lower
ones; the place alone if the row class declares no version. Why: docs/decisions/0008-clickhouse.md.
"""

from array import array
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Protocol

from lovelace_streams.records import Reason
from lovelace_streams.writers.clickhouse.block_columns import BlockColumns
from lovelace_streams.writers.clickhouse.faults import VALUE_OUT_OF_RANGE, ColumnValueError
from lovelace_streams.writers.clickhouse.native import column_packer, little_endian, pack_versions
from lovelace_streams.writers.clickhouse.times import days_of_all, microseconds_of_all
from lovelace_streams.writers.clickhouse.types import MICROSECOND_DIGITS, ClickHouseType

VERSION_BIAS = 2**63
"""Added to a declared version, which has a sign: the sum has none and sorts alike. `pack_versions` adds it, too."""
SEQUENCE_BITS = 64
SEQUENCE_TYPES = ("UInt64", "UInt128", "UInt256")
"""Types of a version column that hold a row's place."""
VERSION_TYPES = ("UInt128", "UInt256")
"""Types of a version column that hold a declared version beside it."""
TO_NUMBERS: dict[Any, Callable[[Sequence[Any]], Sequence[int]]] = {
    int: lambda values: values,
    datetime: microseconds_of_all,
    date: days_of_all,
}
"""Python's type of a declared version → its values as signed integers of 64 bits."""


class Versions(Protocol):
    """What fills the version column."""

    def numbers(self, block: BlockColumns) -> list[int]:
        """Return the version of each row; raises `ColumnValueError`."""

    def packed(self, block: BlockColumns, packed: Mapping[str, bytes]) -> bytes:
        """Return the versions as they are sent; `packed` are other columns of the block, by name.

        Raises `ColumnValueError`.
        """


class SequenceVersions:
    """The place in the partition alone, for rows without a declared version."""

    def __init__(self, type_name: str) -> None:
        self._pack = column_packer(type_name)

    def numbers(self, block: BlockColumns) -> list[int]:
        """Return the place of each row."""
        return list(block.sequences)

    def packed(self, block: BlockColumns, _packed: Mapping[str, bytes]) -> bytes:
        """Return the places as they are sent."""
        return self._pack(block.sequences)


class DeclaredVersions:
    """The declared version, then the place in the partition.

    `declared` is the name of the version's own column, `plain` its Python type, `column` the column's type.
    """

    def __init__(self, type_name: str, declared: str, plain: Any, column: ClickHouseType) -> None:
        self._type_name = type_name
        self._pack = column_packer(type_name)
        self._declared = declared
        self._to_numbers = TO_NUMBERS[plain]
        self._is_sent_as_number = column.full_name == "Int64" or (
            column.full_name.startswith("DateTime64") and column.fractional_digits == MICROSECOND_DIGITS
        )
        """Whether the version's own column is sent as the very numbers that the version column needs."""

    def numbers(self, block: BlockColumns) -> list[int]:
        """Return the version of each row as one integer; raises `ColumnValueError`."""
        declared = self._bounded(self._to_numbers(block.values[self._declared]))
        return [
            number + VERSION_BIAS << SEQUENCE_BITS | sequence
            for number, sequence in zip(declared, block.sequences, strict=True)
        ]

    def packed(self, block: BlockColumns, packed: Mapping[str, bytes]) -> bytes:
        """Return the versions as they are sent; raises `ColumnValueError`."""
        if self._type_name != "UInt128":
            return self._pack(self.numbers(block))
        if self._is_sent_as_number:
            return pack_versions(block.sequences, packed[self._declared])
        declared = self._bounded(self._to_numbers(block.values[self._declared]))
        return pack_versions(block.sequences, little_endian(declared))

    def _bounded(self, numbers: Sequence[int]) -> "array[int]":
        try:
            return numbers if numbers.__class__ is array and numbers.typecode == "q" else array("q", numbers)
        except OverflowError:
            raise ColumnValueError(Reason.OUT_OF_RANGE, VALUE_OUT_OF_RANGE, self._declared) from None
