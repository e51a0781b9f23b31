"""ClickHouse: whole rows into a ReplacingMergeTree, in large blocks; refused rows are isolated.

What a table has to be, and why one integer decides which row is the last: docs/decisions/0008-clickhouse.md.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from operator import attrgetter
from typing import Any

import structlog

from lovelace_streams.errors import DeploymentFault, DestinationFault, LovelaceError
from lovelace_streams.records import Reason
from lovelace_streams.rows.row import Row
from lovelace_streams.settings import ClickHouseSettings
from lovelace_streams.writers import Capabilities, Entry, Refusal, RowOutcome, RowResult, attributes_of, items_of
from lovelace_streams.writers.clickhouse.catalog import inspect, qualified_name
from lovelace_streams.writers.clickhouse.client import Connection, connect
from lovelace_streams.writers.clickhouse.column_checks import INCONCLUSIVE
from lovelace_streams.writers.clickhouse.encoding import BlockEncoder, EncodedBlock, InsertBody, SplitBlock
from lovelace_streams.writers.clickhouse.faults import (
    BLOCK_LIMITS,
    BODY_TOO_LARGE,
    CONNECTION_LOST,
    TIMEOUT,
    TOO_MANY_PARTS,
    TYPE_MISMATCH,
    ColumnValueError,
    code_of,
    constraint_in,
    fault_of,
    reason_of,
)
from lovelace_streams.writers.clickhouse.stored import are_stored
from lovelace_streams.writers.column_block import ColumnBlock
from lovelace_streams.writers.isolation import Refused, isolate_refused

log = structlog.get_logger(__name__)

NOT_CONNECTED = "08003"
VIEW_HINT = "the row is in the table; a materialized view refused it, and lacks it: CLICKHOUSE_VIEWS=refuse allows none"
PROBE_ITEMS = 2
"""Other items that `probe` tries, beside the row that was last written."""


class ClickHouseWriter:
    """Inserts whole rows of one table, as `lovelace_streams.writers.Writer` says; the table replaces older ones.

    All `rows` are classes of one table, with one key and one version; else `TypeError`. `one_by_one` inserts each item
    by itself: the oracle that blocks are compared with. A restart writes rows again, which changes nothing: they have
    the version that they had.
    """

    def __init__(self, settings: ClickHouseSettings, *rows: type[Row], one_by_one: bool = False) -> None:
        if not rows:
            raise TypeError("ClickHouseWriter needs a row class: ClickHouseWriter(settings, Message)")
        self.rows = rows
        self.table = rows[0].__table__
        self.settings = settings
        self.deadline = settings.write_seconds + 1  # the server's own max_execution_time comes first, if it can
        self.capabilities = Capabilities(
            can_dry_run=False,
            partial_updates=False,
            reports_superseded=False,
            older_overwrites=False,
            block_rows=settings.block_rows,
        )
        self.one_by_one = one_by_one
        for row in rows[1:]:
            other = row.__table__
            if (other.name, other.key, other.version) != (self.table.name, self.table.key, self.table.version):
                raise TypeError(f"{row.__name__} and {rows[0].__name__} differ in table, primary key or version")
        attributes = attributes_of(rows)
        self._key_attributes = [attributes[name] for name in self.table.key]
        self._connection: Connection | None = None
        self._encoder: BlockEncoder | None = None
        self._last_written: Entry | None = None

    @property
    def name(self) -> str:
        """`http://host/database/table`, without credentials."""
        return f"{self.settings.name}/{self.table.name}"

    # -- connection --------------------------------------------------------------------------------------------------

    def ddl(self) -> str:
        """Return the `CREATE TABLE` of its table."""
        from lovelace_streams.writers.clickhouse.ddl import create_table

        return create_table(*self.rows)

    def ways(self) -> list[tuple[str, str]]:
        """Return how blocks are inserted; see `SupportsWays`."""
        if self.one_by_one:
            return [("an insert an item", "always: one_by_one=True")]
        most = self.settings.block_rows
        return [
            ("Native block", f"one insert of a whole block, of up to {most} rows"),
            ("Native blocks in halves", "where the server refuses a block, until its refused rows are found"),
        ]

    def open(self) -> None:
        """Connect and compare the rows with the real table. Raises `DestinationFault` or `DeploymentFault`."""
        self.close()
        with self._faults():
            connection = self._connection = connect(self.settings)
            way_out = "compare with `lovelace ddl FLOW`"
            schema = inspect(connection.client, self.table, self.rows, self.settings.name, way_out)
        self._check_views(schema.views)
        self._encoder = BlockEncoder(schema, one_by_one=self.one_by_one)
        if not schema.durable and "insert_quorum" not in self.settings.dsn:
            hint = "a loss of power may lose settled rows; fsync_after_insert = 1 on the table, or insert_quorum"
            log.warning("fsync_after_insert_off", writer=self.name, hint=hint)

    def _check_views(self, views: Sequence[str]) -> None:
        if views and self.settings.views == "refuse":
            raise DeploymentFault(
                f"{self.rows[0].__name__} ↔ table {self.table.name} at {self.settings.name}: CLICKHOUSE_VIEWS=refuse,"
                f" and materialized views depend on it ({', '.join(views)}): what one of them refuses would be in"
                " the table and not in the view; drop them, or accept that"
            )

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Turn what the driver raises outside of a block into a fault; the driver's texts are not shown (law 10)."""
        from clickhouse_connect.driver.exceptions import ClickHouseError

        try:
            yield
        except ClickHouseError as error:
            code = self._code_of(error)
            if code in (CONNECTION_LOST, TIMEOUT) or fault_of(code) == "destination":
                raise DestinationFault(code, f"from {self.settings.name}") from None
            raise self._deployment_fault(code) from None
        except (LovelaceError, ColumnValueError):
            raise
        except Exception as error:  # noqa: BLE001 - what is no ClickHouse answers anything, and the driver reads it
            raise DestinationFault(
                CONNECTION_LOST, f"{self.settings.name} answers something else ({type(error).__name__})"
            ) from None

    def _code_of(self, error: Exception) -> str:
        return code_of(error, self._connection.status if self._connection is not None else 0)

    def _deployment_fault(self, code: str) -> DeploymentFault:
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
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    # -- writing -----------------------------------------------------------------------------------------------------

    def encode(self, block: Sequence[Entry]) -> EncodedBlock:
        """Prepare a block without the connection, while another thread may be in `write`; see `SupportsEncode`.

        Checking, packing and looking for repeated keys is 4/5 of what the call costs Python.
        """
        encoded = EncodedBlock(block)
        encoder = self._encoder
        if block and encoder is not None and not self.one_by_one:
            encoded.has_distinct_keys = self._keys_are_distinct(block)
            try:
                encoded.body = encoder.encode(block)
            except ColumnValueError:  # of a row `write` meets the bad value again, and isolates it
                if isinstance(block, ColumnBlock):
                    encoded.split = self._split(block, encoder)
            except INCONCLUSIVE:
                pass
        return encoded

    @property
    def needs_rows(self) -> str:
        """Return nothing; see `SupportsColumns`."""
        return ""

    def encode_columns(self, block: ColumnBlock) -> EncodedBlock:
        """Do the same for a block of columns: no row is made. See `SupportsColumns`."""
        return self.encode(block)

    def _split(self, block: ColumnBlock, encoder: BlockEncoder) -> SplitBlock | None:
        """Take the rows with a bad value out of a block, which stays columns; None if none is found."""
        refusals = encoder.find_bad_values(block)
        left = block.chosen([index not in refusals for index in range(len(block))])
        return SplitBlock(encoder.schema, refusals, self.encode(left)) if refusals else None

    def write(self, block: Sequence[Entry]) -> list[RowResult]:
        """Write a block durably; see `Writer.write`."""
        if not block:
            return []
        encoded = block if isinstance(block, EncodedBlock) else EncodedBlock(block)
        if encoded.split is not None and encoded.split.schema is self._opened().schema:
            written = iter(self.write(encoded.split.left))
            refusals = encoded.split.refusals
            return [refusals[index] if index in refusals else next(written) for index in range(len(block))]
        outcomes = self._write_items(encoded.entries, encoded.body)
        results = self._judge(outcomes)
        if any(isinstance(outcome, Refused) and outcome.sent for outcome in outcomes):
            results = self._look_for_refused(encoded.entries, outcomes, results)
        if RowOutcome.WRITTEN in results:
            self._last_written = encoded.entries[results.index(RowOutcome.WRITTEN)]
        if encoded.has_distinct_keys or self._keys_are_distinct(encoded.entries):
            return results
        return self._mark_superseded(encoded.entries, results)

    def dry_run(self, block: Sequence[Entry]) -> list[RowResult]:
        """Check values against the columns' types; the table's CHECKs are not tried, as nothing can be rolled back."""
        refusals = self._opened().find_bad_values(block)
        return [refusals.get(index, RowOutcome.WRITTEN) for index in range(len(block))]

    def probe(self, others: Sequence[Entry] = ()) -> bool | None:
        """Whether the row that was last written, or one of the first other items, can be written now.

        It is written: there is nothing to roll back in ClickHouse, and a row that is written twice is one row. None
        without any row to try.
        """
        last = [[self._last_written]] if self._last_written is not None else []
        candidates = [*last, *items_of(others)[:PROBE_ITEMS]]
        for candidate in candidates:
            try:
                if not isinstance(self._attempt(candidate), Refused):
                    return True
            except (DestinationFault, DeploymentFault):
                continue
        return False if candidates else None

    def _attempt(
        self, entries: Sequence[Entry], body: InsertBody | None = None, more: Mapping[str, Any] | None = None
    ) -> list[RowOutcome] | Refused:
        """Write all entries in one insert, or none. Raises `DestinationFault`.

        `body` is what `encode` made of them, `more` are settings of this insert.
        """
        from clickhouse_connect.driver.exceptions import ClickHouseError

        try:
            # a body made before the table was opened again is made again: the table may be another one
            is_current = body is not None and self._encoder is not None and body.schema is self._encoder.schema
            self._insert(body if body is not None and is_current else self._opened().encode(entries), more or {})
        except ColumnValueError as error:
            return Refused(error.refusal(error.column))
        except ClickHouseError as error:
            return self._refused(error)
        return [RowOutcome.WRITTEN] * len(entries)

    def _insert(self, body: InsertBody, more: Mapping[str, Any]) -> None:
        """Make one insert; raises `DestinationFault` without a connection, and what the driver raises."""
        if self._connection is None:
            raise DestinationFault(NOT_CONNECTED, f"not connected to {self.settings.name}")
        self._connection.insert(
            qualified_name(self.table),
            list(body.schema.columns),
            body.native,
            {
                "async_insert": 0,
                "input_format_skip_unknown_fields": 0,  # a column that the table lacks is an error, not left out
                "wait_end_of_query": 1,
                "max_execution_time": max(1, int(self.settings.write_seconds)),
                **more,
            },
        )

    def _opened(self) -> BlockEncoder:
        if self._encoder is None:
            raise DestinationFault(NOT_CONNECTED, f"{self.settings.name} was not opened")
        return self._encoder

    # -- isolation ---------------------------------------------------------------------------------------------------

    def _write_items(self, block: Sequence[Entry], body: InsertBody | None) -> Sequence[RowOutcome | Refused]:
        """Write a block; one outcome a row. An item's rows are written together or not at all."""
        if self.one_by_one:
            items = items_of(block)
            outcomes = [isolate_refused([item], self._attempt_items)[0] for item in items]
        else:
            whole = self._attempt(block, body)
            if not isinstance(whole, Refused):  # as a rule; which rows are one item's does not matter then
                return whole
            items = items_of(block)
            first_attempt = [self._of_items(items, whole)]  # not tried again: a refused item on its own is one insert

            def attempt(some: Sequence[Sequence[Entry]]) -> list[RowOutcome] | Refused:
                return first_attempt.pop() if first_attempt else self._attempt_items(some)

            outcomes = isolate_refused(items, attempt, self._find_violations)
        return [outcome for item, outcome in zip(items, outcomes, strict=True) for _ in item]

    def _attempt_items(self, items: Sequence[Sequence[Entry]]) -> list[RowOutcome] | Refused:
        outcome = self._attempt([entry for item in items for entry in item])
        return self._of_items(items, outcome) if isinstance(outcome, Refused) else [RowOutcome.WRITTEN] * len(items)

    def _of_items(self, items: Sequence[Sequence[Entry]], refused: Refused) -> list[RowOutcome] | Refused:
        """Return what the refusal of an insert says of these items. Raises `DestinationFault`.

        A limit that several items exceed is the block's, and isolation cuts it. A single item that exceeds it, too, was
        too large for a proxy, or the limit is no block's but the server's.
        """
        code = refused.refusal.code
        if len(items) > 1 or not refused.limit or code == BODY_TOO_LARGE:
            return refused
        if code == TOO_MANY_PARTS and len(items[0]) > 1:
            return self._attempt_in_any_partitions(items[0])
        raise DestinationFault(code, f"from {self.settings.name}")

    def _attempt_in_any_partitions(self, item: Sequence[Entry]) -> list[RowOutcome] | Refused:
        """Write an item that has rows in more partitions than one insert may have.

        An item is not cut, so the limit is lifted, where the server allows it. Raises `DestinationFault`.
        """
        outcome = self._attempt(item, more={"max_partitions_per_insert_block": 0})
        if not isinstance(outcome, Refused):
            return [RowOutcome.WRITTEN]
        if outcome.limit or fault_of(outcome.refusal.code) == "deployment":
            raise DestinationFault(TOO_MANY_PARTS, f"from {self.settings.name}")
        return outcome

    def _find_violations(self, items: Sequence[Sequence[Entry]], _refused: Refused) -> Mapping[int, Refusal]:
        """Find items of one row with a bad value; what the server refused is found by halving.

        An item of several rows is left to halving, too: its refusal names the first column with a bad value of all its
        rows, which is what one insert of the item says.
        """
        single = [index for index, item in enumerate(items) if len(item) == 1]
        found = self._opened().find_bad_values([items[index][0] for index in single])
        return {single[index]: refusal for index, refusal in found.items()}

    def _refused(self, error: Exception) -> Refused:
        """Return what the driver's error says of an attempt. Raises `DestinationFault`."""
        from clickhouse_connect.driver.exceptions import DataError

        if isinstance(error, DataError):  # the client could not pack a value
            return Refused(Refusal(Reason.BAD_VALUE, TYPE_MISMATCH))
        code = self._code_of(error)
        if code in (CONNECTION_LOST, TIMEOUT):
            raise DestinationFault(code, f"from {self.settings.name}") from None
        if code in BLOCK_LIMITS:
            return Refused(Refusal(reason_of(code), code), limit=True, sent=code != BODY_TOO_LARGE)
        fault = fault_of(code)
        if fault == "destination":
            raise DestinationFault(code, f"from {self.settings.name}") from None
        rule = constraint_in(error, code, self._opened().schema.constraints)
        return Refused(Refusal(reason_of(code), code, rule), suspect=fault != "record", sent=True)

    def _judge(self, outcomes: Sequence[RowOutcome | Refused]) -> list[RowResult]:
        """Turn outcomes into results. Raises `DeploymentFault`.

        A code that may be the deployment's is the record's if another row of the block, or a probe, was accepted.
        """
        if outcomes.count(RowOutcome.WRITTEN) == len(outcomes):
            return [RowOutcome.WRITTEN] * len(outcomes)
        suspects = [outcome for outcome in outcomes if isinstance(outcome, Refused) and outcome.suspect]
        if suspects and all(isinstance(outcome, Refused) for outcome in outcomes):
            deployment = [o.refusal.code for o in suspects if fault_of(o.refusal.code) == "deployment"]
            if deployment and not self.probe():
                raise self._deployment_fault(deployment[0])
        return [outcome.refusal if isinstance(outcome, Refused) else outcome for outcome in outcomes]

    # -- refused, and written all the same ---------------------------------------------------------------------------

    def _look_for_refused(
        self, block: Sequence[Entry], outcomes: Sequence[RowOutcome | Refused], results: list[RowResult]
    ) -> list[RowResult]:
        """Return the results with refused items that are stored as written: a refusal may be a view's."""
        looked_for: list[RowResult] = []
        at = 0
        for item in items_of(block):
            outcome, refusal = outcomes[at], results[at]
            was_sent = isinstance(outcome, Refused) and outcome.sent
            stored = was_sent and self.stored(item)
            if stored and isinstance(refusal, Refusal):
                log.warning("refused_and_stored", writer=self.name, code=refusal.code, hint=VIEW_HINT)
            looked_for += [RowOutcome.WRITTEN] * len(item) if stored else results[at : at + len(item)]
            at += len(item)
        return looked_for

    def stored(self, item: Sequence[Entry]) -> bool:
        """Whether all rows of an item are in the table, although an insert of it failed. Raises `DestinationFault`.

        False if the table can't be asked, because the login may only insert.
        """
        try:
            with self._faults():
                if self._connection is None:
                    raise DestinationFault(NOT_CONNECTED, f"not connected to {self.settings.name}")
                return are_stored(self._connection.client, self.table, self._opened().schema, item)
        except ColumnValueError:
            return False
        except DeploymentFault as fault:
            log.warning("stored_rows_unknown", writer=self.name, code=fault.code)
            return False

    # -- superseded --------------------------------------------------------------------------------------------------

    def _keys_are_distinct(self, block: Sequence[Entry]) -> bool:
        """Whether one column of the key alone shows that no two rows have one key, as it does for most blocks."""
        columns = self._key_columns(block)
        with suppress(TypeError):  # a value that can't be hashed has none of a key's types, and will be refused
            return any(len(set(values)) == len(block) for values in columns)
        return False

    def _key_columns(self, block: Sequence[Entry]) -> Iterator[Sequence[Any]]:
        """Yield the columns of the key; each is made when it is asked for."""
        if isinstance(block, ColumnBlock):
            return map(block.column, self._key_attributes)
        rows = [entry.row for entry in block]
        return (list(map(attrgetter(name), rows)) for name in self._key_attributes)

    def _mark_superseded(self, block: Sequence[Entry], results: list[RowResult]) -> list[RowResult]:
        """Mark all of a key's written rows but the one with the highest version. Rows stored before are not known."""
        keys = list(zip(*self._key_columns(block), strict=True))
        written = [index for index, result in enumerate(results) if result is RowOutcome.WRITTEN]
        if len({keys[index] for index in written}) == len(written):
            return results
        encoder = self._opened()
        versions = encoder.schema.versions.numbers(encoder.columns(block).chosen(written))
        highest: dict[Any, tuple[int, int]] = {}
        for index, version in zip(written, versions, strict=True):
            rank = version, index
            highest[keys[index]] = max(highest.get(keys[index], rank), rank)
        visible = {index for _, index in highest.values()}
        return [
            RowOutcome.SUPERSEDED if result is RowOutcome.WRITTEN and index not in visible else result
            for index, result in enumerate(results)
        ]
