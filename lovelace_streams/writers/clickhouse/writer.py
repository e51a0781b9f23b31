"""ClickHouse: whole rows into a ReplacingMergeTree, in large blocks; what is refused is isolated.

What a table has to be, and why one integer decides which row is the last: docs/decisions/0008-clickhouse.md.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from operator import attrgetter
from typing import Any, Literal, NamedTuple

import structlog

from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.records import Reason
from lovelace_streams.rows.row import Row
from lovelace_streams.settings import ClickHouseSettings
from lovelace_streams.writers import Capabilities, Entry, Refusal, RowOutcome, RowResult, items_of
from lovelace_streams.writers.clickhouse.catalog import Shape, columns_of, inspect, qualified
from lovelace_streams.writers.clickhouse.client import Connection, connect
from lovelace_streams.writers.clickhouse.native import block as native_block
from lovelace_streams.writers.clickhouse.native import packed
from lovelace_streams.writers.clickhouse.types import DOUBTS, TYPE_MISMATCH, Unfit
from lovelace_streams.writers.isolation import Refused, isolate_refused

log = structlog.get_logger(__name__)

Fault = Literal["record", "destination", "deployment", "unlisted"]

FAULTS: dict[int, Fault] = {
    6: "record",  # CANNOT_PARSE_TEXT
    27: "record",  # CANNOT_PARSE_INPUT_ASSERTION_FAILED
    38: "record",  # CANNOT_PARSE_DATE
    41: "record",  # CANNOT_PARSE_DATETIME
    53: "record",  # TYPE_MISMATCH
    69: "record",  # ARGUMENT_OUT_OF_BOUND
    70: "record",  # CANNOT_CONVERT_TYPE
    72: "record",  # CANNOT_PARSE_NUMBER
    117: "record",  # INCORRECT_DATA
    131: "record",  # TOO_LARGE_STRING_SIZE
    153: "record",  # ILLEGAL_DIVISION
    321: "record",  # VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
    349: "record",  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
    376: "record",  # CANNOT_PARSE_UUID
    395: "record",  # FUNCTION_THROW_IF_VALUE_IS_NON_ZERO
    407: "record",  # DECIMAL_OVERFLOW
    469: "record",  # VIOLATED_CONSTRAINT
    691: "record",  # UNKNOWN_ELEMENT_OF_ENUM
    3: "destination",  # UNEXPECTED_END_OF_FILE
    49: "destination",  # LOGICAL_ERROR
    74: "destination",  # CANNOT_READ_FROM_FILE_DESCRIPTOR
    75: "destination",  # CANNOT_WRITE_TO_FILE_DESCRIPTOR
    76: "destination",  # CANNOT_OPEN_FILE
    95: "destination",  # CANNOT_READ_FROM_SOCKET
    96: "destination",  # CANNOT_WRITE_TO_SOCKET
    107: "destination",  # FILE_DOESNT_EXIST
    159: "destination",  # TIMEOUT_EXCEEDED
    160: "destination",  # TOO_SLOW
    164: "destination",  # READONLY
    173: "destination",  # CANNOT_ALLOCATE_MEMORY
    198: "destination",  # DNS_ERROR
    201: "destination",  # QUOTA_EXCEEDED
    202: "destination",  # TOO_MANY_SIMULTANEOUS_QUERIES
    203: "destination",  # NO_FREE_CONNECTION
    209: "destination",  # SOCKET_TIMEOUT
    210: "destination",  # NETWORK_ERROR
    225: "destination",  # NO_ZOOKEEPER
    236: "destination",  # ABORTED
    241: "destination",  # MEMORY_LIMIT_EXCEEDED
    242: "destination",  # TABLE_IS_READ_ONLY
    243: "destination",  # NOT_ENOUGH_SPACE
    252: "destination",  # TOO_MANY_PARTS
    279: "destination",  # ALL_CONNECTION_TRIES_FAILED
    285: "destination",  # TOO_FEW_LIVE_REPLICAS
    286: "destination",  # UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE
    319: "destination",  # UNKNOWN_STATUS_OF_INSERT
    341: "destination",  # UNFINISHED
    394: "destination",  # QUERY_WAS_CANCELLED
    425: "destination",  # SYSTEM_ERROR
    439: "destination",  # CANNOT_SCHEDULE_TASK
    473: "destination",  # DEADLOCK_AVOIDED
    499: "destination",  # S3_ERROR
    574: "destination",  # DISTRIBUTED_TOO_MANY_PENDING_BYTES
    667: "destination",  # NOT_INITIALIZED
    722: "destination",  # ASYNC_LOAD_WAIT_FAILED
    735: "destination",  # QUERY_WAS_CANCELLED_BY_CLIENT
    745: "destination",  # SERVER_OVERLOADED
    999: "destination",  # KEEPER_EXCEPTION
    1000: "destination",  # POCO_EXCEPTION
    1001: "destination",  # STD_EXCEPTION
    1002: "destination",  # UNKNOWN_EXCEPTION
    10: "deployment",  # NOT_FOUND_COLUMN_IN_BLOCK
    16: "deployment",  # NO_SUCH_COLUMN_IN_TABLE
    36: "deployment",  # BAD_ARGUMENTS
    44: "deployment",  # ILLEGAL_COLUMN
    46: "deployment",  # UNKNOWN_FUNCTION
    47: "deployment",  # UNKNOWN_IDENTIFIER
    48: "deployment",  # NOT_IMPLEMENTED
    50: "deployment",  # UNKNOWN_TYPE
    60: "deployment",  # UNKNOWN_TABLE
    62: "deployment",  # SYNTAX_ERROR
    81: "deployment",  # UNKNOWN_DATABASE
    115: "deployment",  # UNKNOWN_SETTING
    192: "deployment",  # UNKNOWN_USER
    193: "deployment",  # WRONG_PASSWORD
    194: "deployment",  # REQUIRED_PASSWORD
    218: "deployment",  # TABLE_IS_DROPPED
    291: "deployment",  # DATABASE_ACCESS_DENIED
    452: "deployment",  # SETTING_CONSTRAINT_VIOLATION
    497: "deployment",  # ACCESS_DENIED
    516: "deployment",  # AUTHENTICATION_FAILED
}
"""ClickHouse's error code → whose fault (law 5)."""

