"""The contract of a table: one class names its columns, where each value comes from, and the key of a row.

A decoder (`formats`) makes a `RawItem` of each item of a message, and a `Normalizer` makes a row of it. Each module
imports only from those above it:

    values        JSON as exact values, names of JSON types, `ConversionError`
    paths         `JsonPath`: `$.d.shop_id`, `user.id`
    declaration   what a class can say of its columns (`From`, `Before`, `Pii`, …), and the result: `Table`, `Column`
    metaclass     reads the annotations of a class into its `Table`

    coercion      plain value → column value: a function for each type
    json_values   values that are passed on as JSON, and their text for every writer
    constraints   `msgspec.Meta`, `Scale` → one check for each column
    types         `ColumnType`: how each declarable type is decoded and coerced
    context       `RecordContext`: Kafka's values of a message, for rows that a user's function makes of it
    fields        `Field`: a column with everything that its declaration needs at run time

    rules         `rule`: methods of a row class that judge several fields
    interpreter   item → row, field by field: the authoritative way
    row           `Row`, the base of all row classes
    functions     a user's mapping function: its arguments, and what becomes of what it returns or raises
    decode_types  msgspec Structs that decode only what the rows read
    codegen       item → row by a function generated for each row class: the fast way
    targets       `Target`: where items are in a message, and what they become
    normalizer    `Normalizer`: takes the fast way, and the authoritative way where the fast one gives up
"""

from msgspec import UNSET

from lovelace_streams.rows.context import RecordContext
from lovelace_streams.rows.declaration import (
    Before,
    Column,
    Epoch,
    From,
    FromKafka,
    Lenient,
    Name,
    Pii,
    Scale,
    Skip,
    Table,
)
from lovelace_streams.rows.row import Row
from lovelace_streams.rows.rules import rule

__all__ = [
    "UNSET",
    "Before",
    "Column",
    "Epoch",
    "From",
    "FromKafka",
    "Lenient",
    "Name",
    "Pii",
    "RecordContext",
    "Row",
    "Scale",
    "Skip",
    "Table",
    "rule",
]
