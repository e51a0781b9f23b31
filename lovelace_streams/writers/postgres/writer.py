"""Postgres: blocks of rows upserted in one transaction and one round trip; what is refused is isolated.

Why the statements are what they are, and why they end as writing one by one does: docs/decisions/0004-writers.md.
"""

import os
import re
import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from itertools import compress
from typing import Any, Literal, cast

import msgspec
import psycopg
import psycopg.conninfo
import structlog
from psycopg import sql

from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.records import Reason
from lovelace_streams.rows.row import Row
from lovelace_streams.settings import PostgresSettings
from lovelace_streams.writers import (
    Capabilities,
    Entry,
    Evolution,
    Refusal,
    RowOutcome,
    RowResult,
    items_of,
    superseded,
)
from lovelace_streams.writers.isolation import Refused, isolate_refused
from lovelace_streams.writers.postgres import subtransactions as postgres_sweep
from lovelace_streams.writers.postgres.catalog import Order, Shape, inspect
from lovelace_streams.writers.postgres.copy import Bet, copy_in
from lovelace_streams.writers.postgres.ddl import create_table
from lovelace_streams.writers.postgres.evolution import evolution_of, evolve
from lovelace_streams.writers.postgres.grouping import Alike, OneTable, Segment, Staged, Tables
from lovelace_streams.writers.postgres.parallel import CALL, DEALT, Dealt, Lanes, Part, places_of
from lovelace_streams.writers.postgres.sql import Plan, Unfit

log = structlog.get_logger(__name__)

Fault = Literal["record", "destination", "deployment", "unlisted"]

FAULTS: dict[str, Fault] = {
    "22": "record",  # data exception
    "23": "record",  # integrity constraint
    "38": "record",  # external routine
    "39": "record",  # external routine invocation, trigger protocol
    "44": "record",  # WITH CHECK OPTION
    "54": "record",  # too long for an index, too many columns
    "P0001": "record",  # RAISE EXCEPTION
    "08": "destination",  # connection
    "40": "destination",  # serialization failure, deadlock
    "53": "destination",  # disk full, out of memory, too many connections
    "55P03": "destination",  # lock not available
    "57": "destination",  # cancelled, shutdown, starting up
    "58": "destination",  # system, I/O
    "25006": "destination",  # read-only: a standby, or a disk that filled up
    "XX": "destination",  # internal, corrupted
    "0A": "deployment",  # feature not supported
    "28": "deployment",  # authorization
    "3D": "deployment",  # no such database
    "3F": "deployment",  # no such schema
    "42": "deployment",  # no such table or column, no privilege
}
"""SQLSTATE, or its class, → whose fault (law 5). The longer entry wins."""

REASONS = {
    "23502": Reason.NOT_NULL,
    "23514": Reason.CHECK,
    "23505": Reason.UNIQUE,
    "23P01": Reason.UNIQUE,
    "23503": Reason.FOREIGN_KEY,
    "22003": Reason.OUT_OF_RANGE,
    "22008": Reason.OUT_OF_RANGE,
}
AGAIN = frozenset({"23503", "23505", "23P01"})
"""What other rows decide, so that it is believed only after one more try."""
ASKABLE = frozenset({"23502", "23514", "23503"})
"""Rules that the catalogue tells, so that the rows which break them are found as a set."""
WAY_OUT = "compare with `lovelace ddl FLOW`"
UNFIT = "22000"
"""data_exception: a value that could not even be sent."""


REFUSED_AT_START = {
    "28P01": re.compile("FATAL:  password authentication failed"),
    "28000": re.compile('FATAL:  (role ".*" does not exist|no pg_hba.conf entry|role ".*" is not permitted to log in)'),
    "3D000": re.compile('FATAL:  database ".*" does not exist'),
    "42501": re.compile("FATAL:  permission denied for database"),
}
"""The one place where texts decide: libpq gives no SQLSTATE before a connection stands. A server that speaks another
language is taken for one that is away: it is waited for, and nothing is dead-lettered."""


def fault_of(sqlstate: str) -> Fault:
    """Whose fault a code says it is.

    >>> fault_of("23505"), fault_of("25006"), fault_of("25001")
    ('record', 'destination', 'unlisted')
    """
    return FAULTS.get(sqlstate) or FAULTS.get(sqlstate[:2], "unlisted")


def reason_of(sqlstate: str) -> Reason:
    """What a dead letter says for a code.

    >>> reason_of("22P02"), reason_of("42501")
    (<Reason.BAD_VALUE: 'bad_value'>, <Reason.REFUSED: 'refused'>)
    """
    return REASONS.get(sqlstate) or (Reason.BAD_VALUE if sqlstate.startswith("22") else Reason.REFUSED)


