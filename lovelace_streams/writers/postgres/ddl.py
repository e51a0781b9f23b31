"""Compose `CREATE TABLE` from row classes: `lovelace ddl` prints it, and real tables are compared with it.

>>> class Member(Row, table="members", primary_key="id"):
...     id: int
...     nick: str | None
>>> print(create_table(Member))
CREATE TABLE "members" (
  "id" bigint NOT NULL,
  "nick" text,
  PRIMARY KEY ("id")
);
"""

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Literal, get_args, get_origin
from uuid import UUID

from psycopg import sql

from lovelace_streams.rows.declaration import Column
from lovelace_streams.rows.row import Row
from lovelace_streams.rows.types import scalar
from lovelace_streams.writers.postgres.catalog import identifier

TYPES: dict[Any, str] = {
    int: "bigint",
    str: "text",
    bool: "boolean",
    Decimal: "numeric",
    float: "double precision",
    datetime: "timestamptz",
    date: "date",
    UUID: "uuid",
    dict: "jsonb",
}


def create_table(*rows: type[Row], existing_too: bool = False) -> str:
    """Return the table of one or more row classes: the columns of the first in its order, then those of the others.

    A column is NOT NULL if no class lets it be None and the first class has it. Otherwise a row without it may come
    first.
    """
    first = rows[0].__table__
    lines = [_column(columns, required=required) for columns, required in _declared(rows).values()]
    lines.append(f"PRIMARY KEY ({', '.join(map(_quoted, first.key))})")
    create = "CREATE TABLE IF NOT EXISTS" if existing_too else "CREATE TABLE"
    return f"{create} {identifier(first).as_string()} (\n  " + ",\n  ".join(lines) + "\n);"


def add_column(name: str, *rows: type[Row]) -> str:
    """Return a column in the form that a table with rows accepts: nullable, or with the field's default.

    >>> class Member(Row, table="members", primary_key="id"):
    ...     id: int
    ...     level: int = 1
    >>> add_column("level", Member)
    '"level" bigint NOT NULL DEFAULT 1'
    """
    columns, required = _declared(rows)[name]
    default = columns[0].default
    if isinstance(default, Enum):
        default = default.value
    if required and type(default) in (bool, int, float, str, Decimal):
        return f"{_column(columns, required=True)} DEFAULT {literal(default)}"
    return _column(columns, required=False)


def _declared(rows: Sequence[type[Row]]) -> dict[str, tuple[list[Column], bool]]:
    """Return for each column the declarations of all classes, and whether a row of every class has it."""
    first = rows[0].__table__
    declared: dict[str, list[Column]] = {}
    for row in rows:
        if (row.__table__.name, row.__table__.key) != (first.name, first.key):
            raise TypeError(f"{row.__name__} is a row of another table or key than {rows[0].__name__}")
        for column in row.__table__.columns:
            declared.setdefault(column.name, []).append(column)
    return {
        name: (columns, len(columns) == len(rows) or columns[0] in first.columns) for name, columns in declared.items()
    }


def sql_type(kind: Any) -> str:
    """Return the column type for a declared one: lists of plain values are arrays, anything else nested is JSONB.

    >>> sql_type(int), sql_type(list[str]), sql_type(dict[str, int])
    ('bigint', 'text[]', 'jsonb')
    """
    plain = scalar(kind)
    if get_origin(plain) is list:
        return f"{TYPES[get_args(plain)[0]]}[]"
    return TYPES[plain]


def _column(columns: Sequence[Column], *, required: bool) -> str:
    column = columns[0]
    words = [_quoted(column.name), sql_type(column.type)]
    if required and not any(c.nullable for c in columns):
        words.append("NOT NULL")
    if values := declared_values(columns):
        words.append(f"CHECK ({_quoted(column.name)} IN ({', '.join(map(literal, values))}))")
    return " ".join(words)


def declared_values(columns: Sequence[Column]) -> list[Any]:
    """Return the values that the classes of a table admit in a column; none if one of them admits any value."""
    admitted = [values_of(column.type) for column in columns]
    return list(dict.fromkeys(value for values in admitted for value in values)) if all(admitted) else []


def values_of(kind: Any) -> list[Any]:
    """Return the values that an Enum or Literal admits; none for another type."""
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [member.value for member in kind]
    return []


def _quoted(name: str) -> str:
    return sql.Identifier(name).as_string()


def literal(value: Any) -> str:
    """Write a value as SQL."""
    return sql.Literal(value).as_string().strip()
