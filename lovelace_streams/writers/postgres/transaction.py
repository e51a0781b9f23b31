"""Run a block's statements in one transaction and, as a rule, in one network round trip.

A transaction leaves nothing behind in its session, since a pooler may hand the session to another client.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import msgspec
import psycopg

from lovelace_streams.errors import DestinationFault
from lovelace_streams.records import Reason
from lovelace_streams.settings import PostgresSettings
from lovelace_streams.writers import Entry, Refusal, RowOutcome
from lovelace_streams.writers.isolation import Refused
from lovelace_streams.writers.postgres.catalog import TableSchema
from lovelace_streams.writers.postgres.connection import PostgresConnection
from lovelace_streams.writers.postgres.copy import copy_in
from lovelace_streams.writers.postgres.faults import ENCODE_ERROR, fault_of, refused_by
from lovelace_streams.writers.postgres.grouping import StatementRows, UniformRows
from lovelace_streams.writers.postgres.sql import Plan

Query = tuple[bytes, Sequence[str] | None]
"""A query and its parameters. None: it has none, and a `%` in it is a `%`."""


class TransactionFrame(msgspec.Struct, frozen=True):
    """The statements that begin an attempt, keep it, or undo it."""

    begin: tuple[bytes, ...]
    keep: bytes
    undo: bytes


NOT_OPENED = TransactionFrame((), b"commit", b"rollback")
DRY_RUN = TransactionFrame((b"savepoint attempt",), b"release savepoint attempt", b"rollback to savepoint attempt")
"""Attempts within a transaction that is rolled back in the end, so that later attempts see what earlier ones wrote."""


class Transactions:
    """Runs transactions over one connection, each in the frame that is set."""

    def __init__(self, connection: PostgresConnection, settings: PostgresSettings) -> None:
        self._connection = connection
        self._settings = settings
        self._frame = NOT_OPENED
        self._may_suppress = False

    def set_schemas(self, schemas: Sequence[TableSchema]) -> None:
        """Take the tables' schemas that were read now."""
        self._may_suppress = any(schema.may_suppress for schema in schemas)
        self._frame = TransactionFrame(self._begin(schemas), b"commit", b"rollback")

    def _begin(self, schemas: Sequence[TableSchema]) -> tuple[bytes, ...]:
        begin = (b"begin isolation level read committed", self._connection.pins)
        # a refusal then belongs to its statement, not to COMMIT
        return (*begin, b"set constraints all immediate") if any(s.deferrable for s in schemas) else begin

    @property
    def driver(self) -> psycopg.Connection[Any]:
        """The driver's connection. Raises `DestinationFault` if there is none."""
        return self._connection.driver

    @property
    def is_dry_run(self) -> bool:
        """Whether what is written now is rolled back in the end."""
        return self._frame is DRY_RUN

    @contextmanager
    def dry_run(self) -> Iterator[None]:
        """Roll back in the end what is written within. Raises `DestinationFault` or `DeploymentFault`."""
        connection, frame = self._connection.driver, self._frame
        with self._connection.faults(), one_trip(connection):
            _execute(connection, frame.begin)
        self._frame = DRY_RUN
        try:
            yield
        finally:
            self._frame = frame
            with suppress(psycopg.Error):
                connection.execute(frame.undo, prepare=False)

    def copy(self, rows: UniformRows) -> None:
        """Copy the rows straight into the table. Raises `psycopg.Error` or `EncodeError`."""
        frame = self._frame
        copy_in(self._connection.driver, frame.begin, rows.plan.copy, rows.copy_data(), frame.keep)

    def write(
        self, statements: Sequence[StatementRows], parameters: Sequence[list[str]], *, commit: bool
    ) -> list[list[RowOutcome]]:
        """Write all statements or none; return the outcome of each row of each. Raises `psycopg.Error`."""
        connection = self._connection.driver
        cursors: list[list[psycopg.Cursor[Any]]] = []
        outcomes: list[list[RowOutcome]] = []
        with self._trip(connection):
            _execute(connection, self._frame.begin)
            for rows, literals in zip(statements, parameters, strict=True):
                cursors.append(
                    [
                        connection.execute(statement, literals, prepare=self._settings.prepare)
                        for statement in rows.plan.statements
                    ]
                )
                if self._may_suppress:  # asked at once: a later statement may store a newer version
                    outcomes.append(self._outcomes(connection, rows, literals, cursors[-1]))
            connection.execute(self._frame.keep if commit else self._frame.undo, prepare=False)
        return outcomes or [
            self._outcomes(connection, rows, literals, results)
            for rows, literals, results in zip(statements, parameters, cursors, strict=True)
        ]

    def _trip(self, connection: psycopg.Connection[Any]) -> AbstractContextManager[None]:
        """Return one round trip for all statements, unless their results are looked at in between."""
        return nullcontext() if self._may_suppress else one_trip(connection)

    def _outcomes(
        self,
        connection: psycopg.Connection[Any],
        rows: StatementRows,
        literals: list[str],
        cursors: list[psycopg.Cursor[Any]],
    ) -> list[RowOutcome]:
        """Tell which rows of a statement (or pair) were written, and why the others were not."""
        count = len(rows.indexes)
        written = sum(cursor.rowcount for cursor in cursors)
        if written == count:
            return [RowOutcome.WRITTEN] * count
        outcomes = self._why_not_written(connection, rows, literals)
        if written:
            *updates, inserts = cursors
            index_of = {key: index for index, key in enumerate(rows.keys)}
            for update in updates:
                for (ordinal,) in update.fetchall():
                    outcomes[ordinal - 1] = RowOutcome.WRITTEN
            for key in inserts.fetchall():
                outcomes[index_of[key if len(key) > 1 else key[0]]] = RowOutcome.WRITTEN
        return outcomes

    @staticmethod
    def _why_not_written(
        connection: psycopg.Connection[Any], rows: StatementRows, literals: list[str]
    ) -> list[RowOutcome]:
        """Tell what holds rows off: a newer stored row (for `only_new`: one that is not older), else a trigger."""
        plan, count = rows.plan, len(rows.indexes)
        if not rows.table.schema.may_suppress:
            return [RowOutcome.SUPERSEDED] * count
        outcomes = [RowOutcome.SUPPRESSED] * count
        if plan.newer_stored is not None:
            by_name = dict(zip(plan.names, literals, strict=True))
            parameters = [by_name[name] for name in plan.newer_stored_columns]
            for (ordinal,) in connection.execute(plan.newer_stored, parameters, prepare=False).fetchall():
                outcomes[ordinal - 1] = RowOutcome.SUPERSEDED
        return outcomes

    def fetch(self, *queries: Query, prepare: bool = False) -> list[Any]:
        """Run queries in one round trip, under the same timeout as a block; return the rows of the last one.

        Raises `psycopg.Error`.
        """
        connection = self._connection.driver
        with one_trip(connection):
            _execute(connection, self._frame.begin)
            cursors = [connection.execute(query, parameters, prepare=prepare) for query, parameters in queries]
            connection.execute(self._frame.keep, prepare=False)
        return cursors[-1].fetchall()

    def keys_are_new(self, plan: Plan, entries: Sequence[Entry]) -> list[bool]:
        """Tell of each row whether its key is new to the table: then an INSERT alone writes it, in the order read.

        It is asked before the transaction. The pair of statements still meets a row that comes in between.
        """
        keys = plan.encode([entry.row for entry in entries], plan.key_columns)
        new = {ordinal - 1 for (ordinal,) in self.fetch((plan.new_keys, keys))}
        return [index in new for index in range(len(entries))]

    def undo(self, connection: psycopg.Connection[Any], error: psycopg.Error) -> Refused:
        """Undo the attempt that raised an error; return why it was refused. Raises `DestinationFault`."""
        with suppress(psycopg.Error):
            connection.execute(self._frame.undo, prepare=False)
        code = error.sqlstate
        if code is None:
            if not isinstance(error, psycopg.DataError):
                raise DestinationFault("08006", f"lost {self._settings.name}") from None
            return Refused(Refusal(Reason.REFUSED, ENCODE_ERROR))
        if fault_of(code) == "destination":
            raise DestinationFault(code, f"from {self._settings.name}") from None
        return refused_by(code, error.diag.constraint_name or error.diag.column_name or "")


@contextmanager
def one_trip(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Send all statements within in one network round trip. Raises the error of the one that failed.

    An exception must not leave psycopg's own block: psycopg would log the errors after it, with the rows they quote.
    """
    first: psycopg.Error | None = None
    try:
        with connection.pipeline():
            try:
                yield
            except psycopg.Error as error:
                first = error
    except psycopg.Error as error:
        first = first or error
    if first is not None:
        raise first


def _execute(connection: psycopg.Connection[Any], statements: Sequence[bytes]) -> None:
    for statement in statements:
        connection.execute(statement, prepare=False)
