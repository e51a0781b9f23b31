"""The session settings that we rely on, pinned in one place: a role, a database, an environment may set any of them.

`ALTER ROLE … SET`, `ALTER DATABASE … SET`, PGOPTIONS, PGTZ and others change what values mean: with `array_nulls = off`
a NULL of ours would be stored as the text "NULL". So each transaction begins with `pins`, which end with it: behind a
pooler the session belongs to others. Only the encoding travels with the connection itself.

What says *who may do what, and where*, stays the role's: `search_path` (which table a name means), `role`,
`default_transaction_read_only` (a full disk is protected by it, so a read-only database is waited for, 25006),
`lock_timeout`, `synchronous_commit` (a warning says so).
"""

from collections.abc import Mapping
from typing import Any

import psycopg
import psycopg.conninfo
from psycopg import sql

DEFAULTS: dict[str, Any] = {
    "connect_timeout": 3,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "application_name": "lovelace_streams",
}
"""Parameters that a DSN may leave out: they find a dead server in seconds, and name us in pg_stat_activity."""

ENCODING = {"client_encoding": "UTF8"}
"""What the database can't hold of it, the server refuses (22P05): that is one record's fault."""

PINNED: Mapping[str, str] = {
    "array_nulls": "on",  # else NULL in an array literal is a text
    "bytea_output": "hex",
    "datestyle": "ISO, MDY",
    "exit_on_error": "off",  # else each refused row ends the session
    "extra_float_digits": "1",  # floats come back as they were
    "intervalstyle": "postgres",
    "quote_all_identifiers": "off",  # else types are named otherwise by the catalogue
    "row_security": "on",  # else a policy refuses the statement instead of the row
    "standard_conforming_strings": "on",
    "timezone": "UTC",  # what a default or a trigger makes of an instant must not depend on where a worker runs
    "transform_null_equals": "off",
    "xmloption": "content",
}
"""Setting → the value that the writer's statements, and their answers, are made for."""

TRANSACTION_TIMEOUT_SINCE = 170_000
"""The first `server_version` that has `transaction_timeout`."""


def connect_parameters(dsn: str) -> dict[str, Any]:
    """Return the parameters of a connection that a DSN leaves out, and those that it can't change.

    Raises `psycopg.ProgrammingError` for a DSN that is none.
    """
    given = psycopg.conninfo.conninfo_to_dict(dsn)
    return {**{name: value for name, value in DEFAULTS.items() if name not in given}, **ENCODING}


def pins(
    server_version: int, seconds: float, *, in_transaction: bool = True, more: Mapping[str, str] | None = None
) -> bytes:
    """Return the query that pins the settings, until the transaction or else the session ends.

    A statement, and a pause between two, may take `seconds`, whatever the role's own limits are; 0: no limit.
    """
    limit = str(int(seconds * 1000))
    limits = {"statement_timeout": limit, "idle_in_transaction_session_timeout": limit}
    if server_version >= TRANSACTION_TIMEOUT_SINCE:
        limits["transaction_timeout"] = "0"  # a block of several statements may take longer than one of them
    settings = {**PINNED, **limits, **(more or {})}
    calls = [
        sql.SQL("set_config({}, {}, {})").format(name, value, sql.Literal(in_transaction))
        for name, value in settings.items()
    ]
    return sql.SQL("select {}").format(sql.SQL(", ").join(calls)).as_bytes()
