"""Run a block's statements in one transaction and, as a rule, in one network round trip.

A transaction leaves nothing behind in its session, since a pooler may hand the session to another client.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from itertools import islice
from typing import Any, TypeVar

import msgspec
import psycopg
from psycopg.abc import PQGen
from psycopg.pq.abc import PGresult

from lovelace_streams.errors import DestinationFault
from lovelace_streams.settings import PostgresSettings
from lovelace_streams.writers import Entry, RowOutcome
from lovelace_streams.writers.isolation import Refused
from lovelace_streams.writers.postgres.catalog import TableSchema
from lovelace_streams.writers.postgres.connection import PostgresConnection
from lovelace_streams.writers.postgres.copy import copy_in
from lovelace_streams.writers.postgres.faults import ENCODE_ERROR, PREPARED_ELSEWHERE, fault_of, refused_by
from lovelace_streams.writers.postgres.grouping import StatementRows, UniformRows
from lovelace_streams.writers.postgres.sql import HELD_OFF, RESET_HELD_OFF, Plan
from lovelace_streams.writers.postgres.trip import Query, rows_of, trip
from lovelace_streams.writers.postgres.types import EncodedColumn

T = TypeVar("T")

UNTOLD_ROWS_MIN = 500
"""So many rows are first written without being told which: of fewer the answer costs less than one more round trip."""
TOLD_BLOCKS = 16
"""After a block of which stored rows held some off, the next 16 are told row by row at once: one that has to be written
twice costs more."""


class TransactionFrame(msgspec.Struct, frozen=True):
    """The statements that begin an attempt, keep it, or undo it."""

    begin: tuple[bytes, ...]
    keep: bytes
    undo: bytes


NOT_OPENED = TransactionFrame((), b"commit", b"rollback")
DRY_RUN = TransactionFrame(
    (b"savepoint attempt", RESET_HELD_OFF), b"release savepoint attempt", b"rollback to savepoint attempt"
)
"""Attempts within a transaction that is rolled back in the end, so that later attempts see what earlier ones wrote."""


class RowsUntold(Exception):  # noqa: N818 - no error: the caller writes the rows singly
    """A statement wrote some of its rows, and a trigger may have changed their keys: which ones is not told."""


class UnexplainedCount(DestinationFault):
    """The server wrote fewer rows than were sent, and nothing that the catalogue told explains it.

    A trigger was added since, or another writer came between the statements of a pair. What was written stays written.
    """

    def __init__(self, destination: str) -> None:
        super().__init__("40001", f"{destination} wrote fewer rows than were sent, without a reason that we know")


class Answer:
    """What the server said of a statement (or pair): how many of its rows it wrote, and, if it can tell, which."""

    def __init__(self, rows: StatementRows, literals: Sequence[str], results: Sequence[PGresult]) -> None:
        self.rows = rows
        self._literals = literals
        self._before: PGresult | None = None
        """How many rows of the transaction stored ones held off before this statement; None: not asked."""
        self._after: PGresult | None = None
        self._results = results
        if rows.plan.asks_what_is_held_off:
            self._before, *self._results, self._after = results

    @staticmethod
    def queries(rows: StatementRows, literals: Sequence[str]) -> list[Query]:
        """Return the queries that give the results."""
        asks = [Query(HELD_OFF)] * rows.plan.asks_what_is_held_off
        return [*asks, *(Query(each, literals, prepare=True) for each in rows.plan.statements), *asks]

    @property
    def missed(self) -> int:
        """How many rows were not written."""
        return len(self.rows.indexes) - sum(result.command_tuples or 0 for result in self._results)

    @property
    def is_complete(self) -> bool:
        """Whether all rows were written."""
        return self.missed == 0

    @cached_property
    def held_off(self) -> int:
        """How many rows stored ones held off, if that was asked."""
        return _count(self._after) - _count(self._before)

    def outcomes(self, fetch: Callable[[Query], list[Any]]) -> list[RowOutcome]:
        """Return the outcome of each row; `fetch` asks for the numbers of rows that were inserted, if that matters."""
        count = len(self.rows.indexes)
        if self.is_complete:
            return [RowOutcome.WRITTEN] * count
        suppressed = self.rows.table.schema.may_suppress and not self.held_off
        outcomes = [RowOutcome.SUPPRESSED if suppressed else RowOutcome.SUPERSEDED] * count
        if self.missed < count:
            *updates, insert = self._results
            written = [row for update in updates for row in rows_of(update)]
            if keys := rows_of(insert):
                written += fetch(Query(self.rows.plan.ordinals_of_keys, self._with_keys(keys)))
            for (ordinal,) in written:
                outcomes[ordinal - 1] = RowOutcome.WRITTEN
        return outcomes

    def _with_keys(self, keys: Sequence[tuple[str, ...]]) -> list[str]:
        """Return the parameters of `ordinals_of_keys`: the keys that were sent, and those that are stored."""
        plan = self.rows.plan
        sent = [self._literals[plan.names.index(column)] for column in plan.key_columns]
        stored = [EncodedColumn(list(column), False, False).literal() for column in zip(*keys, strict=True)]
        return [*sent, *stored]


class Transactions:
    """Runs transactions over one connection, each in the frame that is set."""

    def __init__(self, connection: PostgresConnection, settings: PostgresSettings) -> None:
        self._connection = connection
        self._settings = settings
        self._frame = NOT_OPENED
        self._told_blocks_left = 0

    def set_schemas(self, schemas: Sequence[TableSchema]) -> None:
        """Take the tables' schemas that were read now."""
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
    def destination(self) -> str:
        """The server and database, for messages."""
        return self._settings.name

    @property
    def is_dry_run(self) -> bool:
        """Whether what is written now is rolled back in the end."""
        return self._frame is DRY_RUN

    @contextmanager
    def dry_run(self) -> Iterator[None]:
        """Roll back in the end what is written within. Raises `DestinationFault` or `DeploymentFault`."""
        connection, frame = self._connection.driver, self._frame
        with self._connection.faults():
            self.run(self._trip(frame.begin))
        self._frame = DRY_RUN
        try:
            yield
        finally:
            self._frame = frame
            with suppress(psycopg.Error):
                connection.execute(frame.undo, prepare=False)

    def run(self, steps: PQGen[T]) -> T:
        """Do what `copy` or `write` does, and wait for it."""
        return self._connection.driver.wait(steps)

    def copy(self, rows: UniformRows) -> PQGen[None]:
        """Copy the rows straight into the table. Raises `psycopg.Error`, `EncodeError` or `UnexplainedCount`."""
        frame = self._frame
        written = yield from copy_in(self._connection.driver, frame.begin, rows.plan.copy, rows.copy_data(), frame.keep)
        if written != len(rows):
            raise UnexplainedCount(self._settings.name)

    def write(
        self, statements: Sequence[StatementRows], parameters: Sequence[list[str]], *, commit: bool
    ) -> PQGen[list[list[RowOutcome]]]:
        """Write all statements or none; return the outcome of each row of each.

        Raises `psycopg.Error`; `RowsUntold`, with nothing written; `UnexplainedCount`.
        """
        if commit and self._expects_all_written(statements):
            if (yield from self._write_all_or_none(statements, parameters)):
                return [[RowOutcome.WRITTEN] * len(rows.indexes) for rows in statements]
            self._told_blocks_left = TOLD_BLOCKS
        end = self._frame.keep if commit else self._frame.undo
        all_told = all(rows.are_told for rows in statements)
        parts = [Answer.queries(*each) for each in zip(statements, parameters, strict=True)]
        asks = [HELD_OFF] * _may_hold_off(statements)
        results = yield from self._trip(self._frame.begin, *parts, asks, [end] * all_told)
        answers = [
            Answer(rows, literals, own)
            for rows, literals, own in zip(statements, parameters, results[1:], strict=False)
        ]
        if not all_told:
            if not all(answer.rows.are_told or answer.is_complete for answer in answers):
                yield from self._trip([self._frame.undo])
                raise RowsUntold
            yield from self._trip([end])
        return self._outcomes(answers, sum(map(_count, results[len(parts) + 1])))

    def _expects_all_written(self, statements: Sequence[StatementRows]) -> bool:
        """Whether to try and have all rows written, so that their number tells of each."""
        if self.is_dry_run or sum(len(rows.indexes) for rows in statements) < UNTOLD_ROWS_MIN:
            return False
        if not all(rows.plan.tells_ordinals for rows in statements):
            return False
        expects = self._told_blocks_left == 0
        self._told_blocks_left -= not expects
        return expects

    def _write_all_or_none(self, statements: Sequence[StatementRows], parameters: Sequence[list[str]]) -> PQGen[bool]:
        """Whether all rows were written; if not, none is. Raises `psycopg.Error`."""
        queries = [
            Query(text, literals, prepare=True)
            for rows, literals in zip(statements, parameters, strict=True)
            for text in rows.plan.untold_statements
        ]
        [_, results] = yield from self._trip(self._frame.begin, queries)
        written = sum(result.command_tuples or 0 for result in results)
        is_complete = written == sum(len(rows.indexes) for rows in statements)
        yield from self._trip([self._frame.keep if is_complete else self._frame.undo])
        return is_complete

    def _trip(self, *parts: Sequence[Query | bytes]) -> PQGen[list[list[PGresult]]]:
        """Run all queries in one round trip; return the results of each part. Raises `psycopg.Error`."""
        queries = [Query(each) if isinstance(each, bytes) else each for part in parts for each in part]
        results = iter((yield from trip(self._connection.driver, queries, self._connection.prepared)))
        return [list(islice(results, len(part))) for part in parts]

    def _outcomes(self, answers: Sequence[Answer], held_off: int) -> list[list[RowOutcome]]:
        """Tell which rows were written, and what kept the others from it: a stored row, else a trigger."""
        unexplained = -held_off
        for answer in answers:
            unexplained += answer.held_off if answer.rows.table.schema.may_suppress else answer.missed
        if unexplained:
            raise UnexplainedCount(self._settings.name)
        return [answer.outcomes(self.fetch) for answer in answers]

    def fetch(self, *queries: Query) -> list[Any]:
        """Run queries in one round trip, under the same timeout as a block; return the rows of the last one.

        Raises `psycopg.Error`.
        """
        [_, results, _] = self.run(self._trip(self._frame.begin, queries, [self._frame.keep]))
        return rows_of(results[-1])

    def keys_are_new(self, plan: Plan, entries: Sequence[Entry]) -> list[bool]:
        """Tell of each row whether its key is new to the table: then an INSERT alone writes it, in the order read.

        It is asked before the transaction. The pair of statements still meets a row that comes in between.
        """
        keys = plan.encode([entry.row for entry in entries], plan.key_columns)
        new = {ordinal - 1 for (ordinal,) in self.fetch(Query(plan.new_keys, keys))}
        return [index in new for index in range(len(entries))]

    def leave(self) -> PQGen[None]:
        """Undo an attempt that is tried again; a lost connection is met then."""
        with suppress(psycopg.Error, DestinationFault):
            yield from self._trip([self._frame.undo])

    def undo(self, connection: psycopg.Connection[Any], error: psycopg.Error) -> Refused:
        """Undo the attempt that raised an error; return why it was refused. Raises `DestinationFault`."""
        code = self.roll_back(connection, error)
        if code in PREPARED_ELSEWHERE and self._connection.stop_preparing(code):
            raise DestinationFault(code, f"from {self._settings.name}, of a prepared statement") from None
        if fault_of(code) == "destination":
            raise DestinationFault(code, f"from {self._settings.name}") from None
        return refused_by(code, error.diag.constraint_name or error.diag.column_name or "")

    def roll_back(self, connection: psycopg.Connection[Any], error: psycopg.Error) -> str:
        """Undo the attempt that raised an error; return its code. Raises `DestinationFault` for a lost connection."""
        with suppress(psycopg.Error):
            connection.execute(self._frame.undo, prepare=False)
        if error.sqlstate is None and not isinstance(error, psycopg.DataError):
            raise DestinationFault("08006", f"lost {self._settings.name}") from None
        return error.sqlstate or ENCODE_ERROR


def _may_hold_off(statements: Sequence[StatementRows]) -> bool:
    return any(rows.plan.may_hold_off for rows in statements)


def _count(result: PGresult | None) -> int:
    """Return the number that a query gave; 0 without a query."""
    return 0 if result is None else int(rows_of(result)[0][0])
