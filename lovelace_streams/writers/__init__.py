"""What a writer is: the one contract that Postgres, ClickHouse and memory keep (tests/contract holds them to it).

A writer writes blocks of rows so that for any records, any cut and any path the table and the refusals are those of
the writer that writes one by one (law 8). It tells refusals (values) from faults (exceptions) and never retries: who
waits is `resilience`'s business.
"""

import warnings
from collections.abc import Hashable, Iterator, Sequence
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

import msgspec

from lovelace_streams.errors import DeploymentFault
from lovelace_streams.records import ITEMS_MAX, Reason
from lovelace_streams.rows.row import Row

_RENAMED = {
    "End": "RowOutcome",
    "Result": "RowResult",
    "Encodes": "SupportsEncode",
    "Evolves": "SupportsEvolution",
    "order_of": "sequence_of",
}
"""Names of version 0.1; each goes on working until version 0.3."""


def __getattr__(name: str) -> Any:
    if name not in _RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _warn(f"{__name__}.{name}", _RENAMED[name])
    return globals()[_RENAMED[name]]


def _warn(old: str, new: str) -> None:
    warnings.warn(f"{old} is called {new} now; the old name goes with version 0.3", DeprecationWarning, stacklevel=3)


class Entry(msgspec.Struct, gc=False):
    """One row to write. `only_new` (a replay): written only where that can't take a newer row's place.

    That is where its key is absent, or with a version where an older one is stored: an equal version may be newer.
    """

    row: Row
    only_new: bool = False
    sequence: int = 0
    """Its place in its partition, `sequence_of(offset, item)`: it decides between equal versions, or without a version.

    A writer with transactions goes by the order of the block; one without has it written beside the row.
    """
    same_item: bool = False
    """Of the same item as the entry before it: both are written, or neither is."""

    @property
    def order(self) -> int:
        """The old name of `sequence`."""
        _warn("Entry.order", "Entry.sequence")
        return self.sequence

    @property
    def joined(self) -> bool:
        """The old name of `same_item`."""
        _warn("Entry.joined", "Entry.same_item")
        return self.same_item


def items_of(block: Sequence[Entry]) -> list[Sequence[Entry]]:
    """The rows of each item of a block.

    >>> [len(item) for item in items_of([Entry(Row()), Entry(Row(), same_item=True), Entry(Row())])]
    [2, 1]
    """
    items: list[Any] = []
    for entry in block:
        if entry.same_item and items:
            items[-1].append(entry)
        else:
            items.append([entry])
    return items


def sequence_of(offset: int, item: int) -> int:
    """One integer that grows with the offset, and in a message with the item's number.

    >>> sequence_of(7, 0) < sequence_of(7, 1) < sequence_of(8, 0)
    True
    """
    return offset << _ITEM_BITS | item


_ITEM_BITS = ITEMS_MAX.bit_length()


class RowOutcome(StrEnum):
    """What became of a row that was not refused."""

    WRITTEN = "written"
    SUPERSEDED = "superseded"
    """Older than what is stored, or overwritten by a later row of its key in the same block."""
    SUPPRESSED = "suppressed"
    """A trigger returned nothing: neither written nor refused."""


class Refusal(msgspec.Struct, frozen=True):
    """The destination's own rules refuse this row. `rule` is the constraint's or column's name, never a value."""

    reason: Reason
    code: str
    rule: str = ""


RowResult = RowOutcome | Refusal


_RENAMED_CAPABILITIES = {
    "keeps_absent": "partial_updates",
    "tells_older": "reports_superseded",
    "rolls_back": "can_dry_run",
}


class _CapabilitiesMeta(msgspec.StructMeta):
    """Takes the old names of capabilities too, so that writers of one's own go on working."""

    def __call__(
        cls,  # noqa: N805 - of a metaclass
        *args: Any,
        **declared: Any,
    ) -> Any:
        for old in _RENAMED_CAPABILITIES.keys() & declared.keys():
            _warn(f"Capabilities({old}=…)", _RENAMED_CAPABILITIES[old])
            declared[_RENAMED_CAPABILITIES[old]] = declared.pop(old)
        return super().__call__(*args, **declared)


class Capabilities(msgspec.Struct, frozen=True, metaclass=_CapabilitiesMeta):
    """What writers differ in: whoever writes rows (`upsert`, the contract suite) asks, and knows no writer by name."""

    partial_updates: bool = True
    """An absent field keeps what is stored; else rows are replaced whole, and those that need it refused at start."""
    reports_superseded: bool = True
    """A row older than what is stored is told (`SUPERSEDED`); else it is `WRITTEN`, and the table goes on showing the
    newer one."""
    can_dry_run: bool = True
    """`dry_run` asks the destination's own rules; else it holds values against the columns' types."""
    block_rows: int = 0
    """Rows that one call should carry where a window has more than one batch; 0: a batch a call."""


