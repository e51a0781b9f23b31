"""Postgres: blocks of rows upserted in one transaction and one round trip; what is refused is isolated.

Why the statements are what they are, and why they end as writing one by one does: docs/decisions/0004-writers.md.
"""

import os
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from operator import attrgetter
from typing import Any, Literal

import msgspec
import psycopg
import psycopg.conninfo
import structlog
from psycopg import sql

from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.isolate import Refused, isolate
from lovelace_streams.records import Reason
from lovelace_streams.rows import UNSET, Column, Row
from lovelace_streams.settings import PostgresSettings
from lovelace_streams.writers import Capabilities, End, Entry, Refusal, Result, superseded
from lovelace_streams.writers.postgres_sql import Plan, Unfit, identity_of
from lovelace_streams.writers.postgres_table import Order, Shape, inspect

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
UNFIT = "22000"
"""data_exception: a value that could not even be sent."""


REFUSED_AT_START = {
    "28P01": re.compile("FATAL:  password authentication failed|no password supplied"),
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


class Frame(msgspec.Struct, frozen=True):
    """How an attempt begins, and how it ends."""

    begin: tuple[bytes, ...]
    keep: bytes
    undo: bytes


REHEARSAL = Frame((b"savepoint attempt",), b"release savepoint attempt", b"rollback to savepoint attempt")
"""Within a transaction that is rolled back in the end, so that later attempts see what earlier ones wrote."""


class Segment:
    """Rows of a block that share a statement (or a pair), by their places in it."""

    __slots__ = ("keys", "places", "plan")

    def __init__(self, plan: Plan, places: list[int], keys: list[Any]) -> None:
        self.plan = plan
        self.places = places
        self.keys = keys


class PostgresWriter:
    """Upserts rows of one table over one connection, as `lovelace_streams.writers.Writer` says.

    `one_by_one` writes each row in a transaction of its own: the oracle that every faster path is compared with, and
    the way out for a table whose triggers judge a row by rows that come after it.
    """

    def __init__(self, settings: PostgresSettings, *rows: type[Row], one_by_one: bool = False) -> None:
        if not rows:
            raise TypeError("PostgresWriter needs a row class: PostgresWriter(settings, Member)")
        self.rows = rows
        self.table = rows[0].__table__
        self.settings = settings
        self.deadline = settings.write_seconds + 1  # the server's own statement_timeout comes first, if it can
        self.capabilities = Capabilities()
        self.one_by_one = one_by_one
        for row in rows[1:]:
            other = row.__table__
            if (other.name, other.key, other.version) != (self.table.name, self.table.key, self.table.version):
                raise TypeError(f"{row.__name__} and {rows[0].__name__} differ in table, primary key or version")
        self._identity: Callable[[Row], Any] = attrgetter(*self.table.key)
        self._optional = {row: _optional(row) for row in rows}
        self._connection: psycopg.Connection[Any] | None = None
        self._shape: Shape | None = None
        self._frame = Frame((), b"commit", b"rollback")
        self._plans: dict[tuple[type[Row], frozenset[str], bool], Plan] = {}
        self._last: Entry | None = None

    @property
    def name(self) -> str:
        """`postgresql://host/database/table`, without credentials."""
        return f"{self.settings.name}/{self.table.name}"

    # -- connection --------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Connect and compare the rows with the real table. Raises `DestinationFault` or `DeploymentFault`."""
        self.close()
        try:
            connection = psycopg.connect(
                self.settings.dsn,
                autocommit=True,
                prepare_threshold=0 if self.settings.prepare else None,
                **_defaults(self.settings.dsn),
            )
        except psycopg.OperationalError as error:
            raise self._unconnected(error) from None
        except psycopg.Error:
            raise DeploymentFault(f"POSTGRES_DSN is not a connection string ({self.settings.name})") from None
        self._connection = connection
        with self._faults():
            self._shape = inspect(connection, self.table, self.rows, "compare with `lovelace ddl FLOW`")
            self._plans.clear()
            self._identity = identity_of(self.table, self._shape.types)
            self._frame = Frame(self._preamble(), b"commit", b"rollback")
            self._explain(connection)

    def _unconnected(self, error: psycopg.OperationalError) -> DestinationFault | DeploymentFault:
        for code, text in REFUSED_AT_START.items():
            if text.search(str(error)):
                message = f"{self.settings.name} refuses the credentials or database of POSTGRES_DSN (SQLSTATE {code})"
                return DeploymentFault(message, code)
        return DestinationFault("08001", f"no connection to {self.settings.name}")

    def _explain(self, connection: psycopg.Connection[Any]) -> None:
        """Let the server plan the usual statement: privileges, arbiter and casts are found wrong now, not later."""
        plan = self._plan(self.rows[0], frozenset(), only_new=False)
        literals = ["{}"] * len(plan.columns)
        for statement in plan.statements:
            connection.execute(b"explain " + statement, literals, prepare=False)
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
        return DeploymentFault(
            f"{self.rows[0].__name__} ↔ table {self.table.name} at {self.settings.name}: "
            f"refused with SQLSTATE {code}; compare with `lovelace ddl FLOW`",
            code,
        )

    def abort(self) -> None:
        """Shut the socket under a `write` in another thread."""
        connection = self._connection
        if connection is None:
            return
        with suppress(psycopg.Error, OSError):
            duplicate = socket.socket(fileno=os.dup(connection.pgconn.socket))
            with duplicate:
                duplicate.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()

    # -- writing -----------------------------------------------------------------------------------------------------

    def write(self, block: Sequence[Entry]) -> list[Result]:
        """Write a block durably; see `Writer.write`."""
        results = self._written(block)
        self._last = next((e for e, r in zip(block, results, strict=True) if r is End.WRITTEN), self._last)
        return results

    def rehearse(self, block: Sequence[Entry]) -> list[Result]:
        """What `write` would answer, rolled back; see `Writer.rehearse`."""
        connection, frame = self._connected(), self._frame
        with self._faults():
            self._in_one_trip(frame.begin)
        self._frame = REHEARSAL
        try:
            return self._written(block)
        finally:
            self._frame = frame
            with suppress(psycopg.Error):
                connection.execute(frame.undo, prepare=False)

    def _written(self, block: Sequence[Entry]) -> list[Result]:
        """What became of the rows, in the frame that is set."""
        if self.one_by_one:
            outcomes = [isolate([entry], self._attempt)[0] for entry in block]
        else:
            outcomes = isolate(block, self._attempt, self._sieve)
        return superseded(self._believed(outcomes), [self._identity(entry.row) for entry in block])

    def probe(self, others: Sequence[Entry] = ()) -> bool | None:
        """Whether the row that was last written, or one of the first others, could be written now; rolled back."""
        candidates = [*([self._last] if self._last is not None else []), *others[:2]]
        for candidate in candidates:
            try:
                if not isinstance(self._attempt([candidate], commit=False), Refused):
                    return True
            except (DestinationFault, DeploymentFault):
                continue
        return False if candidates else None

    def _believed(self, outcomes: Sequence[End | Refused]) -> list[Result]:
        """A code that may be the deployment's is the record's where a neighbour (or a probe) was accepted."""
        suspects = [outcome for outcome in outcomes if isinstance(outcome, Refused) and outcome.suspect]
        if suspects and all(isinstance(outcome, Refused) for outcome in outcomes):
            deployment = [o.refusal.code for o in suspects if fault_of(o.refusal.code) == "deployment"]
            if deployment and not self.probe():
                raise self._deployment(deployment[0])
        return [outcome.refusal if isinstance(outcome, Refused) else outcome for outcome in outcomes]

    def _attempt(self, entries: Sequence[Entry], *, commit: bool = True) -> list[End] | Refused:
        """All entries in one transaction, or none."""
        connection = self._connected()
        try:
            segments = self._segments(entries)
            literals = [segment.plan.encode([entries[p].row for p in segment.places]) for segment in segments]
            ends = self._transact(connection, segments, literals, commit=commit)
        except Unfit as unfit:
            return Refused(Refusal(Reason.BAD_VALUE, UNFIT, str(unfit)))
        except psycopg.Error as error:
            return self._refused(connection, error)
        results = [End.WRITTEN] * len(entries)
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
        rule = error.diag.constraint_name or error.diag.column_name or ""
        refusal = Refusal(reason_of(code) if fault == "record" else Reason.REFUSED, code, rule)
        return Refused(refusal, again=code in AGAIN, suspect=fault != "record")

    # -- one transaction ---------------------------------------------------------------------------------------------

    def _transact(
        self,
        connection: psycopg.Connection[Any],
        segments: Sequence[Segment],
        literals: Sequence[list[str]],
        *,
        commit: bool,
    ) -> list[list[End]]:
        shape = self._shaped()
        cursors: list[list[psycopg.Cursor[Any]]] = []
        ends: list[list[End]] = []
        with nullcontext() if shape.suppresses else _one_trip(connection):
            for statement in self._frame.begin:
                connection.execute(statement, prepare=False)
            for segment, parameters in zip(segments, literals, strict=True):
                cursors.append(
                    [
                        connection.execute(statement, parameters, prepare=self.settings.prepare)
                        for statement in segment.plan.statements
                    ]
                )
                if shape.suppresses:  # asked at once: a later statement may store a newer version
                    ends.append(self._ends(connection, segment, parameters, cursors[-1]))
            connection.execute(self._frame.keep if commit else self._frame.undo, prepare=False)
        return ends or [
            self._ends(connection, segment, parameters, made)
            for segment, parameters, made in zip(segments, literals, cursors, strict=True)
        ]

    def _preamble(self) -> tuple[bytes, ...]:
        """What a transaction begins with: nothing is left behind in a session that a pooler may hand to others."""
        timeout = sql.Literal(int(self.settings.write_seconds * 1000))
        preamble = (
            b"begin isolation level read committed",
            sql.SQL("set local statement_timeout = {}").format(timeout).as_bytes(),
        )
        return (*preamble, b"set constraints all immediate") if self._shaped().deferrable else preamble

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
    ) -> list[End]:
        """Which rows of a statement (or pair) were written, and what held the others off."""
        count = len(segment.places)
        written = sum(cursor.rowcount for cursor in cursors)
        if written == count:
            return [End.WRITTEN] * count
        ends = self._held(connection, segment.plan, literals, count)
        if written:
            *updates, inserts = cursors
            places = {key: place for place, key in enumerate(segment.keys)}
            for update in updates:
                for (ordinal,) in update.fetchall():
                    ends[ordinal - 1] = End.WRITTEN
            for key in inserts.fetchall():
                ends[places[key if len(key) > 1 else key[0]]] = End.WRITTEN
        return ends

    def _held(self, connection: psycopg.Connection[Any], plan: Plan, literals: list[str], count: int) -> list[End]:
        """What holds rows off: a stored row that is newer (for `only_new`: not older), else a trigger of the table."""
        if not self._shaped().suppresses:
            return [End.SUPERSEDED] * count
        ends = [End.SUPPRESSED] * count
        if plan.newer is not None:
            by_name = dict(zip(plan.names, literals, strict=True))
            cursor = connection.execute(plan.newer, [by_name[name] for name in plan.newer_columns], prepare=False)
            for (ordinal,) in cursor.fetchall():
                ends[ordinal - 1] = End.SUPERSEDED
        return ends

    # -- cutting a block into segments -------------------------------------------------------------------------------

    def _segments(self, entries: Sequence[Entry]) -> list[Segment]:
        """In which statements the entries go, so that they end as if each had one of its own."""
        shape = self._shaped()
        plans = self._plans_of(entries)
        keys = [self._identity(entry.row) for entry in entries]
        if shape.order is Order.STRANGE or len(entries) == 1:
            return [Segment(plan, [place], [keys[place]]) for place, plan in enumerate(plans)]
        try:
            if shape.order is Order.FREE:
                return _rounds(plans, keys)
            joins = [plan.single for plan in plans]
            if not all(joins):
                fresh = self._fresh(plans[0], entries)
                first = {key: place for place, key in reversed(list(enumerate(keys)))}  # or the block itself makes it
                joins = [
                    single or (new and first[key] == place)
                    for place, (single, new, key) in enumerate(zip(joins, fresh, keys, strict=True))
                ]
            return _runs(plans, keys, self._parents(entries, plans, shape), joins)
        except TypeError:  # a key of the wrong kind can't be compared with the others
            raise Unfit(self.table.key[0]) from None

    def _plans_of(self, entries: Sequence[Entry]) -> list[Plan]:
        plans = []
        usual = self._plan(self.rows[0], NOTHING, only_new=False)
        for entry in entries:
            row = entry.row
            kind = type(row)
            names, get = self._optional[kind]
            absent = NOTHING
            if names and UNSET in get(row):
                absent = frozenset(name for name, value in zip(names, get(row), strict=False) if value is UNSET)
            if absent or entry.only_new or kind is not self.rows[0]:
                plans.append(self._plan(kind, absent, only_new=entry.only_new))
            else:
                plans.append(usual)
        return plans

    def _plan(self, kind: type[Row], absent: frozenset[str], *, only_new: bool) -> Plan:
        plan = self._plans.get((kind, absent, only_new))
        if plan is None:
            columns = [column for column in kind.__table__.columns if column.name not in absent]
            plan = self._plans[kind, absent, only_new] = Plan(self.table, self._shaped(), columns, only_new=only_new)
        return plan

    def _fresh(self, plan: Plan, entries: Sequence[Entry]) -> list[bool]:
        """Whether a row's key is new to the table: then its pair is an INSERT alone, and those keep the order read.

        Asked before the transaction: who comes in between is met by the pair itself, as ever.
        """
        keys = plan.encode_key([entry.row for entry in entries])
        new = {ordinal - 1 for (ordinal,) in self._ask(plan.fresh, keys)}
        return [place in new for place in range(len(entries))]

    def _parents(self, entries: Sequence[Entry], plans: Sequence[Plan], shape: Shape) -> list[list[Any]]:
        """The keys that each row refers to, of a table with a foreign key to itself; UNSET refers to nobody."""
        if not shape.parents:
            return [[]] * len(entries)
        getters = [attrgetter(*columns) for columns in shape.parents]
        return [
            [get(entry.row) for get in getters]
            if plan.whole
            else [_refers(entry.row, columns) for columns in shape.parents]
            for entry, plan in zip(entries, plans, strict=True)
        ]

    def _shaped(self) -> Shape:
        if self._shape is None:
            raise DestinationFault("08003", f"{self.settings.name} was not opened")
        return self._shape

    # -- isolation ---------------------------------------------------------------------------------------------------

    def _sieve(self, entries: Sequence[Entry], outcome: Refused) -> Mapping[int, Refusal]:
        """Rows that would be refused alone as well, whatever is written before them; none where that can't be told."""
        if outcome.refusal.code == UNFIT:
            return self._unfit(entries)
        shape = self._shaped()
        references = outcome.refusal.code == "23503"
        if not shape.plain or outcome.refusal.code not in ASKABLE or (references and shape.order is not Order.FREE):
            return {}
        named: dict[int, Refusal] = {}
        for plan, places in self._askable(entries, references=references).items():
            parameters = plan.encode([entries[place].row for place in places])
            query = plan.verdict_on_references if references else plan.verdict
            for ordinal, rule in self._asked(query, parameters):
                named[places[ordinal - 1]] = shape.rules[rule]
        return named

    def _askable(self, entries: Sequence[Entry], *, references: bool) -> dict[Plan, list[int]]:
        """Whole rows by plan. A foreign key is tested only of what is written: not of a row that another one beats."""
        places: dict[Plan, list[int]] = {}
        contested = Counter(self._identity(entry.row) for entry in entries)
        for place, (entry, plan) in enumerate(zip(entries, self._plans_of(entries), strict=True)):
            sure = not plan.only_new and (self.table.version is None or contested[self._identity(entry.row)] == 1)
            if plan.whole and (sure or not references):
                places.setdefault(plan, []).append(place)
        return places

    def _asked(self, query: bytes, parameters: list[str]) -> list[tuple[int, int]]:
        """Ordinal and rule of the rows that break one; none if an expression can't be evaluated."""
        try:
            return self._ask(query, parameters, prepare=self.settings.prepare)
        except psycopg.Error as error:
            self._refused(self._connected(), error)
            return []

    def _unfit(self, entries: Sequence[Entry]) -> dict[int, Refusal]:
        bad = {}
        for place, (entry, plan) in enumerate(zip(entries, self._plans_of(entries), strict=True)):
            try:
                plan.encode([entry.row])
            except Unfit as unfit:
                bad[place] = Refusal(Reason.BAD_VALUE, UNFIT, str(unfit))
        return bad