REASONS = {
    "469": Reason.CHECK,
    "349": Reason.NOT_NULL,
    "69": Reason.OUT_OF_RANGE,
    "131": Reason.OUT_OF_RANGE,
    "321": Reason.OUT_OF_RANGE,
    "407": Reason.OUT_OF_RANGE,
    "395": Reason.REFUSED,
}
VIOLATED = "469"
_CONSTRAINT = re.compile(r"Constraint `(\w+)` for table")
LOST, TIMEOUT = "08006", "timeout"
"""No code of the server: the connection was lost, or did not answer in time."""
REFUSED_STATUS = frozenset({400, 401, 403, 404})
"""HTTP without a code of ClickHouse's: a proxy that refuses us, or no ClickHouse at all."""
NAMELESS = "0"
"""The code of such a refusal."""


def fault_of(code: str) -> Fault:
    """Whose fault a code says it is.

    >>> fault_of("469"), fault_of("252"), fault_of("60"), fault_of("8")
    ('record', 'destination', 'deployment', 'unlisted')
    """
    return "deployment" if code == NAMELESS else FAULTS.get(int(code), "unlisted")


def reason_of(code: str) -> Reason:
    """What a dead letter says for a code.

    >>> reason_of("469"), reason_of("72"), reason_of("8")
    (<Reason.CHECK: 'check'>, <Reason.BAD_VALUE: 'bad_value'>, <Reason.REFUSED: 'refused'>)
    """
    return REASONS.get(code) or (Reason.BAD_VALUE if fault_of(code) == "record" else Reason.REFUSED)


class Body(NamedTuple):
    """What an insert of some rows sends, to a table as it was when it was opened."""

    shape: Shape
    native: bytes


class Encoded(list[Entry]):
    """A block with what was made of it ahead of the call that writes it."""

    body: Body | None = None
    distinct: bool = False
    """Whether it is known that no two rows have one key."""