RECORDS = tuple(code for code, fault in FAULTS.items() if fault in ("record", "deployment") and code != "0A")
"""What may be said of one row while its neighbours are written; feature_not_supported is said of how we ask."""
NOT_SWEPT = frozenset({"42501", "42704", "0A000"})
"""PL/pgSQL is not there, or not for us."""
COPY_ROWS = 8
"""Fewer rows than this are merged: a bet that is lost costs more than it can win."""
SIFTED_BLOCKS = 16
"""After a block with rule violations, the next 16 blocks are checked against the rules before they are written."""
SWEPT_ROWS = 4096
"""For so many rows after one that only sweeping found to be refused, blocks are swept without being tried whole."""


class Encoded(list[Entry]):
    """A block with what was worked out of it ahead."""

    __slots__ = ("alike",)

    def __init__(self, entries: Sequence[Entry]) -> None:
        super().__init__(entries)
        self.alike: Alike | None = None


class TransactionFrame(msgspec.Struct, frozen=True):
    """How an attempt begins, and how it ends."""

    begin: tuple[bytes, ...]
    keep: bytes
    undo: bytes


DRY_RUN = TransactionFrame((b"savepoint attempt",), b"release savepoint attempt", b"rollback to savepoint attempt")
"""Within a transaction that is rolled back in the end, so that later attempts see what earlier ones wrote."""


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
        one = msgspec.structs.replace(settings, pool=1, evolution="none")
        self._others = [] if one_by_one else [PostgresWriter(one, *rows) for _ in range(1, settings.pool)]
        self._lanes: Lanes | None = None
        self.capabilities = Capabilities(block_rows=settings.block_rows)
        self.evolves = settings.evolution == "add"
        """Whether `open` adds columns; a check turns it off."""
        self._connection: psycopg.Connection[Any] | None = None
        self._frame = TransactionFrame((), b"commit", b"rollback")
        self._suppresses = False
        self._copies = False
        self._sweeps = True
        self._refused_lately: Refused | None = None
        """What sweeping found in one of the last blocks: the next ones are swept at once."""
        self._sweep_left = 0
        self._bet = Bet()
        self._sift = 0
        self._last: dict[OneTable, Sequence[Entry]] = {}
        self._tried: set[OneTable] = set(self.tables.declared)

    @property
    def name(self) -> str:
        """`postgresql://host/database/table`, without credentials; `table+table` where there are several."""
        return f"{self.settings.name}/{'+'.join(each.table.name for each in self.tables.declared)}"

    # -- connection --------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Connect and compare the rows with the real table. Raises `DestinationFault` or `DeploymentFault`."""
        self.close()
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        connection = self._connect()
        self._connection = connection
        with self._faults():
            if self.evolves:
                self._evolve(connection)
            found = [inspect(connection, each.table, each.rows, WAY_OUT) for each in self.tables.declared]
            self.tables.found(found)
            self._suppresses = any(shape.suppresses for shape in found)
            self._frame = TransactionFrame(self._preamble(found), b"commit", b"rollback")
            self._copies = all(shape.copies for shape in found) and connection.info.encoding == "utf-8"
            for each in self.tables.declared:
                self._explain(connection, each)
            self._check_durable(connection)
        self.capabilities = Capabilities(block_rows=self.settings.block_rows)
        if self._others and self.tables.apart:
            self._open_lanes()

    def _open_lanes(self) -> None:
        """Connect as often as was asked for, all at once."""
        with ThreadPoolExecutor(len(self._others)) as threads:
            list(threads.map(lambda other: other.open(), self._others))
        self._lanes = Lanes([each.write_alone for each in (self, *self._others)])
        self.capabilities = Capabilities(block_rows=max(self.settings.block_rows, CALL))

    def _evolve(self, connection: psycopg.Connection[Any]) -> None:
        """Add the columns that the tables lack; whatever else differs is refused by the inspection that follows."""
        rows = [each.rows for each in self.tables.declared]
        if evolution_of(connection, rows).addable:
            for statement in evolve(connection, rows, create=False).statements:
                log.info("table evolved", writer=self.name, statement=statement)

    def ddl(self) -> str:
        """The `CREATE TABLE` of its tables."""
        return "\n\n".join(create_table(*each.rows) for each in self.tables.declared)

    def evolution(self, *, apply: bool = False) -> Evolution:
        """What the real tables lack; with `apply` it is added, unless something can't be.

        Raises `DeploymentFault` or `DestinationFault`.
        """
        rows = [each.rows for each in self.tables.declared]
        connection = self._connect()
        with self._faults(), connection:
            return evolve(connection, rows) if apply else evolution_of(connection, rows)

    def _connect(self) -> psycopg.Connection[Any]:
        try:
            return psycopg.connect(
                self.settings.dsn,
                autocommit=True,
                prepare_threshold=0 if self.settings.prepare else None,
                **_defaults(self.settings.dsn),
            )
        except psycopg.OperationalError as error:
            raise self._unconnected(error) from None
        except psycopg.Error:
            raise DeploymentFault(f"POSTGRES_DSN is not a connection string ({self.settings.name})") from None

    def _unconnected(self, error: psycopg.OperationalError) -> DestinationFault | DeploymentFault:
        if error.pgconn is not None and error.pgconn.needs_password:
            message = f"{self.settings.name} wants a password, and POSTGRES_DSN has none (SQLSTATE 28P01)"
            return DeploymentFault(message, "28P01")
        for code, text in REFUSED_AT_START.items():
            if text.search(str(error)):
                message = f"{self.settings.name} refuses the credentials or database of POSTGRES_DSN (SQLSTATE {code})"
                return DeploymentFault(message, code)
        return DestinationFault("08001", f"no connection to {self.settings.name}")

    def _explain(self, connection: psycopg.Connection[Any], table: OneTable) -> None:
        """Let the server plan the usual statement: privileges, arbiter and casts are found wrong now, not later."""
        plan = table.plan(table.rows[0])
        for statement in plan.statements:
            connection.execute(b"explain " + statement, ["{}"] * len(plan.columns), prepare=False)

    def _check_durable(self, connection: psycopg.Connection[Any]) -> None:
        durable = connection.execute("show synchronous_commit", prepare=False).fetchone()
        if durable is not None and durable[0] == "off":
            log.warning("synchronous_commit_off", writer=self.name, hint="a crash of the server may lose settled rows")

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Everything that psycopg raises outside of a block, as a fault; its texts quote rows: not shown (law 10)."""
        try:
            yield
        except psycopg.Error as error:
            code = error.sqlstate or "08006"
            if fault_of(code) == "destination":
                raise DestinationFault(code, f"from {self.settings.name}") from None
            raise self._deployment(code) from None

    def _deployment(self, code: str) -> DeploymentFault:
        sides = ", ".join(f"{each.rows[0].__name__} ↔ table {each.table.name}" for each in self.tables.declared)
        return DeploymentFault(f"{sides} at {self.settings.name}: refused with SQLSTATE {code}; {WAY_OUT}", code)

    def abort(self) -> None:
        """Shut the sockets under a `write` in another thread."""
        for other in self._others:
            other.abort()
        connection = self._connection
        if connection is None:
            return
        with suppress(psycopg.Error, OSError):
            duplicate = socket.socket(fileno=os.dup(connection.pgconn.socket))
            with duplicate:
                duplicate.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the connections."""
        lanes, self._lanes = self._lanes, None
        if lanes is not None:
            lanes.close()
        for other in self._others:
            other.close()
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()

    # -- writing -----------------------------------------------------------------------------------------------------

    def encode(self, block: Sequence[Entry]) -> Sequence[Entry]:
        """Do ahead what needs no connection; another thread may be in `write` meanwhile. See `Encodes`."""
        return self._dealt(block) or self.encode_alone(block)

    def encode_alone(self, block: Sequence[Entry]) -> Encoded:
        """The same, for `write_alone`."""
        encoded = Encoded(block)
        if not self.one_by_one:
            with suppress(Unfit, DestinationFault, TypeError):  # `write` meets it again, and says whose fault it is
                encoded.alike = self.tables.alike(block)
                if encoded.alike is not None and self._bet.likely:
                    _ = encoded.alike.lines
        return encoded

    def _dealt(self, block: Sequence[Entry]) -> Dealt | None:
        """The rows by the connections that write them; None where one connection writes all."""
        if self._lanes is None or len(block) < DEALT:
            return None
        if (keys := self.tables.declared[0].keys_apart(block)) is None:
            return None
        writers = [self, *self._others]
        dealt = places_of(keys, len(writers), max(self.settings.block_rows, DEALT))
        return Dealt(
            block,
            keys,
            self._lanes,
            [
                [Part(places, writer.encode_alone([block[place] for place in places])) for places in lane]
                for writer, lane in zip(writers, dealt, strict=True)
            ],
        )

    def write(self, block: Sequence[Entry]) -> list[RowResult]:
        """Write a block durably; see `Writer.write`."""
        dealt = block if isinstance(block, Dealt) and block.lanes is self._lanes else self._dealt(block)
        if dealt is not None:
            with suppress(DeploymentFault):  # said by a lane, of its own rows: with all of them it may be the record's
                results = dealt.lanes.write(dealt)
                self._keep_one(block, results)
                return results
        return self.write_alone(block)

    def write_alone(self, block: Sequence[Entry]) -> list[RowResult]:
        """The same, over one connection whatever the settings say."""
        self._tried = self.tables.touched(block) or self._tried
        if self.one_by_one:
            return self._isolated(block)
        rows = block.alike if isinstance(block, Encoded) else self._alike(block)
        if rows is not None and not rows.is_current:
            rows = self._alike(block)
        if rows is None:
            return self._isolated(block)
        if not (named := self._foreseen(block, rows)):
            return self._whole(block, rows)
        kept = [place not in named for place in range(len(block))]
        left = list(compress(block, kept))
        results = iter(self._whole(left, rows.only(kept)) if left else [])
        return [next(results) if keep else named[place] for place, keep in enumerate(kept)]

    def _whole(self, block: Sequence[Entry], rows: Alike) -> list[RowResult]:
        """The block by one statement; where that is refused, what is refused is isolated."""
        ends = self._at_once(rows)
        if ends is None or isinstance(ends, Refused):
            return self._isolated(block, ends)
        results = cast("list[RowResult]", ends)
        self._keep_one(block, results)
        return results

    def _isolated(self, block: Sequence[Entry], first: Refused | None = None) -> list[RowResult]:
        """The block item by item, as far as it takes; `first` is what trying it whole came to."""
        items = items_of(block)
        outcomes = self._written(items, first)
        for item, outcome in zip(items, outcomes, strict=True):
            if not isinstance(outcome, Refused) and RowOutcome.WRITTEN in outcome:
                self._keep(item)
                if self._last.keys() >= self._tried:
                    break  # one of each table will do
        return self._results(items, outcomes)

    def _keep_one(self, block: Sequence[Entry], results: Sequence[RowResult]) -> None:
        if RowOutcome.WRITTEN in results:
            self._keep([block[results.index(RowOutcome.WRITTEN)]])

    def _keep(self, item: Sequence[Entry]) -> None:
        """Remember an item that was written: a probe tries it again."""
        self._last |= dict.fromkeys(self.tables.touched(item), item)

    def dry_run(self, block: Sequence[Entry]) -> list[RowResult]:
        """What `write` would answer, rolled back; see `Writer.dry_run`."""
        connection, frame = self._connected(), self._frame
        with self._faults():
            self._in_one_trip(frame.begin)
        self._frame = DRY_RUN
        try:
            items = items_of(block)
            return self._results(items, self._written(items))
        finally:
            self._frame = frame
            with suppress(psycopg.Error):
                connection.execute(frame.undo, prepare=False)

    def _written(
        self, items: Sequence[Sequence[Entry]], first: Refused | None = None
    ) -> list[list[RowOutcome] | Refused]:
        """What became of the items, in the frame that is set. Raises `DestinationFault` or `DeploymentFault`.

        `first` is what trying all of them came to, where that was done.
        """
        if self.one_by_one:
            outcomes = [isolate_refused([item], self._attempt)[0] for item in items]
        else:
            first = first or self._likely(len(items))
            outcomes = isolate_refused(
                items,
                self._attempt,
                self._sieve,
                write_singly=self._sweep,
                refused=first,
                single_items_max=postgres_sweep.ROWS,
            )
        self._judge(items, outcomes)
        return outcomes

    def _results(
        self, items: Sequence[Sequence[Entry]], outcomes: Sequence[list[RowOutcome] | Refused]
    ) -> list[RowResult]:
        """One result a row: a refused item's rows are all refused."""
        results: list[RowResult] = []
        for item, outcome in zip(items, outcomes, strict=True):
            results += [outcome.refusal] * len(item) if isinstance(outcome, Refused) else outcome
        return superseded(results, self.tables.identities([entry for item in items for entry in item]))

    def probe(self, others: Sequence[Entry] = ()) -> bool | None:
        """Whether rows like those tried last could be written now; see `Writer.probe`.

        Asked of each table by itself, with the row that was last written to it, or one of the first others: another
        table that takes rows says nothing of this one.
        """
        try:
            return self._probe(self._tried, items_of(others))
        except DestinationFault:
            return False

    def _probe(self, tables: Iterable[OneTable], items: Sequence[Sequence[Entry]] = ()) -> bool | None:
        for table in tables:
            likely = [item for item in items if table in self.tables.touched(item)][:2]
            candidates = [*([self._last[table]] if table in self._last else []), *likely]
            if not candidates:
                return None
            if not any(map(self._accepts, candidates)):
                return False
        return True

    def _accepts(self, item: Sequence[Entry]) -> bool:
        try:
            return not isinstance(self._attempt([item], commit=False), Refused)
        except DeploymentFault:
            return False

    def _judge(self, items: Sequence[Sequence[Entry]], outcomes: Sequence[list[RowOutcome] | Refused]) -> None:
        """A code that may be the deployment's is the record's where a neighbour (or a probe) was accepted.

        A neighbour is a row of the same table. Raises `DeploymentFault`, or the `DestinationFault` that a probe met.
        """
        suspects = [
            (item, outcome.refusal.code)
            for item, outcome in zip(items, outcomes, strict=True)
            if isinstance(outcome, Refused) and outcome.suspect and fault_of(outcome.refusal.code) == "deployment"
        ]
        if not suspects:
            return
        accepted = [item for item, outcome in zip(items, outcomes, strict=True) if not isinstance(outcome, Refused)]
        sound = {table for item in accepted for table in self.tables.touched(item)}
        for item, code in suspects:
            doubtful = self.tables.touched(item) - sound
            if doubtful and not self._probe(doubtful):
                raise self._deployment(code)
            sound |= doubtful

    def _attempt(self, items: Sequence[Sequence[Entry]], *, commit: bool = True) -> list[list[RowOutcome]] | Refused:
        """All items in one transaction, or none."""
        entries = [entry for item in items for entry in item]
        results = self._at_once(self._alike(entries), commit=commit)
        if results is None:
            results = self._in_segments(items, entries, commit=commit)
        if isinstance(results, Refused):
            return results
        if len(items) == len(entries):
            return [[end] for end in results]
        rows = iter(results)
        return [[next(rows) for _ in item] for item in items]

    def _alike(self, entries: Sequence[Entry]) -> Alike | None:
        try:
            return self.tables.alike(entries)
        except TypeError:  # a key of the wrong kind
            return None

    def _at_once(self, rows: Alike | None, *, commit: bool = True) -> list[RowOutcome] | Refused | None:
        """All rows by one statement, in the order given; None where it takes more than one, or they aren't alike."""
        if rows is None:
            return None
        connection = self._connected()
        try:
            return self._in_one_statement(connection, rows, commit=commit)
        except Unfit as unfit:
            return Refused(Refusal(Reason.BAD_VALUE, UNFIT, str(unfit)))
        except TypeError:  # a key of the wrong kind can't be compared with the others
            return Refused(Refusal(Reason.BAD_VALUE, UNFIT, rows.plan.key_columns[0]))
        except psycopg.Error as error:
            return self._refused(connection, error)

    def _in_one_statement(
        self, connection: psycopg.Connection[Any], rows: Alike, *, commit: bool
    ) -> list[RowOutcome] | None:
        if commit and self._copied(connection, rows):
            return [RowOutcome.WRITTEN] * len(rows)
        if (found := rows.segment()) is None:
            return None
        segment, literals = found
        [ends] = self._transact(connection, [segment], [literals], commit=commit)
        results = [RowOutcome.WRITTEN] * len(rows)
        if ends != results:
            for place, end in zip(segment.places, ends, strict=True):
                results[place] = end
        return results

    def _copied(self, connection: psycopg.Connection[Any], rows: Alike) -> bool:
        """Whether straight COPY took the rows; where it did not, nothing was written and nothing is said of them."""
        if len(rows) < COPY_ROWS or not self._copies or self._frame is DRY_RUN or not self._bet.on():
            return False
        try:
            copy_in(connection, self._frame.begin, rows.plan.copy, rows.text(), self._frame.keep)
        except psycopg.Error as error:
            refused = self._refused(connection, error)
            if refused.refusal.code == "23505":
                self._bet.lost()
            return False
        self._bet.won()
        return True

    def _in_segments(
        self, items: Sequence[Sequence[Entry]], entries: Sequence[Entry], *, commit: bool
    ) -> list[RowOutcome] | Refused:
        """All rows in one transaction, by as many statements as it takes."""
        connection = self._connected()
        try:
            segments = self.tables.segments(items, self._fresh)
            literals = [segment.plan.encode([entries[p].row for p in segment.places]) for segment in segments]
            ends = self._transact(connection, segments, literals, commit=commit)
        except Unfit as unfit:
            return Refused(Refusal(Reason.BAD_VALUE, UNFIT, str(unfit)))
        except psycopg.Error as error:
            return self._refused(connection, error)
        results = [RowOutcome.WRITTEN] * len(entries)
        for segment, part in zip(segments, ends, strict=True):
            for place, end in zip(segment.places, part, strict=True):
                results[place] = end
        return results

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            raise DestinationFault("08003", f"not connected to {self.settings.name}")
        return self._connection

    def _refused(self, connection: psycopg.Connection[Any], error: psycopg.Error) -> Refused:
        """What the error says of the attempt. Raises `DestinationFault`."""
        with suppress(psycopg.Error):
            connection.execute(self._frame.undo, prepare=False)
        code = error.sqlstate
        if code is None:
            if not isinstance(error, psycopg.DataError):
                raise DestinationFault("08006", f"lost {self.settings.name}") from None
            return Refused(Refusal(Reason.REFUSED, UNFIT))
        fault = fault_of(code)
        if fault == "destination":
            raise DestinationFault(code, f"from {self.settings.name}") from None
        return _refused_for(code, error.diag.constraint_name or error.diag.column_name or "")

    # -- one transaction ---------------------------------------------------------------------------------------------

    def _transact(
        self,
        connection: psycopg.Connection[Any],
        segments: Sequence[Segment],
        literals: Sequence[list[str]],
        *,
        commit: bool,
    ) -> list[list[RowOutcome]]:
        cursors: list[list[psycopg.Cursor[Any]]] = []
        ends: list[list[RowOutcome]] = []
        with nullcontext() if self._suppresses else _one_trip(connection):
            for statement in self._frame.begin:
                connection.execute(statement, prepare=False)
            for segment, parameters in zip(segments, literals, strict=True):
                cursors.append(
                    [
                        connection.execute(statement, parameters, prepare=self.settings.prepare)
                        for statement in segment.plan.statements
                    ]
                )
                if self._suppresses:  # asked at once: a later statement may store a newer version
                    ends.append(self._ends(connection, segment, parameters, cursors[-1]))
            connection.execute(self._frame.keep if commit else self._frame.undo, prepare=False)
        return ends or [
            self._ends(connection, segment, parameters, made)
            for segment, parameters, made in zip(segments, literals, cursors, strict=True)
        ]

    def _preamble(self, shapes: Sequence[Shape]) -> tuple[bytes, ...]:
        """What a transaction begins with: nothing is left behind in a session that a pooler may hand to others."""
        timeout = sql.Literal(int(self.settings.write_seconds * 1000))
        preamble = (
            b"begin isolation level read committed",
            sql.SQL("set local statement_timeout = {}").format(timeout).as_bytes(),
        )
        return (*preamble, b"set constraints all immediate") if any(s.deferrable for s in shapes) else preamble

    def _ask(self, query: bytes, parameters: list[str], *, prepare: bool = False) -> list[Any]:
        """The rows of a query, under the same timeout as a block. Raises `psycopg.Error`."""
        return self._in_one_trip(self._frame.begin, query, parameters, prepare=prepare)

    def _in_one_trip(
        self, begin: Sequence[bytes], query: bytes = b"", parameters: Sequence[str] = (), *, prepare: bool = False
    ) -> list[Any]:
        connection = self._connected()
        cursor: psycopg.Cursor[Any] | None = None
        with _one_trip(connection):
            for statement in begin:
                connection.execute(statement, prepare=False)
            if query:
                cursor = connection.execute(query, parameters, prepare=prepare)
                connection.execute(self._frame.keep, prepare=False)
        return cursor.fetchall() if cursor else []

    def _ends(
        self,
        connection: psycopg.Connection[Any],
        segment: Segment,
        literals: list[str],
        cursors: list[psycopg.Cursor[Any]],
    ) -> list[RowOutcome]:
        """Which rows of a statement (or pair) were written, and what held the others off."""
        count = len(segment.places)
        written = sum(cursor.rowcount for cursor in cursors)
        if written == count:
            return [RowOutcome.WRITTEN] * count
        ends = self._held(connection, segment, literals)
        if written:
            *updates, inserts = cursors
            places = {key: place for place, key in enumerate(segment.keys)}
            for update in updates:
                for (ordinal,) in update.fetchall():
                    ends[ordinal - 1] = RowOutcome.WRITTEN
            for key in inserts.fetchall():
                ends[places[key if len(key) > 1 else key[0]]] = RowOutcome.WRITTEN
        return ends

    def _held(self, connection: psycopg.Connection[Any], segment: Segment, literals: list[str]) -> list[RowOutcome]:
        """What holds rows off: a stored row that is newer (for `only_new`: not older), else a trigger of the table."""
        plan, count = segment.plan, len(segment.places)
        if not segment.table.shape.suppresses:
            return [RowOutcome.SUPERSEDED] * count
        ends = [RowOutcome.SUPPRESSED] * count
        if plan.newer is not None:
            by_name = dict(zip(plan.names, literals, strict=True))
            cursor = connection.execute(plan.newer, [by_name[name] for name in plan.newer_columns], prepare=False)
            for (ordinal,) in cursor.fetchall():
                ends[ordinal - 1] = RowOutcome.SUPERSEDED
        return ends

    def _fresh(self, plan: Plan, entries: Sequence[Entry]) -> list[bool]:
        """Whether a row's key is new to the table: then its pair is an INSERT alone, and those keep the order read.

        Asked before the transaction: who comes in between is met by the pair itself, as ever.
        """
        keys = plan.encode([entry.row for entry in entries], plan.key_columns)
        new = {ordinal - 1 for (ordinal,) in self._ask(plan.fresh, keys)}
        return [place in new for place in range(len(entries))]

    # -- isolation ---------------------------------------------------------------------------------------------------

    def _sieve(self, items: Sequence[Sequence[Entry]], outcome: Refused) -> Mapping[int, Refusal]:
        """Items that would be refused alone as well, whatever is written before them; none where that can't be told.

        Only items of one row are asked about: which of several is refused first depends on what each of them meets.
        """
        alone = [place for place, item in enumerate(items) if len(item) == 1]
        named: dict[int, Refusal] = {}
        for table in self.tables.touched([items[place][0] for place in alone]):
            places = [place for place in alone if self.tables.of(items[place][0]) is table]
            found = self._sieve_rows(table, [items[place][0] for place in places], outcome)
            named |= {places[n]: refusal for n, refusal in found.items()}
        return named

    def _sieve_rows(self, table: OneTable, entries: Sequence[Entry], outcome: Refused) -> dict[int, Refusal]:
        if outcome.refusal.code == UNFIT:
            return _unfit(table, entries)
        shape, rules = table.shape, table.shape.rules
        references = outcome.refusal.code == "23503"
        # of several tables the block itself may write the row that is referred to
        told = shape.order is Order.FREE and len(self.tables.declared) == 1
        if not shape.plain or outcome.refusal.code not in ASKABLE or (references and not told):
            return {}
        named: dict[int, Refusal] = {}
        for plan, places in _askable(table, entries, references=references).items():
            rows = [entries[place].row for place in places]
            try:
                parameters = plan.encode(rows, None if references else plan.asked)
            except Unfit:  # those that can't even be sent are told first
                return {}
            query = plan.verdict_on_references if references else plan.verdict
            for ordinal, rule in self._asked(query, parameters):
                if references or plan.judgeable(rows[ordinal - 1]):
                    named[places[ordinal - 1]] = rules[rule]
        if named and not references:
            self._sift = SIFTED_BLOCKS
        return named

    def _sweep(self, items: Sequence[Sequence[Entry]]) -> list[list[RowOutcome] | Refused]:
        """Rows of one plan, as if one by one, within the server; none where they are not, or it does not do it."""
        entries = [entry for item in items for entry in item]
        if not self._sweeps or len(entries) > len(items) or len(self.tables.touched(entries)) > 1:
            return []
        table = self.tables.of(entries[0])
        [*plans] = set(table.plans_of(entries))
        if len(plans) > 1:
            return []
        try:
            columns = plans[0].encode([entry.row for entry in entries])
            runs = Staged(table, range(len(entries)), entries, self._fresh).runs()
            outcomes = self._swept(plans[0].sweep(RECORDS, sorted(AGAIN)), [*columns, postgres_sweep.ends(runs)])
        except (Unfit, TypeError):  # a value that can't be sent, or a key of the wrong kind
            return []
        except psycopg.Error as error:
            self._refused(self._connected(), error)  # of the destination: raises
            self._sweeps = self._sweeps and error.sqlstate not in NOT_SWEPT
            return []
        suppresses = table.shape.suppresses
        results = [self._of_swept(outcome, suppresses=suppresses) for outcome in outcomes]
        refused = next((result for result in results if isinstance(result, Refused)), None)
        if refused is not None:
            self._refused_lately, self._sweep_left = refused, SWEPT_ROWS
        return results

    def _likely(self, items: int) -> Refused | None:
        """What trying these whole would probably come to."""
        if self._sweep_left <= 0 or not self._sweeps:
            return None
        self._sweep_left -= items
        return self._refused_lately

    def _swept(self, script: bytes, columns: list[str]) -> list[postgres_sweep.Outcome]:
        connection = self._connected()
        with _one_trip(connection):
            for statement in self._frame.begin:
                connection.execute(statement, prepare=False)
            connection.execute(postgres_sweep.carry(len(columns) - 1), columns, prepare=False)
            connection.execute(script, prepare=False)
            answer = connection.execute(postgres_sweep.ANSWER, prepare=False)
            connection.execute(self._frame.keep, prepare=False)
        [(text,)] = answer.fetchall()
        return postgres_sweep.OUTCOMES.decode(text)

    @staticmethod
    def _of_swept(outcome: postgres_sweep.Outcome, *, suppresses: bool) -> list[RowOutcome] | Refused:
        if outcome.code:
            return _refused_for(outcome.code, outcome.rule)
        if outcome.written:
            return [RowOutcome.WRITTEN]
        return [RowOutcome.SUPPRESSED if suppresses and not outcome.newer else RowOutcome.SUPERSEDED]

    def _foreseen(self, block: Sequence[Entry], rows: Alike) -> dict[int, Refusal]:
        """Rows that break a rule, by their places; asked only while blocks hold such rows.

        Then asking costs less than having a block refused, and the rest may still go by straight COPY.
        """
        plan, shape = rows.plan, rows.table.shape
        if not (self._sift and plan.askable and shape.plain):
            return {}
        self._sift -= 1
        try:
            _ = rows.spelled  # every value can be sent
            asked = rows.literals(plan.asked)
        except Unfit:
            return {}
        rules = shape.rules
        found = {ordinal - 1: rules[rule] for ordinal, rule in self._asked(plan.verdict, asked)}
        named = {place: refusal for place, refusal in found.items() if plan.sure(block[place].row)}
        self._sift = SIFTED_BLOCKS if named else self._sift
        return named

    def _asked(self, query: bytes, parameters: list[str]) -> list[tuple[int, int]]:
        """Ordinal and rule of the rows that break one; none if an expression can't be evaluated."""
        try:
            return self._ask(query, parameters, prepare=self.settings.prepare)
        except psycopg.Error as error:
            self._refused(self._connected(), error)
            return []


