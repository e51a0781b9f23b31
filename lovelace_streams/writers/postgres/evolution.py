"""How far a real table is from its rows, and what can be added to it without touching what is stored.

Additive is: a table that is missing, a column that is missing (nullable, or with the field's default), a label of an
enum. Whatever else differs is named and left to whoever owns the table: another type, another key.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Any, Literal, cast, get_args, get_origin

import psycopg
from psycopg import sql
from psycopg.rows import namedtuple_row

from lovelace_streams.rows.row import Row
from lovelace_streams.writers import Evolution
from lovelace_streams.writers.postgres.catalog import COLUMNS, RELATION, identifier, name_parts, problems_of
from lovelace_streams.writers.postgres.ddl import add_column, create_table

LOCK = 0x10_7E_1A_CE
"""The advisory lock under which tables are changed: who comes second finds nothing left to do."""
PATIENCE_MS = 10_000
"""Longer than that nobody waits for a table's lock: everybody who writes it would wait behind."""


def evolution_of(connection: psycopg.Connection[Any], tables: Sequence[Sequence[type[Row]]]) -> Evolution:
    """Compare row classes, a list a table, with the real tables. Raises `psycopg.Error`."""
    whole = Evolution([], [])
    for rows in tables:
        table = rows[0].__table__
        found = list(problems_of(connection, table, rows))
        if any(problem.missing == "table" for problem in found):
            whole.statements += [*_schema(connection, table.name), create_table(*rows, existing_too=True)]
            continue
        whole.statements += [
            f"ALTER TABLE {identifier(table).as_string()} ADD COLUMN IF NOT EXISTS {add_column(problem.column, *rows)};"
            for problem in found
            if problem.missing == "column"
        ]
        whole.obstacles += [f"{table.name}: {problem.message}" for problem in found if not problem.missing]
        whole.statements += _labels(connection, rows)
    return whole


def evolve(
    connection: psycopg.Connection[Any], tables: Sequence[Sequence[type[Row]]], *, create: bool = True
) -> Evolution:
    """Add what can be added, all of it in one transaction; nothing at all where something else differs.

    May run at the same time in several processes. Raises `psycopg.Error`.
    """
    with connection.transaction():
        connection.execute(sql.SQL("set local lock_timeout = {}").format(PATIENCE_MS))
        connection.execute("select pg_advisory_xact_lock(%s)", [LOCK])
        found = evolution_of(connection, tables)
        if found.addable or (create and not found.obstacles):
            for statement in found.statements:
                connection.execute(statement.encode(), prepare=False)
    return found


def _schema(connection: psycopg.Connection[Any], name: str) -> list[str]:
    """The schema of a table that is missing, where that is missing too."""
    parts = name_parts(name)
    if len(parts) == 1 or connection.execute("select from pg_namespace where nspname = %s", [parts[0]]).fetchone():
        return []
    return [f"CREATE SCHEMA IF NOT EXISTS {sql.Identifier(parts[0]).as_string()};"]


def _labels(connection: psycopg.Connection[Any], rows: Sequence[type[Row]]) -> list[str]:
    """Values of an Enum or Literal that the column's enum has no label for."""
    table = rows[0].__table__
    [relation] = connection.execute(RELATION, [identifier(table).as_string(connection)]).fetchall()
    columns = connection.cursor(row_factory=namedtuple_row).execute(COLUMNS, [relation[0], relation[0]])
    real: dict[str, Any] = {cast("Any", column).name: column for column in columns}
    statements = []
    for column in {column.name: column for row in rows for column in row.__table__.columns}.values():
        values = _values(get_args(column.type)[0] if get_origin(column.type) is list else column.type)
        if column.name not in real or not values:
            continue
        spelled = real[column.name].spelled.removesuffix("[]")
        asked = "select enumlabel from pg_enum where enumtypid = to_regtype(%s)"
        labels = {label for (label,) in connection.execute(asked, [spelled]).fetchall()}
        statements += [
            f"ALTER TYPE {spelled} ADD VALUE IF NOT EXISTS {sql.Literal(value).as_string()};"
            for value in values
            if labels and value not in labels
        ]
    return statements


def _values(kind: Any) -> list[str]:
    if get_origin(kind) is Literal:
        return [value for value in get_args(kind) if isinstance(value, str)]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [member.value for member in kind if isinstance(member.value, str)]
    return []
