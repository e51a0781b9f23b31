"""A writer that keeps its tables in dicts, for tests of flows without a server: same contract, same results."""

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import UNSET

from lovelace_streams.records import Reason
from lovelace_streams.rows.declaration import Table
from lovelace_streams.rows.row import Row
from lovelace_streams.writers import Capabilities, Entry, Refusal, RowOutcome, RowResult, items_of, superseded
from lovelace_streams.writers.column_block import ColumnBlock

Check = Callable[[dict[str, Any]], bool]
"""Whether a row, as it would be stored, is accepted."""
StoredRows = dict[tuple[Any, ...], dict[str, Any]]
"""Key → columns."""


class MemoryWriter:
    """Upserts into `.table`, a dict from key (a tuple) to columns; `.tables` has all tables by name.

    `check`: callables that are given a row as it would be stored. If one returns false, the row is refused with the
    reason `check`, the code 23514 and the callable's name as the rule. A row without a value for a column that is not
    nullable is refused as `not_null`. A restart begins with empty tables.
    """

    def __init__(self, *rows: type[Row], check: Check | Sequence[Check] | None = None) -> None:
        if not rows:
            raise TypeError("MemoryWriter needs a row class: MemoryWriter(Member)")
        self.rows = rows
        self.deadline = 30.0
        self.capabilities = Capabilities()
        self.declared = rows[0].__table__
        self._declared = {row.__table__.name: row.__table__ for row in reversed(rows)}  # the first one of a table
        self.checks = [check] if callable(check) else list(check or ())
        self.tables: dict[str, StoredRows] = {row.__table__.name: {} for row in rows}
        self._wrote = False

    @property
    def name(self) -> str:
        """`memory/table`."""
        return f"memory/{'+'.join(self.tables)}"

    @property
    def table(self) -> StoredRows:
        """The first table."""
        return next(iter(self.tables.values()))

    def ddl(self) -> str:
        """Return nothing: a dict needs no DDL."""
        return ""

    def ways(self) -> list[tuple[str, str]]:
        """Return its one way; see `SupportsWays`."""
        return [("row by row", "always, into a dict")]

    def open(self) -> None:
        """Do nothing: there is no connection."""

    def write(self, block: Sequence[Entry]) -> list[RowResult]:
        """Write a block; see `Writer.write`. Raises nothing."""
        results = [result for item in items_of(block) for result in self._write(item)]
        self._wrote = self._wrote or RowOutcome.WRITTEN in results
        return superseded(results, [(type(entry.row).__table__.name, self._key(entry.row)) for entry in block])

    @property
    def needs_rows(self) -> str:
        """Return nothing, so that tests of flows go both ways; see `SupportsColumns`."""
        return ""

    def encode_columns(self, block: ColumnBlock) -> Sequence[Entry]:
        """Return the block itself; see `SupportsColumns`. A dict has rows, which are made of the columns here."""
        return block

    def dry_run(self, block: Sequence[Entry]) -> list[RowResult]:
        """Write a block and restore the tables; see `Writer.dry_run`."""
        before, wrote = self._copy(), self._wrote
        try:
            return self.write(block)
        finally:
            self._restore(before)
            self._wrote = wrote

    def probe(self, others: Sequence[Entry] = ()) -> bool | None:
        """True once a row was written, or if there are others to write; else None."""
        return True if self._wrote or others else None

    def abort(self) -> None:
        """Do nothing: a call can't hang."""

    def close(self) -> None:
        """Keep the tables: a test looks at them."""

    def _copy(self) -> dict[str, StoredRows]:
        return {name: dict(table) for name, table in self.tables.items()}

    def _restore(self, before: dict[str, StoredRows]) -> None:
        for name, table in self.tables.items():
            table.clear()
            table.update(before[name])

    @staticmethod
    def _key(row: Row) -> tuple[Any, ...]:
        table = type(row).__table__
        return tuple(getattr(row, table.attributes[name]) for name in table.key)

    def _write(self, item: Sequence[Entry]) -> list[RowResult]:
        """Write all rows of an item, or none."""
        before = self._copy() if len(item) > 1 else {}
        results = [self._write_row(entry) for entry in item]
        refusal = next((result for result in results if isinstance(result, Refusal)), None)
        if refusal is None or len(item) == 1:
            return results
        self._restore(before)
        return [refusal] * len(item)

    def _write_row(self, entry: Entry) -> RowResult:
        declared = self._declared[type(entry.row).__table__.name]
        table, key = self.tables[declared.name], self._key(entry.row)
        stored = table.get(key)
        given = {c.name: getattr(entry.row, c.attribute) for c in type(entry.row).__table__.columns}
        new = (stored or {c.name: None for c in declared.columns}) | {
            name: value for name, value in given.items() if value is not UNSET
        }
        refusal = self._refusal(declared, new)
        if refusal is not None:
            return refusal
        if stored is not None and _is_superseded(declared, stored, new, only_new=entry.only_new):
            return RowOutcome.SUPERSEDED
        table[key] = new
        return RowOutcome.WRITTEN

    def _refusal(self, declared: Table, row: dict[str, Any]) -> Refusal | None:
        for column in declared.columns:
            if not column.nullable and row[column.name] is None:
                return Refusal(Reason.NOT_NULL, "23502", column.name)
        for check in self.checks:
            if not check(row):
                return Refusal(Reason.CHECK, "23514", getattr(check, "__name__", ""))
        return None


def _is_superseded(declared: Table, stored: dict[str, Any], new: dict[str, Any], *, only_new: bool) -> bool:
    """Whether the stored row stays: its version is higher, or not lower and the new row is a replay (`only_new`).

    Without versions every row replaces the stored one, except a replay.
    """
    version = declared.version
    if version is None:
        return only_new
    return bool(stored[version] > new[version] or (only_new and stored[version] == new[version]))
