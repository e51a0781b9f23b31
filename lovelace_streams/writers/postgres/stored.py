"""What a value is as its column stores it. Whatever is compared is compared so, and only so.

A column rounds (`timestamptz(3)`, `numeric(10,2)`) or drops blanks (`varchar(3)`) when a value is assigned to it. A
value that is compared as it was sent is another one: an update that is newer than the stored row would be taken for
older, and a key would not be found. So the server compares what `as_stored` makes of a staged value, by the function
that an assignment calls. A cast will not do: `'abcd'::varchar(3)` cuts where an assignment refuses.

Keys are compared in Python too, where rows are grouped. `comparable_values` gives them, for the types by which that can
be said here (`types.exact_key`). Keys of other types are compared by the server alone, one row a statement.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from operator import attrgetter
from typing import Any

from msgspec import UNSET
from psycopg import sql

from lovelace_streams.rows.declaration import Table
from lovelace_streams.rows.row import Row
from lovelace_streams.writers.postgres.types import TypeInfo


def trusted(text: str) -> sql.SQL:
    """Return SQL that the catalogue itself wrote: a type, an expression, a function."""
    return sql.SQL(text.replace("%", "%%"))


def named(*parts: str) -> sql.SQL:
    """Return a quoted name for a statement with parameters, where a `%` is written twice."""
    return trusted(sql.Identifier(*parts).as_string())


def as_stored(staged: sql.Composable, real: TypeInfo) -> sql.Composable:
    """Compose what an assignment to a column makes of a value of its type; it refuses what the assignment refuses."""
    if not (real.modified and real.coercion):
        return staged
    explicit = sql.SQL(", false" if real.coercion_is_told else "")
    return sql.SQL("{}({}, {}{})").format(trusted(real.coercion), staged, sql.Literal(real.modifier), explicit)


def identity_of(table: Table, types: Mapping[str, TypeInfo]) -> Callable[[Row], Any]:
    """Return the function from a row to its key: two are equal exactly where the table's are, if its key is exact."""
    if key_compares_as_is(table, types):
        return attrgetter(*map(table.attributes.__getitem__, table.key))
    return comparable_values(table.key, types, table.attributes)


def comparable_values(
    columns: Sequence[str], types: Mapping[str, TypeInfo], attributes: Mapping[str, str]
) -> Callable[[Row], Any]:
    """Return the function from a row to its values as stored, a tuple if there are several columns.

    A column that the row's class does not have is UNSET.
    """
    parts = [(attributes.get(name, name), _comparable_value(types[name])) for name in columns]
    if len(parts) == 1:
        [(only, comparable)] = parts
        return lambda row: comparable(getattr(row, only, UNSET))
    return lambda row: tuple(comparable(getattr(row, name, UNSET)) for name, comparable in parts)


def key_compares_as_is(table: Table, types: Mapping[str, TypeInfo]) -> bool:
    """Whether the values of a key are compared without being converted."""
    fields = {column.name: column.type for column in table.columns}
    return not any(_is_converted(fields[name], types[name]) for name in table.key)


def _is_converted(kind: Any, real: TypeInfo) -> bool:
    return (isinstance(kind, type) and issubclass(kind, Enum)) or (real.name == "varchar" and real.modified)


def _comparable_value(real: TypeInfo) -> Callable[[Any], Any]:
    """Return the conversion: an Enum to its value; a varchar(n) without the blanks beyond n, which assignment drops."""
    limit = real.modifier - 4 if real.name == "varchar" and real.modified else None

    def comparable(value: Any) -> Any:
        plain = value.value if isinstance(value, Enum) else value
        if limit is not None and isinstance(plain, str) and len(plain) > limit:
            return plain[:limit] + plain[limit:].rstrip(" ")
        return plain

    return comparable
