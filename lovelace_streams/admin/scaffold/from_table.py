"""The row of a new flow, read from the real table."""

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import psycopg
from psycopg import sql
from psycopg.rows import namedtuple_row

from lovelace_streams.admin.scaffold.shape import FlowField, FlowShape, name_problem
from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.settings import PostgresSettings
from lovelace_streams.writers.postgres.catalog import COLUMNS, RELATION, UNIQUES
from lovelace_streams.writers.postgres.faults import REFUSED_AT_START, fault_of
from lovelace_streams.writers.postgres.types import TypeInfo, holds

CONNECT_SECONDS = 10
SCALARS: tuple[tuple[Any, str], ...] = (
    (bool, "bool"),
    (Decimal, "Decimal"),  # before int, which a numeric would hold as well
    (int, "int"),
    (float, "float"),
    (datetime, "datetime"),
    (date, "date"),
)
TYPES: tuple[tuple[Any, str], ...] = (
    *SCALARS,
    (str, "str"),
    *((list[kind], f"list[{name}]") for kind, name in SCALARS),  # type: ignore[valid-type]
    (list[str], "list[str]"),
)
BY_NAME = {"json": "dict[str, Any]", "jsonb": "dict[str, Any]", "uuid": "UUID", "_uuid": "list[UUID]", "bytea": ""}
"""Columns that would hold a list or a `str` as well, but seldom do."""


class _Catalog(msgspec.Struct):
    columns: Sequence[Any]
    uniques: Sequence[Any]


def shape_of_table(settings: PostgresSettings, table: str) -> FlowShape | None:
    """Read the columns and the key; None if there is no such table.

    Raises `DeploymentFault` for a table without a key that fields can have, `DestinationFault` if the database does
    not answer.
    """
    catalog = _read(settings, table)
    if catalog is None:
        return None
    key = _key(table, catalog)
    fields = tuple(_field(column, in_key=column.name in key) for column in catalog.columns)
    if bad := next((field for field in fields if field.problem and field.name in key), None):
        raise DeploymentFault(f"table {table}: its key has the column {bad.name}, which is {bad.problem}")
    return FlowShape("the columns of the table", key, fields)


def _read(settings: PostgresSettings, table: str) -> _Catalog | None:
    try:
        with psycopg.connect(settings.dsn, connect_timeout=CONNECT_SECONDS) as connection:
            cursor = connection.cursor(row_factory=namedtuple_row)
            found: Sequence[Any] = cursor.execute(RELATION, [sql.Identifier(*table.split(".")).as_string()]).fetchall()
            if not found:
                return None
            oid = found[0].oid
            columns = cursor.execute(COLUMNS, [oid, oid]).fetchall()
            return _Catalog(columns, cursor.execute(UNIQUES, [[oid]]).fetchall())
    except psycopg.OperationalError as error:
        raise _not_connected(settings, error) from None
    except psycopg.Error as error:
        raise _fault(settings, table, error) from None


def _not_connected(settings: PostgresSettings, error: psycopg.OperationalError) -> DeploymentFault | DestinationFault:
    """Judge a failed connection as the writer does: a refused login has no SQLSTATE, only a text."""
    refused = next((code for code, text in REFUSED_AT_START.items() if text.search(str(error))), None)
    if error.pgconn is not None and error.pgconn.needs_password:
        refused = "28P01"
    if refused is not None:
        message = f"{settings.name} refuses the user, password or database of POSTGRES_DSN (SQLSTATE {refused})"
        return DeploymentFault(f"{message}: correct it", refused)
    return DestinationFault(
        error.sqlstate or "08001",
        f"{settings.name} (POSTGRES_DSN) does not answer: start it, or correct its address",
    )


def _fault(settings: PostgresSettings, table: str, error: psycopg.Error) -> DeploymentFault | DestinationFault:
    if error.sqlstate is None:
        return DeploymentFault(f"POSTGRES_DSN is not a connection string ({settings.name}): write postgresql://…")
    if fault_of(error.sqlstate) == "deployment":
        message = f"{settings.name} refuses to describe table {table} (SQLSTATE {error.sqlstate}): grant SELECT on it"
        return DeploymentFault(message, error.sqlstate)
    return DestinationFault(error.sqlstate, f"{settings.name} fails while it describes table {table}: try again")


def _key(table: str, catalog: _Catalog) -> tuple[str, ...]:
    """Choose the first key without null columns, in the order of the table's columns."""
    required = {column.name for column in catalog.columns if column.not_null}
    keys = (unique for unique in catalog.uniques if unique.whole and unique.immediate)
    key = next((unique.columns for unique in keys if required.issuperset(unique.columns)), None)
    if key is None:
        raise DeploymentFault(f"table {table} has no primary key, so a replay would write rows twice: add one")
    return tuple(column.name for column in catalog.columns if column.name in key)


def _field(column: Any, *, in_key: bool) -> FlowField:
    if column.generated or column.always:
        return FlowField(column.name, problem="generated by the database")
    if problem := name_problem(column.name):
        return FlowField(column.name, problem=problem)
    real = TypeInfo(column.base, column.category, column.spelled, column.modifier >= 0, column.modifier, True, "")
    name = next((name for kind, name in TYPES if holds(kind, real)), "")
    name = BY_NAME.get(column.base, name)
    if not name:
        hint = "; an instant needs timestamptz" if column.base == "timestamp" else ""
        return FlowField(column.name, problem=f"{column.shown}, which no field type can be written to{hint}")
    return FlowField(column.name, name, optional=not in_key and (not column.not_null or column.filled))
