"""Rows → the body of an insert: values are checked a column at a time, then packed, the version column last."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from lovelace_streams.rows.row import Row
from lovelace_streams.writers import Entry, Refusal
from lovelace_streams.writers.clickhouse.catalog import TableSchema
from lovelace_streams.writers.clickhouse.column_checks import INCONCLUSIVE
from lovelace_streams.writers.clickhouse.faults import ColumnValueError
from lovelace_streams.writers.clickhouse.native import native_block, pack_column


class InsertBody(NamedTuple):
    """The bytes of an insert, and the table's schema that they were made for."""

    schema: TableSchema
    native: bytes


class EncodedBlock(list[Entry]):
    """A block with what `ClickHouseWriter.encode` made of it before the call that writes it."""

    body: InsertBody | None = None
    """None if the block holds a bad value, or the writer was not open: then `write` makes the body."""
    has_distinct_keys: bool = False
    """Whether it is known that no two rows have one key."""


class BlockEncoder:
    """Checks and packs rows for a table as it was when the writer was opened.

    `one_by_one` checks value by value only: so the oracle does not depend on the checks of whole columns.
    """

    def __init__(self, schema: TableSchema, *, one_by_one: bool = False) -> None:
        self.schema = schema
        self._one_by_one = one_by_one

    def encode(self, entries: Sequence[Entry]) -> InsertBody:
        """Check and pack rows; raises `ColumnValueError` with the first column that has a bad value."""
        schema = self.schema
        rows = [entry.row for entry in entries]
        columns = zip(schema.names, columns_of(rows, schema.names), strict=True)
        checked = {name: self.check_column(name, rows, values) for name, values in columns}
        packed = [pack_column(name, schema.packers[name], values) for name, values in checked.items()]
        packed.append(schema.versions.packed(entries, checked))
        return InsertBody(schema, native_block(schema.columns, len(rows), packed))

    def find_bad_values(self, entries: Sequence[Entry]) -> Mapping[int, Refusal]:
        """Find all rows with a value that its column can't hold: index → refusal by the first such column.

        Rules of the server (CHECKs) are not known here.
        """
        schema = self.schema
        rows = [entry.row for entry in entries]
        refusals: dict[int, Refusal] = {}
        for name, values in zip(schema.names, columns_of(rows, schema.names), strict=True):
            self.check_column(name, rows, values, refusals)
        for index, entry in enumerate(entries):
            if index not in refusals:
                try:
                    schema.versions.numbers([entry])
                except ColumnValueError as error:
                    refusals[index] = error.refusal(error.column)
        return refusals

    def check_column(
        self, name: str, rows: Sequence[Row], values: list[Any], refusals: dict[int, Refusal] | None = None
    ) -> Sequence[Any]:
        """Check a column at once, or value by value where that is inconclusive; returns the values to send.

        Raises `ColumnValueError` for the first bad value. With `refusals` it raises nothing: it adds a refusal for each
        row that has a bad value and is not refused yet, by the row's index, and returns the good values.
        """
        check_at_once = self.schema.column_checks.get(name)
        if check_at_once is not None and not self._one_by_one:
            with suppress(*INCONCLUSIVE):
                return check_at_once(values)
        checked = []
        for index, (row, value) in enumerate(zip(rows, values, strict=True)):
            try:
                checked.append(self.schema.value_checks[type(row)][name](value))
            except ColumnValueError as error:
                if refusals is None:
                    raise ColumnValueError(error.reason, error.code, name) from None
                refusals.setdefault(index, error.refusal(name))
        return checked


def columns_of(rows: Sequence[Row], names: Sequence[str]) -> list[list[Any]]:
    """Return the values of each of these columns.

    Rows of one class are read once each, as a tuple: half the cost of reading attribute by attribute.
    """
    kinds: set[type[Row]] = set(map(type, rows))
    fields_of = {kind: kind.__table__.attributes for kind in kinds}
    if len(fields_of) != 1:
        return [[getattr(row, fields_of[type(row)][name]) for row in rows] for name in names]
    [attributes] = fields_of.values()
    fields = rows[0].__struct_fields__
    values = list(chain.from_iterable(map(msgspec.structs.astuple, rows)))
    return [values[fields.index(attributes[name]) :: len(fields)] for name in names]
