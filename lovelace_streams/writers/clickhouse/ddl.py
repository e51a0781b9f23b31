"""ClickHouse's `CREATE TABLE` from row classes: what `lovelace ddl` prints for a flow that writes there.

>>> class Message(Row, table="messages", primary_key=("channel_id", "id"), version="seen_at"):
...     channel_id: int
...     id: int
...     content: str | None = None
...     seen_at: datetime
>>> print(create_table(Message))
CREATE TABLE `messages` (
  `channel_id` Int64,
  `id` Int64,
  `content` Nullable(String),
  `seen_at` DateTime64(6, 'UTC'),
  `_version` UInt128
) ENGINE = ReplacingMergeTree(`_version`)
ORDER BY (`channel_id`, `id`)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

`SELECT … FROM messages FINAL` shows of each key the row with the highest version.
"""

from datetime import date, datetime
from decimal import Decimal
from typing import Any, get_args, get_origin
from uuid import UUID

from lovelace_streams.rows.declaration import Column
from lovelace_streams.rows.row import Row
from lovelace_streams.rows.types import scalar
from lovelace_streams.writers.clickhouse.catalog import quoted

VERSION = "_version"
TYPES: dict[Any, str] = {
    int: "Int64",
    str: "String",
    bool: "Bool",
    Decimal: "Decimal(38, 9)",
    float: "Float64",
    datetime: "DateTime64(6, 'UTC')",
    date: "Date32",
    UUID: "UUID",
    dict: "String",
}


def create_table(*rows: type[Row]) -> str:
    """The table of row classes that have the same columns: its rows are replaced whole. Raises `TypeError`.

    A column is nullable where a class lets it be None.
    """
    first = rows[0].__table__
    for row in rows:
        table = row.__table__
        names = {column.name for column in table.columns}
        if (table.name, table.key, names) != (first.name, first.key, {column.name for column in first.columns}):
            raise TypeError(f"{row.__name__} has another table, key or set of columns than {rows[0].__name__}")
    nullable = {column.name for row in rows for column in row.__table__.columns if column.nullable}
    lines = [_column(column, nullable=column.name in nullable) for column in first.columns]
    lines.append(f"{quoted(VERSION)} UInt128")
    name = ".".join(map(quoted, first.name.split(".")))
    key = ", ".join(map(quoted, first.key))
    return (
        f"CREATE TABLE {name} (\n  " + ",\n  ".join(lines) + "\n"
        f") ENGINE = ReplacingMergeTree({quoted(VERSION)})\n"
        f"ORDER BY ({key})\n"
        "SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;"
    )


def column_type(kind: Any, *, nullable: bool = False) -> str:
    """The column type for a declared one; whatever is nested otherwise than in a list is JSON in a String.

    >>> column_type(int), column_type(list[str]), column_type(dict[str, int], nullable=True)
    ('Int64', 'Array(String)', 'Nullable(String)')
    """
    plain = scalar(kind)
    if get_origin(plain) is list:
        if nullable:
            raise TypeError("an Array can't be NULL in ClickHouse: give the list a default ([]) instead of None")
        return f"Array({TYPES[get_args(plain)[0]]})"
    return f"Nullable({TYPES[plain]})" if nullable else TYPES[plain]


def _column(column: Column, *, nullable: bool) -> str:
    try:
        return f"{quoted(column.name)} {column_type(column.type, nullable=nullable)}"
    except TypeError as error:
        raise TypeError(f"{column.name}: {error}") from None
