"""The contract of a table: one class says its columns, where each comes from, and what makes a row the same row.

`declaration` is what a row class says, `types` what a value becomes in a column, `normalizer` how an item becomes one.
"""

from msgspec import UNSET

from lovelace_streams.rows.declaration import Before, Column, Epoch, From, FromKafka, Lenient, Pii, Skip, Table
from lovelace_streams.rows.row import Row

__all__ = ["UNSET", "Before", "Column", "Epoch", "From", "FromKafka", "Lenient", "Pii", "Row", "Skip", "Table"]