class ClickHouseWriter:
    """Inserts whole rows of one table, as `lovelace_streams.writers.Writer` says; the table replaces what is older.

    `one_by_one` inserts each row by itself: the oracle that blocks are compared with.
    """

    def __init__(self, settings: ClickHouseSettings, *rows: type[Row], one_by_one: bool = False) -> None:
        if not rows:
            raise TypeError("ClickHouseWriter needs a row class: ClickHouseWriter(settings, Message)")
        self.rows = rows
        self.table = rows[0].__table__
        self.settings = settings
        self.deadline = settings.write_seconds + 1  # the server's own max_execution_time comes first, if it can
        self.capabilities = Capabilities(
            can_dry_run=False, partial_updates=False, reports_superseded=False, block_rows=settings.block_rows
        )
        self.one_by_one = one_by_one
        for row in rows[1:]:
            other = row.__table__
            if (other.name, other.key, other.version) != (self.table.name, self.table.key, self.table.version):
                raise TypeError(f"{row.__name__} and {rows[0].__name__} differ in table, primary key or version")
        self._identity = attrgetter(*self.table.key)
        self._identities = [attrgetter(name) for name in self.table.key]
        self._connection: Connection | None = None
        self._shape: Shape | None = None
        self._last: Entry | None = None

    @property
    def name(self) -> str:
        """`http://host/database/table`, without credentials."""
        return f"{self.settings.name}/{self.table.name}"

    # -- connection --------------------------------------------------------------------------------------------------

    def ddl(self) -> str:
        """The `CREATE TABLE` of its table."""
        from lovelace_streams.writers.clickhouse.ddl import create_table

        return create_table(*self.rows)

    def open(self) -> None:
        """Connect and compare the rows with the real table. Raises `DestinationFault` or `DeploymentFault`."""
        self.close()
        with self._faults():
            connection = self._connection = connect(self.settings)
            way_out = "compare with `lovelace ddl FLOW`"
            shape = self._shape = inspect(connection.client, self.table, self.rows, self.settings.name, way_out)
        if not shape.durable and "insert_quorum" not in self.settings.dsn:
            hint = "a loss of power may lose settled rows; fsync_after_insert = 1 on the table, or insert_quorum"
            log.warning("fsync_after_insert_off", writer=self.name, hint=hint)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Everything that the driver raises outside of a block, as a fault; its texts are not shown (law 10)."""
        from clickhouse_connect.driver.exceptions import ClickHouseError

        try:
            yield
        except ClickHouseError as error:
            code = self._code(error)
            if code in (LOST, TIMEOUT) or fault_of(code) == "destination":
                raise DestinationFault(code, f"from {self.settings.name}") from None
            raise self._deployment(code) from None

    def _code(self, error: Exception) -> str:
        """The server's code; where there is none, what the transport says."""
        from clickhouse_connect.driver.exceptions import OperationalError, ProgrammingError
        from urllib3.exceptions import TimeoutError as HttpTimeout

        code = getattr(error, "code", None)
        if code is not None:
            return str(code)
        if isinstance(error.__cause__, HttpTimeout):
            return TIMEOUT
        status = self._connection.status if self._connection is not None else 0
        if isinstance(error, OperationalError) or status >= 500 or status == 429:  # noqa: PLR2004 - HTTP's own
            return LOST
        return NAMELESS if status in REFUSED_STATUS or isinstance(error, ProgrammingError) else LOST

    def _deployment(self, code: str) -> DeploymentFault:
        return DeploymentFault(
            f"{self.rows[0].__name__} ↔ table {self.table.name} at {self.settings.name}: refused with ClickHouse's"
            f" code {code}; compare CLICKHOUSE_DSN and `lovelace ddl FLOW`",
            code,
        )

    def abort(self) -> None:
        """Shut the connection under a `write` in another thread; a call of the engine in the process is left alone."""
        if self._connection is not None:
            self._connection.abort()

    def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    # -- writing -----------------------------------------------------------------------------------------------------

    def encode(self, block: Sequence[Entry]) -> Encoded:
        """Do ahead all that needs no connection, once the table is known; another thread may be in `write` meanwhile.

        See `Encodes`. Checking, packing and looking for keys that come twice is 4/5 of what the call costs Python.
        """
        encoded = Encoded(block)
        if block and self._shape is not None and not self.one_by_one:
            encoded.distinct = self._distinct(block)
            with suppress(Unfit, *DOUBTS):  # `write` meets it again, and says which row it is
                encoded.body = self._encode(block)
        return encoded

    def write(self, block: Sequence[Entry]) -> list[RowResult]:
        """Write a block durably; see `Writer.write`."""
        if not block:
            return []
        ahead = block if isinstance(block, Encoded) else Encoded()
        results = self._believed(self._isolated(block, ahead.body))
        self._last = next((e for e, r in zip(block, results, strict=True) if r is RowOutcome.WRITTEN), self._last)
        return results if ahead.distinct or self._distinct(block) else self._superseded(block, results)

    def _isolated(self, block: Sequence[Entry], body: Body | None) -> Sequence[RowOutcome | Refused]:
        """What became of each row; an item's rows are written together or not at all."""
        if self.one_by_one:
            items = items_of(block)
            outcomes = [isolate_refused([item], self._attempt_items)[0] for item in items]
        else:
            whole = self._attempt(block, body)
            if not isinstance(whole, Refused):  # as a rule: then nobody needs to know which rows are an item's
                return whole
            first, items = [whole], items_of(block)
            outcomes = isolate_refused(
                items, lambda some: first.pop() if first else self._attempt_items(some), self._sieve_items
            )
        return [outcome for item, outcome in zip(items, outcomes, strict=True) for _ in item]

    def _attempt_items(self, items: Sequence[Sequence[Entry]]) -> list[RowOutcome] | Refused:
        outcome = self._attempt([entry for item in items for entry in item])
        return outcome if isinstance(outcome, Refused) else [RowOutcome.WRITTEN] * len(items)

    def _sieve_items(self, items: Sequence[Sequence[Entry]], outcome: Refused) -> Mapping[int, Refusal]:
        """Of an item with several rows the first column that has a bad value names it, whichever row's: by halving."""
        alone = [place for place, item in enumerate(items) if len(item) == 1]
        found = self._sieve([items[place][0] for place in alone], outcome)
        return {alone[place]: refusal for place, refusal in found.items()}

    def dry_run(self, block: Sequence[Entry]) -> list[RowResult]:
        """What the columns' types refuse, which leaves the table's own CHECKs open: there is nothing to roll back."""
        refused = self._sieve(block)
        return [refused.get(place, RowOutcome.WRITTEN) for place in range(len(block))]

    def probe(self, others: Sequence[Entry] = ()) -> bool | None:
        """Whether the row that was last written, or one of the first other items, can be written now.

        It is written: there is nothing to roll back in ClickHouse, and a row that is written twice is one row.
        """
        candidates = [*([[self._last]] if self._last is not None else []), *items_of(others)[:2]]
        for candidate in candidates:
            try:
                if not isinstance(self._attempt(candidate), Refused):
                    return True
            except (DestinationFault, DeploymentFault):
                continue
        return False if candidates else None

    def _believed(self, outcomes: Sequence[RowOutcome | Refused]) -> list[RowResult]:
        """A code that may be the deployment's is the record's where a neighbour (or a probe) was accepted."""
        if outcomes.count(RowOutcome.WRITTEN) == len(outcomes):
            return [RowOutcome.WRITTEN] * len(outcomes)
        suspects = [outcome for outcome in outcomes if isinstance(outcome, Refused) and outcome.suspect]
        if suspects and all(isinstance(outcome, Refused) for outcome in outcomes):
            deployment = [o.refusal.code for o in suspects if fault_of(o.refusal.code) == "deployment"]
            if deployment and not self.probe():
                raise self._deployment(deployment[0])
        return [outcome.refusal if isinstance(outcome, Refused) else outcome for outcome in outcomes]

    def _distinct(self, block: Sequence[Entry]) -> bool:
        """Whether no two rows have one key: as a rule it shows by one of the key's columns."""
        rows = [entry.row for entry in block]
        with suppress(TypeError):  # a value that can't be hashed is none of a key's types, and will be refused
            return any(len(set(map(of, rows))) == len(rows) for of in self._identities)
        return False

    def _superseded(self, block: Sequence[Entry], results: list[RowResult]) -> list[RowResult]:
        """Of a key's written rows the one with the highest version stays; what was stored before is not known."""
        written = [place for place, result in enumerate(results) if result is RowOutcome.WRITTEN]
        keys = [self._identity(block[place].row) for place in written]
        if len(set(keys)) == len(keys):
            return results
        versions = self._shaped().versions([block[place] for place in written])
        last: dict[Any, list[int]] = {}
        for key, *rank in zip(keys, versions, written, strict=True):
            last[key] = max(last.get(key, rank), rank)
        stay = {place for _, place in last.values()}
        return [
            RowOutcome.SUPERSEDED if result is RowOutcome.WRITTEN and place not in stay else result
            for place, result in enumerate(results)
        ]

    def _attempt(self, entries: Sequence[Entry], body: Body | None = None) -> list[RowOutcome] | Refused:
        """All entries in one insert, or none; `body` is what was made of them ahead."""
        from clickhouse_connect.driver.exceptions import ClickHouseError

        try:
            self._insert(body if body is not None and body.shape is self._shape else self._encode(entries))
        except Unfit as unfit:
            return Refused(unfit.refusal(unfit.column))
        except ClickHouseError as error:
            return self._refused(error)
        return [RowOutcome.WRITTEN] * len(entries)

    def _insert(self, body: Body) -> None:
        """One insert of this body; raises `DestinationFault` without a connection, and what the driver raises."""
        if self._connection is None:
            raise DestinationFault("08003", f"not connected to {self.settings.name}")
        self._connection.insert(
            qualified(self.table),
            list(body.shape.columns),
            body.native,
            {
                "async_insert": 0,
                "input_format_skip_unknown_fields": 0,  # what is not understood is not left out silently
                "wait_end_of_query": 1,
                "max_execution_time": max(1, int(self.settings.write_seconds)),
            },
        )

    def _refused(self, error: Exception) -> Refused:
        """What the error says of the attempt. Raises `DestinationFault`."""
        from clickhouse_connect.driver.exceptions import DataError

        if isinstance(error, DataError):  # the client could not spell a value
            return Refused(Refusal(Reason.BAD_VALUE, TYPE_MISMATCH))
        code = self._code(error)
        if code in (LOST, TIMEOUT):
            raise DestinationFault(code, f"from {self.settings.name}") from None
        fault = fault_of(code)
        if fault == "destination":
            raise DestinationFault(code, f"from {self.settings.name}") from None
        return Refused(Refusal(reason_of(code), code, self._rule(code, error)), suspect=fault != "record")

    def _rule(self, code: str, error: Exception) -> str:
        """The constraint, if it is one of the table's: ClickHouse names it in the text alone."""
        named = _CONSTRAINT.search(str(error)) if code == VIOLATED else None
        return named[1] if named is not None and named[1] in self._shaped().constraints else ""

    def _encode(self, entries: Sequence[Entry]) -> Body:
        """A column at a time, the version last; raises `Unfit` with the column that has a bad value."""
        shape = self._shaped()
        rows = [entry.row for entry in entries]
        columns = zip(shape.names, columns_of(rows, shape.names), strict=True)
        taken = {name: self._column(shape, name, rows, values, None) for name, values in columns}
        made = [packed(name, shape.packs[name], values) for name, values in taken.items()]
        made.append(shape.packed_versions(entries, taken))
        return Body(shape, native_block(shape.columns, len(rows), made))

    def _column(
        self, shape: Shape, name: str, rows: Sequence[Row], values: list[Any], bad: dict[int, Refusal] | None
    ) -> Sequence[Any]:
        """All values of a column at once, or each by itself where that says no (and always, one by one).

        Raises `Unfit`, or notes in `bad` by their place those rows that have a bad value, where it is given.
        """
        whole = shape.wholes.get(name)
        if whole is not None and not self.one_by_one:
            with suppress(*DOUBTS):
                return whole(values)
        taken = []
        for place, (row, value) in enumerate(zip(rows, values, strict=True)):
            try:
                taken.append(shape.takers[type(row)][name](value))
            except Unfit as unfit:
                if bad is None:
                    raise Unfit(unfit.reason, unfit.code, name) from None
                bad.setdefault(place, unfit.refusal(name))
        return taken

    def _sieve(self, entries: Sequence[Entry], _outcome: Refused | None = None) -> Mapping[int, Refusal]:
        """All rows with a value that does not fit, by the first such column; a server's verdict is found by halving."""
        shape = self._shaped()
        rows = [entry.row for entry in entries]
        bad: dict[int, Refusal] = {}
        for name, values in zip(shape.names, columns_of(rows, shape.names), strict=True):
            self._column(shape, name, rows, values, bad)
        for place, entry in enumerate(entries):
            if place not in bad:
                try:
                    shape.versions([entry])
                except Unfit as unfit:
                    bad[place] = unfit.refusal(unfit.column)
        return bad

    def _shaped(self) -> Shape:
        if self._shape is None:
            raise DestinationFault("08003", f"{self.settings.name} was not opened")
        return self._shape
