"""Write blocks of rows into Postgres, in one transaction and one round trip as a rule; isolate what is refused.

docs/decisions/0004-writers.md says why the statements are what they are, and why they end as writing one by one does.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, cast

import msgspec
import psycopg
import structlog
from psycopg.abc import PQGen
from psycopg.pq.abc import PGconn

from lovelace_streams.columns import Columns
from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.rows.row import Row
from lovelace_streams.settings import PostgresSettings
from lovelace_streams.writers import Capabilities, Entry, Evolution, RowOutcome, RowResult, items_of, superseded
from lovelace_streams.writers.column_block import ColumnBlock
from lovelace_streams.writers.isolation import Refused
from lovelace_streams.writers.postgres.catalog import TableSchema
from lovelace_streams.writers.postgres.connection import PostgresConnection
from lovelace_streams.writers.postgres.copy import CopyHeuristic
from lovelace_streams.writers.postgres.ddl import create_table
from lovelace_streams.writers.postgres.encoded_block import EncodedBlock, SomeEntries
from lovelace_streams.writers.postgres.faults import UNIQUE_VIOLATION, fault_of, not_encodable
from lovelace_streams.writers.postgres.grouping import (
    BlockStatements,
    Tables,
    UniformRows,
    repeated_keys,
    statements_of,
)
from lovelace_streams.writers.postgres.input_check import may_be_a_values
from lovelace_streams.writers.postgres.isolation import Isolation, Item, ItemOutcome
from lovelace_streams.writers.postgres.parallel import CALL_ROWS, ParallelWriters, PartitionedBlock
from lovelace_streams.writers.postgres.sql import EncodeError
from lovelace_streams.writers.postgres.transaction import RowsUntold, Transactions, UnexplainedCount
from lovelace_streams.writers.postgres.ways import ways_of

log = structlog.get_logger(__name__)

COPY_ROWS_MIN = 8
"""Fewer rows are upserted by INSERT … ON CONFLICT: a COPY that fails costs more than one that succeeds saves."""

NOT_ENCODED = (EncodeError, DestinationFault, TypeError)
"""What ends an encoding ahead: `write` meets it again, and says whose fault it is."""

SINGLY_BLOCKS = 16
"""After a block of which a trigger or a newer stored row held some rows off, rows get a statement each for 16 blocks:
a block that has to be written twice costs more. Only where a trigger may return nothing."""


class PostgresWriter:
    """Upserts rows of its tables over one connection (or `pool`), as `lovelace_streams.writers.Writer` says.

    Row classes of several tables may be given: an item's rows then go to all of them in one transaction, the tables
    that others refer to first (else in the order given), and an item of which one row is refused leaves nothing.

    `one_by_one` writes each item in a transaction of its own: the oracle that every faster path is compared with, and
    the way out for a table whose triggers judge a row by rows that come after it.
    """

    def __init__(self, settings: PostgresSettings, *rows: type[Row], one_by_one: bool = False) -> None:
        if not rows:
            raise TypeError("PostgresWriter needs a row class: PostgresWriter(settings, Member)")
        self.rows = rows
        self.tables = Tables(rows)
        self.settings = settings
        self.deadline = settings.write_seconds + 1  # the server's own statement_timeout comes first, if it can
        self.one_by_one = one_by_one
        self.capabilities = Capabilities(block_rows=settings.block_rows)
        self.evolves = settings.evolution == "add"
        """Whether `open` adds columns; `lovelace check` turns it off."""
        self._connection = PostgresConnection(settings, self.tables)
        self._transactions = Transactions(self._connection, settings)
        self._isolation = Isolation(
            self.tables, self._connection, self._transactions, self._attempt, one_by_one=one_by_one
        )
        self._can_copy = False
        self._singly_blocks_left = 0
        self._copy_heuristic = CopyHeuristic()
        single_connection = msgspec.structs.replace(settings, pool=1, evolution="none")
        self._pool_writers = (
            [] if one_by_one else [PostgresWriter(single_connection, *rows) for _ in range(1, settings.pool)]
        )
        self._parallel: ParallelWriters | None = None

    @property
    def name(self) -> str:
        """`postgresql://host/database/table`, without credentials; `table+table` if there are several."""
        return self._connection.name

    # -- before and after writing ------------------------------------------------------------------------------------

    def open(self) -> None:
        """Connect and compare the rows with the real tables. Raises `DestinationFault` or `DeploymentFault`."""
        self.close()
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        self._set_schemas(self._connection.open(evolves=self.evolves))
        self._connection.check()
        if missing := self._connection.missing_values():
            hint = "rows with these values are refused: lovelace ddl FLOW --apply"
            log.warning("values_missing", writer=self.name, statements=missing, hint=hint)
        self.capabilities = Capabilities(block_rows=self.settings.block_rows)
        if self._pool_writers and self.tables.key_independent:
            self._open_others()

    def _set_schemas(self, schemas: list[TableSchema]) -> None:
        self.tables.set_schemas(schemas)
        self._transactions.set_schemas(schemas)
        encoding = self._connection.driver.info.encoding
        self._can_copy = all(schema.can_copy for schema in schemas) and encoding == "utf-8"

    def _read_catalog_again(self) -> None:
        """Take the tables as they are now. Raises `DestinationFault` or `DeploymentFault`."""
        log.warning("catalog_read_again", writer=self.name, hint="a trigger was added, or another writer came between")
        self._set_schemas(self._connection.inspect())
        if self._parallel is not None:
            for other in self._pool_writers:
                other._set_schemas(other._connection.inspect())  # noqa: SLF001 - of this class
            if not self.tables.key_independent:
                self._parallel.close()
                self._parallel = None

    def _open_others(self) -> None:
        """Open all other connections at the same time."""
        with ThreadPoolExecutor(len(self._pool_writers)) as threads:
            list(threads.map(lambda other: other.open(), self._pool_writers))
        self._parallel = ParallelWriters([self, *self._pool_writers], self.settings.block_rows)
        self.capabilities = Capabilities(block_rows=max(self.settings.block_rows, CALL_ROWS))

    def ddl(self) -> str:
        """Return the `CREATE TABLE` of its tables."""
        return "\n\n".join(create_table(*each.rows) for each in self.tables.declared)

    def ways(self) -> list[tuple[str, str]]:
        """Return how blocks may be written; see `SupportsWays`."""
        return ways_of(self.rows, copy_rows_min=COPY_ROWS_MIN, one_by_one=self.one_by_one)

    def notes(self) -> list[str]:
        """Return what `lovelace check` says of the open tables; see `SupportsNotes`."""
        notes = [note for each in self.tables.declared for note in each.notes()]
        told = f"{self.name}: rows with new values of an Enum or Literal are refused until `lovelace ddl FLOW --apply`"
        missing = self._connection.missing_values()
        return [*notes, f"{told}: {' '.join(missing)}"] if missing else notes

    def evolution(self, *, apply: bool = False) -> Evolution:
        """Return what the real tables lack; with `apply` add it, if all can be added.

        Raises `DeploymentFault` or `DestinationFault`.
        """
        return self._connection.evolution(apply=apply)

    def abort(self) -> None:
        """Shut the sockets under a `write` in another thread."""
        for other in self._pool_writers:
            other.abort()
        self._connection.abort()

    def close(self) -> None:
        """Close the connections."""
        parallel, self._parallel = self._parallel, None
        if parallel is not None:
            parallel.close()
        for other in self._pool_writers:
            other.close()
        self._connection.close()

    # -- several connections -----------------------------------------------------------------------------------------

    def encode(self, block: Sequence[Entry]) -> Sequence[Entry]:
        """Do the part of `write` that needs no connection; another thread may be in `write`. See `SupportsEncode`."""
        return self._partition(block) or self.encode_alone(block)

    @property
    def needs_rows(self) -> str:
        """Say so if there are several tables, whose rows are grouped one by one; see `SupportsColumns`."""
        tables = [table.table.name for table in self.tables.declared]
        return f"rows of several tables, {' and '.join(tables)}, are grouped one by one" if len(tables) > 1 else ""

    def encode_columns(self, block: ColumnBlock) -> Sequence[Entry]:
        """Do the same for a block of columns: no row is made. See `SupportsColumns`."""
        return self.encode(block)

    def encode_at_once(self, columns: Columns) -> tuple[Any, Sequence[str]] | None:
        """Encode columns that were just made, and keep their keys; see `SupportsEncodeAtOnce`.

        Not where one row may be looked at alone: with several tables, and while the block's rows are checked first.
        """
        if self.one_by_one or self.needs_rows or self._isolation.expects_refusals:
            return None
        [table] = self.tables.declared
        with suppress(*NOT_ENCODED):
            encoded = table.encode_at_once(columns, as_lines=self._can_copy and self._copy_heuristic.is_usual)
            return None if encoded is None else (encoded, [table.attributes[name] for name in table.table.key])
        return None

    def write(self, block: Sequence[Entry]) -> list[RowResult]:
        """Write a block durably; see `Writer.write`."""
        try:
            return self._write(block)
        except UnexplainedCount:
            self._read_catalog_again()
        return self._write(block)  # what was written of it is written again

    def _write(self, block: Sequence[Entry]) -> list[RowResult]:
        is_current = isinstance(block, PartitionedBlock) and block.writers is self._parallel
        partitioned = cast("PartitionedBlock", block) if is_current else self._partition(block)
        if partitioned is not None:
            # One connection saw only its own rows refused, and blames the deployment. Written over one connection, the
            # rows of the others may show that single records are at fault.
            with suppress(DeploymentFault):
                results = partitioned.writers.write(partitioned)
                self._isolation.probe.remember_written_row(block, results)
                return results
        return self.write_alone(block)

    def _partition(self, block: Sequence[Entry]) -> PartitionedBlock | None:
        return None if self._parallel is None else self._parallel.partition(block, self.tables.declared[0])

    # -- one connection: COPY, one statement, several statements, isolation ------------------------------------------

    @property
    def pgconn(self) -> PGconn:
        """The connection's own, whose socket is waited for. Raises `DestinationFault` if there is none."""
        return self._connection.driver.pgconn

    def encode_alone(self, block: Sequence[Entry]) -> EncodedBlock:
        """Encode a block for `write_alone`."""
        encoded = EncodedBlock(block)
        if not self.one_by_one:
            with suppress(*NOT_ENCODED):
                encoded.groups = self.tables.uniform_rows(block)
                self._encode_ahead(encoded)
        return encoded

    def encode_whole(self, block: Sequence[Entry]) -> EncodedBlock:
        """Encode a block of which each writer gets some rows, by `encode_some`."""
        encoded = EncodedBlock(block)
        with suppress(*NOT_ENCODED):
            encoded.groups = self.tables.uniform_rows(block)
            for rows in encoded.groups:
                _ = rows.lines if self._copy_heuristic.is_likely else rows.encoded
        return encoded

    def encode_some(self, block: EncodedBlock, rows: Sequence[int]) -> EncodedBlock:
        """Encode some rows of a block, in the order of their keys, for `first_attempts` or `write_alone`."""
        if len(block.groups) != 1:
            return self.encode_alone([block[row] for row in rows])
        encoded = EncodedBlock(SomeEntries(block.entries, rows))
        with suppress(*NOT_ENCODED):
            encoded.groups = [block.groups[0].some(rows, by_key=True)]
            self._encode_ahead(encoded)
        return encoded

    def _encode_ahead(self, block: EncodedBlock) -> None:
        """Encode what is sent. Raises `EncodeError` or `TypeError`."""
        if self._copy_heuristic.is_likely and self._may_copy(block.groups):
            _ = block.groups[0].lines
        elif block.groups and not self._isolation.expects_refusals:  # else some of the rows are left out
            block.statements = statements_of(block.groups)

    def first_attempts(self, blocks: Sequence[EncodedBlock]) -> PQGen[list[list[RowResult]]]:
        """Write blocks in turn, up to the first that is not taken as it is; return the results of those written.

        Nothing of that one is written: `write_alone` says why.
        """
        written: list[list[RowResult]] = []
        for block in blocks:
            if not block.groups or block.groups is not self._current_groups(block) or self._isolation.expects_refusals:
                break
            self._isolation.probe.note_tried(block)
            try:
                outcomes = yield from self._copy_or_write(block.groups, block.statements, commit=True)
            except (psycopg.Error, EncodeError, TypeError):
                yield from self._transactions.leave()
                break
            written.append(self._written(block, block.groups, outcomes))
        return written

    def write_alone(self, block: Sequence[Entry]) -> list[RowResult]:
        """Write a block over one connection, by the first way that takes it.

        Uniform rows are copied, or else written in one statement. Other rows take several statements in one
        transaction. If a way is refused, isolation finds the refused items and writes all others.
        """
        self._isolation.probe.note_tried(block)
        try:
            return self._write_by_ways(block)
        except DestinationFault as fault:
            if not may_be_a_values(fault.code) or fault.unproven:
                raise
            return self._without_refused_values(block, fault, self.write_alone)

    def _without_refused_values(
        self, block: Sequence[Entry], fault: DestinationFault, write: Callable[[Sequence[Entry]], list[RowResult]]
    ) -> list[RowResult]:
        """Write the items without a value that its type refuses with an internal error; raise the fault if none has."""
        items = items_of(block)
        refused = self._isolation.refused_values(items)
        if not refused:
            raise fault
        left = [entry for index, item in enumerate(items) if index not in refused for entry in item]
        written = iter(write(left) if left else [])
        return [refused[index] if index in refused else next(written) for index, item in enumerate(items) for _ in item]

    def _write_by_ways(self, block: Sequence[Entry]) -> list[RowResult]:
        block = block if isinstance(block, EncodedBlock) else self.encode_alone(block)
        groups = self._current_groups(block)
        if not groups:
            return self._isolate(block)
        refusals = self._isolation.violations.precheck(groups)
        if not refusals:
            return self._write_uniform(block, groups, block.statements if groups is block.groups else None)
        left = [row for row in range(len(block)) if row not in refusals]
        some = [groups[0].some(left)] if left else []
        results = iter(self._write_uniform(SomeEntries(block.entries, left), some) if left else [])
        return [refusals[row] if row in refusals else next(results) for row in range(len(block))]

    def _current_groups(self, block: EncodedBlock) -> Sequence[UniformRows]:
        if all(rows.is_current for rows in block.groups):
            return block.groups
        return self._uniform_rows(block.entries)

    def _write_uniform(
        self, block: Sequence[Entry], groups: Sequence[UniformRows], statements: BlockStatements | None = None
    ) -> list[RowResult]:
        outcomes = self._copy_or_upsert(groups, statements)
        if isinstance(outcomes, Refused):
            return self._isolate(block, outcomes)
        return self._written(block, groups, outcomes)

    def _written(
        self, block: Sequence[Entry], groups: Sequence[UniformRows], outcomes: Sequence[RowOutcome]
    ) -> list[RowResult]:
        """Return the results of rows that were written, or held off."""
        results = cast("list[RowResult]", outcomes)
        self._isolation.probe.remember_written_row(block, results)
        keys = repeated_keys(groups)
        return results if keys is None else superseded(results, keys)

    def _isolate(self, block: Sequence[Entry], refused: Refused | None = None) -> list[RowResult]:
        """Write a block item by item, as far as it takes.

        `refused` is the outcome of an attempt to write it whole, if there was one.
        """
        items = items_of(block)
        outcomes = self._isolation.write(items, refused)
        self._isolation.probe.remember_written(items, outcomes)
        return self._results(items, outcomes)

    def _results(self, items: Sequence[Item], outcomes: Sequence[ItemOutcome]) -> list[RowResult]:
        """Return one result a row: all rows of a refused item are refused."""
        results: list[RowResult] = []
        for item, outcome in zip(items, outcomes, strict=True):
            results += [outcome.refusal] * len(item) if isinstance(outcome, Refused) else outcome
        return superseded(results, self.tables.identities([entry for item in items for entry in item]))

    # -- one attempt: all or nothing ---------------------------------------------------------------------------------

    def _attempt(self, items: Sequence[Item], *, commit: bool = True) -> list[list[RowOutcome]] | Refused:
        """Write all items in one transaction, or none; without `commit` roll it back."""
        entries = [entry for item in items for entry in item]
        groups = self._uniform_rows(entries)
        if groups:
            outcomes = self._copy_or_upsert(groups, commit=commit)
        else:
            outcomes = self._write_in_several_statements(items, entries, commit=commit)
        if isinstance(outcomes, Refused):
            return outcomes
        if len(items) == len(entries):
            return [[outcome] for outcome in outcomes]
        of_rows = iter(outcomes)
        return [[next(of_rows) for _ in item] for item in items]

    def _uniform_rows(self, entries: Sequence[Entry]) -> list[UniformRows]:
        try:
            return self.tables.uniform_rows(entries)
        except TypeError:  # a key of the wrong type
            return []

    def _copy_or_upsert(
        self, groups: Sequence[UniformRows], statements: BlockStatements | None = None, *, commit: bool = True
    ) -> list[RowOutcome] | Refused:
        """Write all rows by COPY, or else by their statements, in one transaction."""
        connection = self._connection.driver
        try:
            return self._transactions.run(self._copy_or_write(groups, statements, commit=commit))
        except EncodeError as error:
            return Refused(not_encodable(error.column, error.code))
        except TypeError:  # a key of the wrong type can't be compared with the others
            return Refused(not_encodable(groups[0].plan.key_columns[0]))
        except psycopg.Error as error:
            return self._transactions.undo(connection, error)

    def _copy_or_write(
        self, groups: Sequence[UniformRows], statements: BlockStatements | None, *, commit: bool
    ) -> PQGen[list[RowOutcome]]:
        """Do so. Raises `psycopg.Error`, `EncodeError` or `TypeError`, and then leaves the transaction open."""
        if commit and (yield from self._try_copy(groups)):  # COPY commits by itself
            return [RowOutcome.WRITTEN] * len(groups[0])
        return (yield from self._write_statements(statements or statements_of(groups), commit=commit))

    def _may_copy(self, groups: Sequence[UniformRows]) -> bool:
        """Whether COPY could write these rows, if their keys are new. Raises `TypeError`."""
        if len(groups) != 1 or len(groups[0]) < COPY_ROWS_MIN or not self._can_copy:
            return False
        [rows] = groups
        return rows.plan.is_one_statement and not rows.plan.only_new and rows.has_distinct_keys

    def _try_copy(self, groups: Sequence[UniformRows]) -> PQGen[bool]:
        """Whether COPY took the rows. If not, nothing was written, and nothing is said of them."""
        if self._transactions.is_dry_run:
            return False
        if not self._may_copy(groups) or not self._copy_heuristic.should_try():
            self._copy_heuristic.is_usual = False
            return False
        try:
            yield from self._transactions.copy(groups[0])
        except psycopg.Error as error:
            yield from self._transactions.leave()
            if fault_of(error.sqlstate or "") == "destination" or error.sqlstate is None:
                raise
            if error.sqlstate == UNIQUE_VIOLATION:
                self._copy_heuristic.failed()
            return False
        self._copy_heuristic.succeeded()
        return True

    def _write_statements(self, statements: BlockStatements, *, commit: bool) -> PQGen[list[RowOutcome]]:
        """Write all rows in one transaction; return their outcomes in the order of the block. Raises as `write`."""
        outcomes = yield from self._transactions.write(statements.rows, statements.parameters, commit=commit)
        results = [RowOutcome.WRITTEN] * sum(map(len, outcomes))
        for rows, of_rows in zip(statements.rows, outcomes, strict=True):
            if RowOutcome.WRITTEN not in of_rows or len(set(of_rows)) > 1:
                for index, outcome in zip(rows.indexes, of_rows, strict=True):
                    results[index] = outcome
        return results

    def _write_in_several_statements(
        self, items: Sequence[Item], entries: Sequence[Entry], *, commit: bool
    ) -> list[RowOutcome] | Refused:
        """Write all rows in one transaction, by as many statements as they take."""
        connection = self._connection.driver
        try:
            try:
                return self._run_statements(items, entries, commit=commit)
            except RowsUntold:
                self._singly_blocks_left = SINGLY_BLOCKS
                return self._run_statements(items, entries, commit=commit)
        except EncodeError as error:
            return Refused(not_encodable(error.column, error.code))
        except psycopg.Error as error:
            return self._transactions.undo(connection, error)

    def _run_statements(self, items: Sequence[Item], entries: Sequence[Entry], *, commit: bool) -> list[RowOutcome]:
        return self._transactions.run(self._write_statements(self._statements(items, entries), commit=commit))

    def _statements(self, items: Sequence[Item], entries: Sequence[Entry]) -> BlockStatements:
        """Return the statements that write all rows. Raises `EncodeError` or `psycopg.Error`."""
        singly = self._singly_blocks_left > 0
        self._singly_blocks_left -= singly
        rows = self.tables.statement_rows(items, self._transactions.keys_are_new, singly=singly)
        return BlockStatements(rows, [each.plan.encode([entries[i].row for i in each.indexes]) for each in rows])

    # -- nothing stays written ---------------------------------------------------------------------------------------

    def dry_run(self, block: Sequence[Entry]) -> list[RowResult]:
        """Return what `write` would, and roll it back; see `Writer.dry_run`."""
        with self._transactions.dry_run():
            return self._try(block)

    def _try(self, block: Sequence[Entry]) -> list[RowResult]:
        items = items_of(block)
        try:
            return self._results(items, self._isolation.write(items))
        except DestinationFault as fault:
            if not may_be_a_values(fault.code) or fault.unproven:
                raise
            return self._without_refused_values(block, fault, self._try)

    def probe(self, others: Sequence[Entry] = ()) -> bool | None:
        """Whether rows like those that were tried last could be written now; see `Writer.probe`."""
        try:
            return self._isolation.probe.accepts(items_of(others))
        except DestinationFault:
            return False
