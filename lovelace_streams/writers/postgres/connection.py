"""One connection to the server of a writer's tables: it is opened, compared with the rows, aborted and closed here.

Errors of the driver leave this module as faults, by their codes. Their texts quote rows, so they are never shown (law
10).
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import psycopg.conninfo
import structlog

from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.settings import PostgresSettings
from lovelace_streams.writers import Evolution
from lovelace_streams.writers.postgres.catalog import TableSchema, inspect
from lovelace_streams.writers.postgres.evolution import evolution_of, evolve
from lovelace_streams.writers.postgres.faults import REFUSED_AT_START, fault_of
from lovelace_streams.writers.postgres.grouping import Tables, TargetTable

log = structlog.get_logger(__name__)

ADVICE = "compare with `lovelace ddl FLOW`"
DEFAULTS: dict[str, Any] = {
    "connect_timeout": 3,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "application_name": "lovelace_streams",
}
"""Parameters that a DSN may leave out: they find a dead server in seconds, and name us in pg_stat_activity."""


class PostgresConnection:
    """A connection that may be lost and opened again."""

    def __init__(self, settings: PostgresSettings, tables: Tables) -> None:
        self.settings = settings
        self.tables = tables
        self._driver: psycopg.Connection[Any] | None = None

    @property
    def name(self) -> str:
        """`postgresql://host/database/table`, without credentials; `table+table` if there are several."""
        return f"{self.settings.name}/{'+'.join(each.table.name for each in self.tables.declared)}"

    @property
    def driver(self) -> psycopg.Connection[Any]:
        """The driver's connection. Raises `DestinationFault` if there is none."""
        if self._driver is None or self._driver.closed:
            raise DestinationFault("08003", f"not connected to {self.settings.name}")
        return self._driver

    def open(self, *, evolves: bool) -> list[TableSchema]:
        """Connect, add missing columns if `evolves`, and compare the rows with the real tables.

        Raises `DestinationFault` or `DeploymentFault`; then `close` is the caller's.
        """
        connection = self._driver = self._connect()
        with self.faults():
            if evolves:
                self._evolve(connection)
            return [inspect(connection, each.table, each.rows, ADVICE) for each in self.tables.declared]

    def check(self) -> None:
        """Check what the tables' schemas do not tell: privileges, and whether a commit is durable."""
        with self.faults():
            for each in self.tables.declared:
                self._explain(each)
            self._warn_if_not_durable()

    def evolution(self, *, apply: bool) -> Evolution:
        """Return what the real tables lack, over a connection of its own; with `apply` add it, if all can be added.

        Raises `DeploymentFault` or `DestinationFault`.
        """
        rows = [each.rows for each in self.tables.declared]
        connection = self._connect()
        with self.faults(), connection:
            return evolve(connection, rows) if apply else evolution_of(connection, rows)

    def abort(self) -> None:
        """Shut the socket under a call in another thread."""
        connection = self._driver
        if connection is None:
            return
        with suppress(psycopg.Error, OSError):
            duplicate = socket.socket(fileno=os.dup(connection.pgconn.socket))
            with duplicate:
                duplicate.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self._driver = self._driver, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Raise everything that psycopg raises outside of a block as a fault."""
        try:
            yield
        except psycopg.Error as error:
            code = error.sqlstate or "08006"
            if fault_of(code) == "destination":
                raise DestinationFault(code, f"from {self.settings.name}") from None
            raise self.deployment_fault(code) from None

    def deployment_fault(self, code: str) -> DeploymentFault:
        """Return the fault for a code that is the deployment's."""
        sides = ", ".join(f"{each.rows[0].__name__} ↔ table {each.table.name}" for each in self.tables.declared)
        return DeploymentFault(f"{sides} at {self.settings.name}: refused with SQLSTATE {code}; {ADVICE}", code)

    def _connect(self) -> psycopg.Connection[Any]:
        try:
            return psycopg.connect(
                self.settings.dsn,
                autocommit=True,
                prepare_threshold=0 if self.settings.prepare else None,
                **_defaults(self.settings.dsn),
            )
        except psycopg.OperationalError as error:
            raise self._fault_at_start(error) from None
        except psycopg.Error:
            raise DeploymentFault(
                f"POSTGRES_DSN is not a connection string ({self.settings.name}): write postgresql://user:password@host/database"
            ) from None

    def _fault_at_start(self, error: psycopg.OperationalError) -> DestinationFault | DeploymentFault:
        if error.pgconn is not None and error.pgconn.needs_password:
            message = f"{self.settings.name} wants a password, and POSTGRES_DSN has none (SQLSTATE 28P01)"
            return DeploymentFault(message, "28P01")
        for code, text in REFUSED_AT_START.items():
            if text.search(str(error)):
                message = f"{self.settings.name} refuses the credentials or database of POSTGRES_DSN (SQLSTATE {code})"
                return DeploymentFault(message, code)
        return DestinationFault(
            "08001", f"{self.settings.name} (POSTGRES_DSN) does not answer: start it, or correct its address"
        )

    def _evolve(self, connection: psycopg.Connection[Any]) -> None:
        """Add the columns that the tables lack; the inspection that follows refuses any other difference."""
        rows = [each.rows for each in self.tables.declared]
        if evolution_of(connection, rows).addable:
            for statement in evolve(connection, rows, create=False).statements:
                log.info("table evolved", writer=self.name, statement=statement)

    def _explain(self, table: TargetTable) -> None:
        """Let the server plan the usual statement: wrong privileges, arbiter or casts are found now, not later."""
        plan = table.plan(table.rows[0])
        for statement in plan.statements:
            self.driver.execute(b"explain " + statement, ["{}"] * len(plan.columns), prepare=False)

    def _warn_if_not_durable(self) -> None:
        durable = self.driver.execute("show synchronous_commit", prepare=False).fetchone()
        if durable is not None and durable[0] == "off":
            log.warning("synchronous_commit_off", writer=self.name, hint="a crash of the server may lose settled rows")


def _defaults(dsn: str) -> dict[str, Any]:
    """Return the parameters that a DSN leaves out."""
    given = psycopg.conninfo.conninfo_to_dict(dsn)
    return {name: value for name, value in DEFAULTS.items() if name not in given}
