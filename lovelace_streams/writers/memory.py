"""A writer that keeps its table in a dict: for tests of flows without a server; the same contract, the same results."""

from collections.abc import Callable, Sequence
from typing import Any

from lovelace_streams.records import Reason
from lovelace_streams.rows import UNSET, Row
from lovelace_streams.writers import Capabilities, End, Entry, Refusal, Result, superseded

Check = Callable[[dict[str, Any]], bool]
"""Whether a row, as it would be stored, is accepted."""


class MemoryWriter:
    """Upserts into `.table`, a dict from key (a tuple) to columns.

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
        self.checks = [check] if callable(check) else list(check or ())
        self.table: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._wrote = False

    @property
    def name(self) -> str:
        """`memory/table`."""
        return f"memory/{self.declared.name}"

    def open(self) -> None:
        """Nothing to connect to."""

    def write(self, block: Sequence[Entry]) -> list[Result]:
        """Write a block; see `Writer.write`. Raises nothing."""
        outcomes = [self._write(entry) for entry in block]
        self._wrote = self._wrote or End.WRITTEN in outcomes
        return superseded(outcomes, [self._key(entry.row) for entry in block])

    def rehearse(self, block: Sequence[Entry]) -> list[Result]:
        """Write a block to a copy; see `Writer.rehearse`."""
        before, wrote = dict(self.table), self._wrote
        try:
            return self.write(block)
        finally:
            self.table.clear()
            self.table.update(before)
            self._wrote = wrote

    def probe(self, others: Sequence[Entry] = ()) -> bool | None:
        """True, once a row was written or one of these would be."""
        return True if self._wrote or others else None

    def abort(self) -> None:
        """Nothing to shut."""

    def close(self) -> None:
        """The table stays, to be looked at."""

    def _key(self, row: Row) -> tuple[Any, ...]:
        return tuple(getattr(row, name) for name in self.declared.key)

    def _write(self, entry: Entry) -> Result:
        key = self._key(entry.row)
        stored = self.table.get(key)
        given = {c.name: getattr(entry.row, c.name) for c in type(entry.row).__table__.columns}
        new = (stored or {c.name: None for c in self.declared.columns}) | {
            name: value for name, value in given.items() if value is not UNSET
        }
        refusal = self._refusal(new)
        if refusal is not None:
            return refusal
        if stored is not None and self._holds_off(stored, new, only_new=entry.only_new):
            return End.SUPERSEDED
        self.table[key] = new
        return End.WRITTEN

    def _holds_off(self, stored: dict[str, Any], new: dict[str, Any], *, only_new: bool) -> bool:
        version = self.declared.version
        if version is None:
            return only_new
        return bool(stored[version] > new[version] or (only_new and stored[version] == new[version]))

    def _refusal(self, row: dict[str, Any]) -> Refusal | None:
        for column in self.declared.columns:
            if not column.nullable and row[column.name] is None:
                return Refusal(Reason.NOT_NULL, "23502", column.name)
        for check in self.checks:
            if not check(row):
                return Refusal(Reason.CHECK, "23514", getattr(check, "__name__", ""))
        return None
