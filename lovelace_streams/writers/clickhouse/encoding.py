"""A block → the body of an insert: values are checked a column at a time, then packed, the version column last."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from lovelace_streams.writers import Entry, Refusal
from lovelace_streams.writers.clickhouse.block_columns import BlockColumns, block_columns
from lovelace_streams.writers.clickhouse.catalog import TableSchema
from lovelace_streams.writers.clickhouse.column_checks import INCONCLUSIVE
from lovelace_streams.writers.clickhouse.faults import ColumnValueError
from lovelace_streams.writers.clickhouse.native import native_block, pack_column
from lovelace_streams.writers.column_block import ColumnBlock, PreparedBlock


class InsertBody(NamedTuple):
    """The bytes of an insert, and the table's schema that they were made for."""

    schema: TableSchema
    native: bytes


class EncodedBlock(PreparedBlock):
    """A block with what `ClickHouseWriter.encode` made of it before the call that writes it."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        super().__init__(entries)
        self.body: InsertBody | None = None
        """None if the block holds a bad value, or the writer was not open: then `write` makes the body."""
        self.has_distinct_keys = False
        """Whether it is known that no two rows have one key."""
        self.split: SplitBlock | None = None
        """What is known of a block of columns that holds bad values."""


class SplitBlock(NamedTuple):
    """A block of columns without the rows that have a bad value."""

    schema: TableSchema
    """The table's schema that the values were checked for."""
    refusals: Mapping[int, Refusal]
    """The bad rows, by their indexes in the block."""
    left: EncodedBlock
    """The other rows."""


class BlockEncoder:
    """Checks and packs rows for a table as it was when the writer was opened.

    `one_by_one` checks value by value only: so the oracle does not depend on the checks of whole columns.
    """

    def __init__(self, schema: TableSchema, *, one_by_one: bool = False) -> None:
        self.schema = schema
        self._one_by_one = one_by_one
        self._packers = {} if one_by_one else schema.packers_at_once

    def encode(self, entries: Sequence[Entry]) -> InsertBody:
        """Check and pack rows; raises `ColumnValueError` with the first column that has a bad value.

        Rows that came as columns are sent in an order of their own, which no reader of the table can tell.
        """
        schema = self.schema
        block = self.columns(entries.gathered() if isinstance(entries, ColumnBlock) else entries)
        packed = {name: self._packed(name, block) for name in schema.names}
        versions = schema.versions.packed(block, packed)
        return InsertBody(schema, native_block(schema.columns, block.rows, [*packed.values(), versions]))

    def _packed(self, name: str, block: BlockColumns) -> bytes:
        """Check and pack a column; raises `ColumnValueError` for the first bad value."""
        if name in self._packers and block.rows:
            try:
                packed = self._packers[name](block.values[name])
            except INCONCLUSIVE:
                packed = None
            if packed is not None:
                return packed
        return pack_column(name, self.schema.packers[name], self.check_column(name, block))

    def columns(self, entries: Sequence[Entry]) -> BlockColumns:
        """Return the table's columns of rows, unchecked."""
        return block_columns(entries, self.schema.names)

    def find_bad_values(self, entries: Sequence[Entry]) -> Mapping[int, Refusal]:
        """Find all rows with a value that its column can't hold: index → refusal by the first such column.

        Rules of the server (CHECKs) are not known here.
        """
        block = self.columns(entries)
        refusals: dict[int, Refusal] = {}
        for name in self.schema.names:
            self.check_column(name, block, refusals)
        left = [index for index in range(block.rows) if index not in refusals]
        with suppress(ColumnValueError):
            self.schema.versions.numbers(block.chosen(left))
            return refusals
        for index in left:
            try:
                self.schema.versions.numbers(block.chosen([index]))
            except ColumnValueError as error:
                refusals[index] = error.refusal(error.column)
        return refusals

    def check_column(self, name: str, block: BlockColumns, refusals: dict[int, Refusal] | None = None) -> Sequence[Any]:
        """Check a column at once, or value by value where that is inconclusive; returns the values to send.

        Raises `ColumnValueError` for the first bad value. With `refusals` it raises nothing: it adds a refusal for each
        row that has a bad value and is not refused yet, by the row's index, and returns the good values.
        """
        values = block.values[name]
        check_at_once = self.schema.column_checks.get(name)
        if check_at_once is not None and not self._one_by_one:
            try:
                return check_at_once(values)
            except INCONCLUSIVE:
                pass
        checked = []
        for index, (kind, value) in enumerate(zip(block.classes, values, strict=True)):
            try:
                checked.append(self.schema.value_checks[kind][name](value))
            except ColumnValueError as error:
                if refusals is None:
                    raise ColumnValueError(error.reason, error.code, name) from None
                refusals.setdefault(index, error.refusal(name))
        return checked
