"""ClickHouse's `CREATE TABLE` from row classes; `lovelace ddl` prints it for a flow that writes to ClickHouse.

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

`SELECT … FROM messages FINAL` shows the row with the highest version of each key.
"""

from datetime import date, datetime
from decimal import Decimal
from typing import Any, get_args, get_origin
from uuid import UUID

from lovelace_streams.rows.declaration import Column
from lovelace_streams.rows.row import Row
from lovelace_streams.rows.types import scalar
from lovelace_streams.writers.clickhouse.catalog import quoted

VERSION_COLUMN = "_version"
COLUMN_TYPES: dict[Any, str] = {
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
    """Return the table of row classes that have the same table name, key and columns; raises `TypeError` for others.

    A column is nullable if one of the classes allows None.
    """
    first = rows[0].__table__
    for row in rows:
        table = row.__table__
        names = {column.name for column in table.columns}
        if (table.name, table.key, names) != (first.name, first.key, {column.name for column in first.columns}):
            raise TypeError(f"{row.__name__} has another table, key or set of columns than {rows[0].__name__}")
    nullable = {column.name for row in rows for column in row.__table__.columns if column.nullable}
    lines = [_column(column, nullable=column.name in nullable) for column in first.columns]
    lines.append(f"{quoted(VERSION_COLUMN)} UInt128")
    name = ".".join(map(quoted, first.name.split(".")))
    key = ", ".join(map(quoted, first.key))
    return (
        f"CREATE TABLE {name} (\n  " + ",\n  ".join(lines) + "\n"
        f") ENGINE = ReplacingMergeTree({quoted(VERSION_COLUMN)})\n"
        f"ORDER BY ({key})\n"
        "SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;"
    )


def column_type(declared: Any, *, nullable: bool = False) -> str:
    """Return the column type for a declared type; nested values other than lists are JSON in a String.

    Raises `TypeError` for a nullable list.

    >>> column_type(int), column_type(list[str]), column_type(dict[str, int], nullable=True)
    ('Int64', 'Array(String)', 'Nullable(String)')
    """
    plain = scalar(declared)
    if get_origin(plain) is list:
        if nullable:
            raise TypeError("an Array can't be NULL in ClickHouse: give the list a default ([]) instead of None")
        return f"Array({COLUMN_TYPES[get_args(plain)[0]]})"
    return f"Nullable({COLUMN_TYPES[plain]})" if nullable else COLUMN_TYPES[plain]


def _column(column: Column, *, nullable: bool) -> str:
    try:
        kind = column_type(column.type, nullable=nullable)
    except TypeError as error:
        raise TypeError(f"{column.name}: {error}") from None
    if column.scale is not None:
        kind = kind.replace(COLUMN_TYPES[Decimal], f"Decimal(38, {column.scale.digits})")
    return f"{quoted(column.name)} {kind}"