NOTHING: frozenset[str] = frozenset()


def _refers(row: Row, columns: Sequence[str]) -> Any:
    values = tuple(getattr(row, column, UNSET) for column in columns)
    return values if len(values) > 1 else values[0]


def _rounds(plans: Sequence[Plan], keys: Sequence[Any]) -> list[Segment]:
    """The n-th row of a key goes into the n-th round; within a round the order is that of the keys (deadlocks)."""
    if len(set(keys)) == len(keys) and len(set(plans)) == 1:
        places = sorted(range(len(keys)), key=keys.__getitem__)
        return [Segment(plans[0], places, [keys[place] for place in places])]
    rounds: dict[tuple[int, Plan], list[int]] = {}
    nth: dict[Any, int] = {}
    for place, (plan, key) in enumerate(zip(plans, keys, strict=True)):
        number = nth[key] = nth.get(key, -1) + 1
        rounds.setdefault((number, plan), []).append(place)
    segments = []
    for (_, plan), places in sorted(rounds.items(), key=lambda item: item[0][0]):
        places.sort(key=keys.__getitem__)
        segments.append(Segment(plan, places, [keys[place] for place in places]))
    return segments


def _runs(
    plans: Sequence[Plan], keys: Sequence[Any], parents: Sequence[Sequence[Any]], joining: Sequence[bool]
) -> list[Segment]:
    """Consecutive rows of distinct keys that one statement writes; cut before a row that an earlier one refers to."""
    segments: list[Segment] = []
    taken: set[Any] = set()
    referred: set[Any] = set()
    for place, (plan, key) in enumerate(zip(plans, keys, strict=True)):
        alike = segments and segments[-1].plan is plan and joining[place] and joining[place - 1]
        if not alike or key in taken or key in referred:
            segments.append(Segment(plan, [], []))
            taken, referred = set(), set()
        segments[-1].places.append(place)
        segments[-1].keys.append(key)
        taken.add(key)
        referred.update(parents[place])
    return segments


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


def _optional(row: type[Row]) -> tuple[tuple[str, ...], Callable[[Row], Any]]:
    """Fields that may be absent, and how to get them all as a tuple."""
    names = tuple(column.name for column in row.__table__.columns if _may_be_absent(column))
    return names, attrgetter(*(names * 2 if len(names) == 1 else names or ("__class__", "__class__")))


def _may_be_absent(column: Column) -> bool:
    return column.nullable and column.default is msgspec.NODEFAULT


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
