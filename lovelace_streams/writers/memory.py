"""A writer that keeps its table in a dict: for tests of flows without a server; the same contract, the same results."""

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import UNSET

from lovelace_streams.records import Reason
from lovelace_streams.rows.declaration import Table
from lovelace_streams.rows.row import Row
from lovelace_streams.writers import Capabilities, Entry, Refusal, RowOutcome, RowResult, items_of, superseded

Check = Callable[[dict[str, Any]], bool]
"""Whether a row, as it would be stored, is accepted."""
Stored = dict[tuple[Any, ...], dict[str, Any]]
"""Key → columns."""


class MemoryWriter:
    """Upserts into `.table`, a dict from key (a tuple) to columns; `.tables` has them by name where there are several.

    `check`: callables that see a row as it would be stored; a false answer refuses it with the reason `check`, the code
    23514 and the callable's name as the rule. A column that is neither nullable nor given is refused as `not_null`.
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
        self.tables: dict[str, Stored] = {row.__table__.name: {} for row in rows}
        self._wrote = False

    @property
    def name(self) -> str:
        """`memory/table`."""
        return f"memory/{'+'.join(self.tables)}"

    @property
    def table(self) -> Stored:
        """The table, or the first one's."""
        return next(iter(self.tables.values()))

    def ddl(self) -> str:
        """A dict needs nothing."""
        return ""

    def open(self) -> None:
        """Nothing to connect to."""

    def write(self, block: Sequence[Entry]) -> list[RowResult]:
        """Write a block; see `Writer.write`. Raises nothing."""
        results = [end for item in items_of(block) for end in self._write(item)]
        self._wrote = self._wrote or RowOutcome.WRITTEN in results
        return superseded(results, [(type(entry.row).__table__.name, self._key(entry.row)) for entry in block])

    def dry_run(self, block: Sequence[Entry]) -> list[RowResult]:
        """Write a block and take it back; see `Writer.dry_run`."""
        before, wrote = self._copy(), self._wrote
        try:
            return self.write(block)
        finally:
            self._restore(before)
            self._wrote = wrote

    def probe(self, others: Sequence[Entry] = ()) -> bool | None:
        """True, once a row was written or one of these would be."""
        return True if self._wrote or others else None

    def abort(self) -> None:
        """Nothing to shut."""

    def close(self) -> None:
        """The table stays, to be looked at."""

    def _copy(self) -> dict[str, Stored]:
        return {name: dict(table) for name, table in self.tables.items()}

    def _restore(self, before: dict[str, Stored]) -> None:
        for name, table in self.tables.items():
            table.clear()
            table.update(before[name])

    @staticmethod
    def _key(row: Row) -> tuple[Any, ...]:
        return tuple(getattr(row, name) for name in type(row).__table__.key)

    def _write(self, item: Sequence[Entry]) -> list[RowResult]:
        """All rows of an item, or none."""
        before = self._copy() if len(item) > 1 else {}
        ends = [self._write_row(entry) for entry in item]
        refusal = next((end for end in ends if isinstance(end, Refusal)), None)
        if refusal is None or len(item) == 1:
            return ends
        self._restore(before)
        return [refusal] * len(item)

    def _write_row(self, entry: Entry) -> RowResult:
        declared = self._declared[type(entry.row).__table__.name]
        table, key = self.tables[declared.name], self._key(entry.row)
        stored = table.get(key)
        given = {c.name: getattr(entry.row, c.name) for c in type(entry.row).__table__.columns}
        new = (stored or {c.name: None for c in declared.columns}) | {
            name: value for name, value in given.items() if value is not UNSET
        }
        refusal = self._refusal(declared, new)
        if refusal is not None:
            return refusal
        if stored is not None and _holds_off(declared, stored, new, only_new=entry.only_new):
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


def _holds_off(declared: Table, stored: dict[str, Any], new: dict[str, Any], *, only_new: bool) -> bool:
    version = declared.version
    if version is None:
        return only_new
    return bool(stored[version] > new[version] or (only_new and stored[version] == new[version]))
