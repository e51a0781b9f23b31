"""The columns of a block, whether it came as rows or as columns: what is checked, packed and compared."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from lovelace_streams.rows.row import Row
from lovelace_streams.writers import Entry
from lovelace_streams.writers.column_block import ColumnBlock


class BlockColumns(NamedTuple):
    """The values of rows by column, and beside them what an `Entry` tells."""

    values: Mapping[str, Sequence[Any]]
    """Column → the values of all rows."""
    sequences: Sequence[int]
    """The place of each row in its partition."""
    classes: Sequence[type[Row]]
    """The class of each row."""

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.sequences)

    def chosen(self, indexes: Sequence[int]) -> "BlockColumns":
        """Return some of the rows."""
        return BlockColumns(
            {name: [values[index] for index in indexes] for name, values in self.values.items()},
            [self.sequences[index] for index in indexes],
            [self.classes[index] for index in indexes],
        )


def block_columns(block: Sequence[Entry], names: Sequence[str]) -> BlockColumns:
    """Return the columns with these names of a block of one table; of columns no row is made.

    >>> from lovelace_streams import Row
    >>> class Reading(Row, table="readings", primary_key="id"):
    ...     id: int
    ...     value: str
    >>> block = [Entry(Reading(id=1, value="a"), sequence=7), Entry(Reading(id=2, value="b"))]
    >>> columns = block_columns(block, ["value"])
    >>> columns.values, columns.sequences, columns.rows
    ({'value': ['a', 'b']}, [7, 0], 2)
    """
    if isinstance(block, ColumnBlock):
        attributes = next(iter(block.row_classes)).__table__.attributes  # the classes of a table have the same ones
        given = {name: block.column(attributes[name]) for name in names}
        return BlockColumns(given, block.sequences, block.classes)
    rows = [entry.row for entry in block]
    classes = list(map(type, rows))
    values = zip(names, columns_of(rows, names), strict=True)
    return BlockColumns(dict(values), [entry.sequence for entry in block], classes)


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
