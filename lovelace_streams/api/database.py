"""The service's tables and named queries: SQL is in `.sql` files, table names are filled in as identifiers."""

import re
from importlib.resources import files
from typing import Any

from psycopg import AsyncConnection, sql

from lovelace_streams.api.config import ApiSettings

TABLES = ("settled_offsets", "heard", "counters", "failed_items", "inputs", "idempotency_keys", "outbox", "standings")


class Queries:
    """`queries["judge"]`: a query of `queries.sql` by its name."""

    def __init__(self, settings: ApiSettings) -> None:
        text = (files(__package__) / "queries.sql").read_text()
        parts = re.split(r"^-- (\w+) --$", text, flags=re.MULTILINE)[1:]
        names = identifiers(settings)
        self._queries = {
            name: sql.SQL(body).format(**names).as_bytes(None)
            for name, body in zip(parts[::2], parts[1::2], strict=True)
        }
        self.channel = f"{settings.schema}_jobs"

    def __getitem__(self, name: str) -> bytes:
        return self._queries[name]


def array(values: list[Any]) -> str:
    """Write integers, texts and nulls as a Postgres array, which the statement casts.

    psycopg's own adapter inspects each element, which was 40 % of the cost of a report of 5,000 ranges.

    >>> array([1, 2]), array(["a", 'b"', None, "null"]), array([])
    ('{1, 2}', '{"a","b\\\\"",NULL,"null"}', '{}')
    """
    if set(map(type, values)) == {int}:
        return f"{{{str(values)[1:-1]}}}"
    elements = {value: _element(value) for value in set(values)}  # of a job's many ranges one
    return f"{{{','.join([elements[value] for value in values])}}}"


def _element(value: str | int | None) -> str:
    if value is None:
        return "NULL"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def identifiers(settings: ApiSettings) -> dict[str, sql.Identifier]:
    """Map each name in braces in a `.sql` file to its table."""
    tables = {table: sql.Identifier(settings.schema, table) for table in TABLES}
    return {**tables, "jobs": sql.Identifier(settings.schema, settings.jobs_table)}


async def migrate(conn: AsyncConnection[Any], settings: ApiSettings) -> list[str]:
    """Apply the migrations that are missing, each in one transaction; answer their names.

    Services that start at the same time take turns. A restart continues after the last migration that was applied.
    """
    schema = sql.Identifier(settings.schema)
    applied = sql.Identifier(settings.schema, "migrations")
    applied_now: list[str] = []
    for script in sorted(files(__package__).joinpath("migrations").iterdir(), key=lambda path: path.name):
        if not script.name.endswith(".sql"):
            continue
        async with conn.transaction():
            await conn.execute("select pg_advisory_xact_lock(hashtext(%s))", (f"migrate {settings.schema}",))
            await conn.execute(sql.SQL("create schema if not exists {}").format(schema))
            await conn.execute(
                sql.SQL(
                    "create table if not exists {} (name text primary key, applied_at timestamptz default now())"
                ).format(applied)
            )
            claim = sql.SQL("insert into {} (name) values (%s) on conflict do nothing").format(applied)
            if (await conn.execute(claim, (script.name,))).rowcount:
                await conn.execute(sql.SQL(script.read_text()).format(**identifiers(settings)))
                applied_now.append(script.name)
    return applied_now