class Writer(Protocol):
    """Writes rows of its tables. One thread at a time; `abort` may be called from another one."""

    rows: tuple[type[Row], ...]
    """The row classes; the first one of a table defines it, the others of it have some of its columns."""

    capabilities: Capabilities
    """`block_rows` may change when it is opened, with the real table."""

    deadline: float
    """Seconds that one call may take before it is cut off: the client's own, whatever the server does (law 5)."""

    @property
    def name(self) -> str:
        """Where it writes, for messages and labels: host, database and table, never a password."""

    def ddl(self) -> str:
        """What makes its tables."""

    def open(self) -> None:
        """Connect, compare the rows with the real table.

        Raises `DeploymentFault` (naming both sides) or `DestinationFault`. May be called again after a fault.
        """

    def write(self, block: Sequence[Entry]) -> list[RowResult]:
        """Write a block durably, isolating what is refused; one result an entry, in order.

        An item whose rows are several (`Entry.same_item`) is written as a whole or not at all: each of its rows then
        has the refusal of the one that was refused.

        Raises `DestinationFault` (then nothing is known of the block: write it again, rows are idempotent) or
        `DeploymentFault` (a code of the deployment, and no other row could be written).
        """

    def dry_run(self, block: Sequence[Entry]) -> list[RowResult]:
        """What `write` would answer, with nothing written: tried by the destination's own rules, then rolled back.

        Triggers run and are rolled back with the rest; a sequence keeps what was taken from it. Where there is nothing
        to roll back (`Capabilities.can_dry_run`), values are held against the columns' types. Raises what `write` does.
        """

    def probe(self, others: Sequence[Entry] = ()) -> bool | None:
        """Whether a row that was written before, or one of these, could be written now: tried, then rolled back.

        None where there is no such row. Raises nothing: a fault is a False.
        """

    def abort(self) -> None:
        """Shut the connection under a `write` in another thread, which then raises `DestinationFault`."""

    def close(self) -> None:
        """Let go of the connection."""


@runtime_checkable
class SupportsEncode(Protocol):
    """A writer that can make a block ready while it is writing another one."""

    def encode(self, block: Sequence[Entry]) -> Sequence[Entry]:
        """The same entries, with what was worked out of them; `write` takes either.

        Called in another thread than a `write` under way. Raises nothing: what is wrong with a row `write` tells.
        """


class Evolution(msgspec.Struct):
    """What would have to be done to tables so that they hold their rows."""

    statements: list[str] = []
    """What can be added."""
    obstacles: list[str] = []
    """What can't be, a line each."""

    @property
    def differs(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.statements or self.obstacles)

    @property
    def addable(self) -> bool:
        """Whether columns are all that is missing."""
        makes = any(statement.startswith("CREATE") for statement in self.statements)
        return bool(self.statements) and not self.obstacles and not makes


@runtime_checkable
class SupportsEvolution(Protocol):
    """A writer that can say what its tables lack, and add it."""

    evolves: bool
    """Whether `open` adds missing columns."""

    def evolution(self, *, apply: bool = False) -> Evolution:
        """What the real tables lack; with `apply` it is added, unless something can't be.

        Raises `DeploymentFault` or `DestinationFault`.
        """


def dry_run(writer: Writer, block: Sequence[Entry]) -> list[RowResult]:
    """`Writer.dry_run`, also of a writer that still calls it `rehearse`."""
    if not hasattr(writer, "dry_run") and hasattr(writer, "rehearse"):
        _warn(f"{type(writer).__name__}.rehearse", "dry_run")
        return list(writer.rehearse(block))
    return writer.dry_run(block)


def check_capabilities(writer: Writer) -> None:
    """Raises `DeploymentFault` where rows keep what is stored and the writer can't: before anything is read."""
    if writer.capabilities.partial_updates:
        return
    fields = list(_kept(writer.rows))
    if fields:
        raise DeploymentFault(
            f"{writer.name} replaces rows whole, but {', '.join(fields)} would keep what is stored where a message"
            " does not mention it: give the field a default (T | None = None), and have each class name every column"
        )


def _kept(rows: Sequence[type[Row]]) -> Iterator[str]:
    """Fields of which a row may say nothing: they may be absent, or another class of the table lacks them."""
    tables = {row: row.__table__ for row in rows}
    names = {column.name: row for row, table in tables.items() for column in table.columns}
    for row, table in tables.items():
        for column in table.columns:
            if column.nullable and column.default is msgspec.NODEFAULT:
                yield f"{row.__name__}.{column.name}"
        own = {column.name for column in table.columns}
        yield from (f"{other.__name__}.{name}" for name, other in names.items() if name not in own)


def superseded(results: Sequence[RowResult], keys: Sequence[Hashable]) -> list[RowResult]:
    """The results of a block, where of a key's written rows all but the last were overwritten by the block itself."""
    last: dict[Hashable, int] = {
        key: place
        for place, (key, result) in enumerate(zip(keys, results, strict=True))
        if result is RowOutcome.WRITTEN
    }
    return [
        RowOutcome.SUPERSEDED if result is RowOutcome.WRITTEN and last[keys[place]] != place else result
        for place, result in enumerate(results)
    ]