def _refused_for(code: str, rule: str) -> Refused:
    """A code that is not the destination's."""
    own = fault_of(code) == "record"
    return Refused(
        Refusal(reason_of(code) if own else Reason.REFUSED, code, rule), again=code in AGAIN, suspect=not own
    )


def _askable(table: OneTable, entries: Sequence[Entry], *, references: bool) -> dict[Plan, list[int]]:
    """Rows by plan. A foreign key is tested only of what is written: not of a row that another one beats."""
    places: dict[Plan, list[int]] = {}
    plans = table.plans_of(entries)
    if not references:
        for place, plan in enumerate(plans):
            if plan.askable:
                places.setdefault(plan, []).append(place)
        return places
    keys = [table.identity(entry.row) for entry in entries]
    contested = Counter(keys)
    for place, (entry_key, plan) in enumerate(zip(keys, plans, strict=True)):
        if plan.whole and not plan.only_new and (table.table.version is None or contested[entry_key] == 1):
            places.setdefault(plan, []).append(place)
    return places


def _unfit(table: OneTable, entries: Sequence[Entry]) -> dict[int, Refusal]:
    """The rows with a value that can't be sent."""
    bad = {}
    for place, (entry, plan) in enumerate(zip(entries, table.plans_of(entries), strict=True)):
        try:
            plan.encode([entry.row])
        except Unfit as unfit:
            bad[place] = Refusal(Reason.BAD_VALUE, UNFIT, str(unfit))
    return bad


@contextmanager
def _one_trip(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """All statements in one network round trip. Raises the error of the one that failed.

    An exception that left psycopg's own block would have the errors after it logged, with the rows they quote.
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


def _defaults(dsn: str) -> dict[str, Any]:
    """What a DSN does not say: find a dead server in seconds, and be found by name in pg_stat_activity."""
    said = psycopg.conninfo.conninfo_to_dict(dsn)
    ours = {
        "connect_timeout": 3,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "application_name": "lovelace_streams",
    }
    return {name: value for name, value in ours.items() if name not in said}
