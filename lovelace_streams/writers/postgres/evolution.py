"""Compare a real table with its rows, and add what can be added without a change of stored rows.

That is a missing table, a missing column (nullable, or with the field's default), a missing label of an enum, and a
missing value in a CHECK that we made (value_lists.py). Any other difference, such as another type or another key, is
named and left to the table's owner.
"""

from collections.abc import Sequence
from typing import Any, cast, get_args, get_origin

import psycopg
from psycopg import sql
from psycopg.rows import namedtuple_row

from lovelace_streams.rows.row import Row
from lovelace_streams.writers import Evolution
from lovelace_streams.writers.postgres.catalog import COLUMNS, RELATION, identifier, name_parts, problems_of
from lovelace_streams.writers.postgres.ddl import add_column, create_table, values_of
from lovelace_streams.writers.postgres.session import pins
from lovelace_streams.writers.postgres.value_lists import VALIDATE, widened

ADVISORY_LOCK = 0x10_7E_1A_CE
"""The advisory lock under which tables are changed: the process that comes second finds nothing left to do."""
LOCK_TIMEOUT_MS = 10_000
"""The wait for a table's lock, at most: all who write the table wait behind it."""


def evolution_of(connection: psycopg.Connection[Any], tables: Sequence[Sequence[type[Row]]]) -> Evolution:
    """Compare row classes, a list a table, with the real tables. Raises `psycopg.Error`."""
    evolution = Evolution([], [])
    for rows in tables:
        table = rows[0].__table__
        found = list(problems_of(connection, table, rows))
        if any(problem.missing == "table" for problem in found):
            evolution.statements += [*_schema(connection, table.name), create_table(*rows, existing_too=True)]
            continue
        evolution.statements += [
            f"ALTER TABLE {identifier(table).as_string()} ADD COLUMN IF NOT EXISTS {add_column(problem.column, *rows)};"
            for problem in found
            if problem.missing == "column"
        ]
        evolution.obstacles += [f"{table.name}: {problem.message}" for problem in found if not problem.missing]
        evolution.statements += widened(connection, rows)
        evolution.statements += _labels(connection, rows)
    return evolution


def evolve(
    connection: psycopg.Connection[Any], tables: Sequence[Sequence[type[Row]]], *, create: bool = True
) -> Evolution:
    """Add what can be added, in one transaction; add nothing if something else differs.

    Stored rows are looked at after it, where a CHECK has new values: they keep the old one.

    Several processes may run it at the same time. Raises `psycopg.Error`.
    """
    with connection.transaction():
        connection.execute(pins(connection.info.server_version, 0), prepare=False)
        connection.execute(sql.SQL("set local lock_timeout = {}").format(LOCK_TIMEOUT_MS))
        connection.execute("select pg_advisory_xact_lock(%s)", [ADVISORY_LOCK])
        found = evolution_of(connection, tables)
        if found.addable or (create and not found.obstacles):
            for statement in found.statements:
                if VALIDATE not in statement:
                    connection.execute(statement.encode(), prepare=False)
        else:
            return found
    for statement in found.statements:
        if VALIDATE in statement:  # it reads the whole table, so the locks of the others must be free by then
            with connection.transaction():
                connection.execute(pins(connection.info.server_version, 0), prepare=False)
                connection.execute(statement.encode(), prepare=False)
    return found


def _schema(connection: psycopg.Connection[Any], name: str) -> list[str]:
    """Return the statement for a missing table's schema, if that is missing too."""
    parts = name_parts(name)
    if len(parts) == 1 or connection.execute("select from pg_namespace where nspname = %s", [parts[0]]).fetchone():
        return []
    return [f"CREATE SCHEMA IF NOT EXISTS {sql.Identifier(parts[0]).as_string()};"]


def _labels(connection: psycopg.Connection[Any], rows: Sequence[type[Row]]) -> list[str]:
    """Return the statements for values of an Enum or Literal without a label in the column's enum."""
    table = rows[0].__table__
    [relation] = connection.execute(RELATION, [identifier(table).as_string(connection)]).fetchall()
    columns = connection.cursor(row_factory=namedtuple_row).execute(COLUMNS, [relation[0], relation[0]])
    real: dict[str, Any] = {cast("Any", column).name: column for column in columns}
    statements = []
    for column in {column.name: column for row in rows for column in row.__table__.columns}.values():
        kind = get_args(column.type)[0] if get_origin(column.type) is list else column.type
        values = [value for value in values_of(kind) if isinstance(value, str)]
        if column.name not in real or not values:
            continue
        enum = real[column.name].spelled.removesuffix("[]")
        query = "select enumlabel from pg_enum where enumtypid = to_regtype(%s)"
        labels = {label for (label,) in connection.execute(query, [enum]).fetchall()}
        statements += [
            f"ALTER TYPE {enum} ADD VALUE IF NOT EXISTS {sql.Literal(value).as_string()};"
            for value in values
            if labels and value not in labels
        ]
    return statements
