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
import structlog

from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.settings import PostgresSettings
from lovelace_streams.writers import Evolution
from lovelace_streams.writers.postgres.catalog import TableSchema, inspect
from lovelace_streams.writers.postgres.connect_faults import connect_fault
from lovelace_streams.writers.postgres.evolution import evolution_of, evolve
from lovelace_streams.writers.postgres.faults import ADVICE as BY_CODE
from lovelace_streams.writers.postgres.faults import PREPARED_ELSEWHERE, fault_of
from lovelace_streams.writers.postgres.grouping import Tables, TargetTable
from lovelace_streams.writers.postgres.session import connect_parameters, pins
from lovelace_streams.writers.postgres.trip import Prepared

log = structlog.get_logger(__name__)

ADVICE = "compare with `lovelace ddl FLOW`"


class PostgresConnection:
    """A connection that may be lost and opened again."""

    def __init__(self, settings: PostgresSettings, tables: Tables) -> None:
        self.settings = settings
        self.tables = tables
        self._driver: psycopg.Connection[Any] | None = None
        self._more_pins: dict[str, str] = {}
        self.prepared: Prepared | None = set() if settings.prepare else None
        """The statements that the session has prepared; None if none is: without POSTGRES_PREPARE, and as soon as a
        pooler shows that it gives us other sessions."""

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
            self._more_pins = self._pins_of_role(connection)
            if evolves:
                self._evolve(connection)
        return self.inspect()

    def inspect(self) -> list[TableSchema]:
        """Compare the rows with the real tables as they are now. Raises `DestinationFault` or `DeploymentFault`."""
        with self.faults(), self.pinned():
            return [inspect(self.driver, each.table, each.rows, ADVICE) for each in self.tables.declared]

    def check(self) -> None:
        """Check what the tables' schemas do not tell: privileges, and whether a commit is durable."""
        with self.faults(), self.pinned():
            for each in self.tables.declared:
                self._explain(each)
            self._warn_if_not_durable()

    def missing_values(self) -> list[str]:
        """Return the statements that add the rows' values to the tables' lists and enums: rows with them are refused.

        Raises `DestinationFault` or `DeploymentFault`.
        """
        with self.faults(), self.pinned():
            return evolution_of(self.driver, [each.rows for each in self.tables.declared]).statements

    @property
    def pins(self) -> bytes:
        """The query that every transaction begins with, so that no setting of the role changes what it does."""
        return pins(self.driver.info.server_version, self.settings.write_seconds, more=self._more_pins)

    @contextmanager
    def pinned(self) -> Iterator[None]:
        """Run what is within in a transaction with pinned settings. Raises `psycopg.Error`."""
        with self.driver.transaction():
            self.driver.execute(self.pins, prepare=False)
            yield

    def evolution(self, *, apply: bool) -> Evolution:
        """Return what the real tables lack, over a connection of its own; with `apply` add it, if all can be added.

        Raises `DeploymentFault` or `DestinationFault`.
        """
        rows = [each.rows for each in self.tables.declared]
        connection = self._connect()
        with self.faults(), connection:
            if apply:
                return evolve(connection, rows)
            with connection.transaction():
                connection.execute(pins(connection.info.server_version, 0), prepare=False)
                return evolution_of(connection, rows)

    def stop_preparing(self, code: str) -> bool:
        """Prepare no statement any more, for this code; False if none was prepared."""
        if self.prepared is None:
            return False
        self.prepared = None
        hint = "a pooler in transaction mode gives each transaction another session: set POSTGRES_PREPARE=false"
        log.warning("statements are not prepared any more", writer=self.name, code=code, hint=hint)
        return True

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
        if self.prepared:
            self.prepared = set()
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
            if fault_of(code) == "destination" or (code in PREPARED_ELSEWHERE and self.stop_preparing(code)):
                raise DestinationFault(code, f"from {self.settings.name}") from None
            raise self.deployment_fault(code) from None

    def deployment_fault(self, code: str) -> DeploymentFault:
        """Return the fault for a code that is the deployment's."""
        sides = ", ".join(f"{each.rows[0].__name__} ↔ table {each.table.name}" for each in self.tables.declared)
        advice = BY_CODE.get(code) or BY_CODE.get(code[:2], ADVICE)
        return DeploymentFault(f"{sides} at {self.settings.name}: refused with SQLSTATE {code}; {advice}", code)

    def _connect(self) -> psycopg.Connection[Any]:
        try:
            return psycopg.connect(
                self.settings.dsn,
                autocommit=True,
                prepare_threshold=None,
                **connect_parameters(self.settings.dsn),
            )
        except (psycopg.Error, ValueError) as error:
            raise connect_fault(error, self.settings.name) from None

    def _pins_of_role(self, connection: psycopg.Connection[Any]) -> dict[str, str]:
        """Return the pins that need a privilege, where the role has another value. Raises `DeploymentFault`."""
        [(role,)] = connection.execute("select current_setting('session_replication_role')", prepare=False).fetchall()
        if role != "replica":
            return {}
        try:
            with connection.transaction(force_rollback=True):
                connection.execute("set local session_replication_role = origin", prepare=False)
        except psycopg.errors.InsufficientPrivilege:
            raise DeploymentFault(
                f"{self.settings.name}: session_replication_role is replica for the user of POSTGRES_DSN, so no trigger"
                " or foreign key would hold: ALTER ROLE … RESET session_replication_role, or of the database",
                "42501",
            ) from None
        return {"session_replication_role": "origin"}

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
