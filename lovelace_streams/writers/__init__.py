"""The contract of a writer, which Postgres, ClickHouse and memory keep (tests/contract compares them with it).

A writer writes blocks of rows. For any records, any cut into blocks and any path, the table and the refusals are those
of the writer that writes one by one (law 8). It returns refusals as values, raises faults as exceptions, and never
retries: delivery/retry.py does.
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
    """One row to write. `only_new` (a replay): it is written only if it can't replace a newer row.

    So its key has to be absent, or its version newer than the stored one: a row of an equal version may be newer.
    """

    row: Row
    only_new: bool = False
    sequence: int = 0
    """The row's place in its partition, `sequence_of(offset, item)`: it decides between rows of equal or no version.

    A writer with transactions goes by the order of the block; one without stores it beside the row.
    """
    same_item: bool = False
    """Whether it belongs to the item of the entry before it: both are written, or neither is."""

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
    """Group the rows of a block by item.

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
    """Return one integer that grows with the offset, and within a message with the item's number.

    >>> sequence_of(7, 0) < sequence_of(7, 1) < sequence_of(8, 0)
    True
    """
    return offset << ITEM_BITS | item


ITEM_BITS = ITEMS_MAX.bit_length()
"""How many bits of a sequence are the item's."""


class RowOutcome(StrEnum):
    """The outcome of a row that was not refused."""

    WRITTEN = "written"
    SUPERSEDED = "superseded"
    """Older than the stored row, or overwritten by a later row of its key in the same block."""
    SUPPRESSED = "suppressed"
    """A trigger returned nothing: neither written nor refused."""


class Refusal(msgspec.Struct, frozen=True):
    """The destination's own rules refuse this row. `rule` is the name of the constraint or column, never a value."""

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
    """Accepts the old names of capabilities, too, so that users' own writers go on working."""

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
    """What writers differ in: `upsert` and the contract suite ask for it, and know no writer by name."""

    partial_updates: bool = True
    """An absent field keeps the stored value; else rows are replaced whole, and row classes that need it are refused
    at start."""
    reports_superseded: bool = True
    """A row older than the stored one is `SUPERSEDED`; else it is `WRITTEN`, and readers of the table still see the
    newer one."""
    older_overwrites: bool = True
    """A row without a version that is written again, after a later one of its key, overwrites that one; else what is
    stored beside each row keeps the later one."""
    can_dry_run: bool = True
    """`dry_run` tries the destination's own rules; else it checks values against the columns' types."""
    block_rows: int = 0
    """Rows that one call should carry if a window has more than one batch; 0: a batch a call."""


class Writer(Protocol):
    """Writes rows of its tables. One thread at a time; `abort` may be called from another one."""

    rows: tuple[type[Row], ...]
    """The row classes; the first one of a table defines its columns, the others have some of them."""

    capabilities: Capabilities
    """`block_rows` may change in `open`, with the real table."""

    deadline: float
    """Seconds that one call may take before the caller aborts it, whatever the server does (law 5)."""

    @property
    def name(self) -> str:
        """The destination, for messages and labels: host, database and table, never a password."""

    def ddl(self) -> str:
        """Return the statements that create its tables."""

    def open(self) -> None:
        """Connect and compare the rows with the real tables.

        Raises `DeploymentFault` (naming both sides) or `DestinationFault`. May be called again after a fault.
        """

    def write(self, block: Sequence[Entry]) -> list[RowResult]:
        """Write a block durably and isolate the refused rows; returns one result an entry, in order.

        An item of several rows (`Entry.same_item`) is written as a whole or not at all: then each of its rows has the
        refusal of the one that was refused.

        Raises `DestinationFault`: some, all or none of the rows are written; the caller writes the block again, as rows
        are idempotent. Raises `DeploymentFault`: the code is the deployment's, and no other row could be written.
        """

    def dry_run(self, block: Sequence[Entry]) -> list[RowResult]:
        """Return what `write` would return: try the destination's own rules, then roll back.

        Triggers run and are rolled back with the rest; a sequence keeps its advance. A writer that can't roll back
        (`Capabilities.can_dry_run`) checks values against the columns' types. Raises what `write` raises.
        """

    def probe(self, others: Sequence[Entry] = ()) -> bool | None:
        """Whether a row that was written before, or one of `others`, could be written now: tried, then rolled back.

        None without such a row. Raises nothing: a fault is False.
        """

    def abort(self) -> None:
        """Shut the connection under a `write` in another thread, which then raises `DestinationFault`."""

    def close(self) -> None:
        """Close the connection."""


@runtime_checkable
class SupportsEncode(Protocol):
    """A writer that can prepare a block while it writes another one."""

    def encode(self, block: Sequence[Entry]) -> Sequence[Entry]:
        """Return the same entries, with what was computed from them; `write` takes either.

        The caller may be in `write` in another thread meanwhile. Raises nothing: `write` returns a bad row's refusal.
        """


@runtime_checkable
class SupportsStored(Protocol):
    """A writer that can tell whether a failed item is written all the same."""

    def stored(self, item: Sequence[Entry]) -> bool:
        """Whether all rows of an item are stored, by key and version, although a write of it failed.

        Raises `DestinationFault`.
        """


class Evolution(msgspec.Struct):
    """The changes that tables need to hold their rows."""

    statements: list[str] = []
    """DDL for the changes that can be made: tables, columns, labels and listed values to add."""
    obstacles: list[str] = []
    """A line for each change that can't be made."""

    @property
    def differs(self) -> bool:
        """Whether the tables need any change."""
        return bool(self.statements or self.obstacles)

    @property
    def addable(self) -> bool:
        """Whether all that is missing belongs to tables that are there."""
        makes = any(statement.startswith("CREATE") for statement in self.statements)
        return bool(self.statements) and not self.obstacles and not makes


@runtime_checkable
class SupportsEvolution(Protocol):
    """A writer that can find the columns that its tables lack, and add them."""

    evolves: bool
    """Whether `open` adds missing columns."""

    def evolution(self, *, apply: bool = False) -> Evolution:
        """Compare the real tables with the rows; with `apply`, run its statements unless there is an obstacle.

        Raises `DeploymentFault` or `DestinationFault`.
        """


@runtime_checkable
class SupportsNotes(Protocol):
    """A writer that has something to say of its tables which is no fault."""

    def notes(self) -> list[str]:
        """Return a line for each thing that `lovelace check` should say of the open tables."""


@runtime_checkable
class SupportsWays(Protocol):
    """A writer that can say how it writes."""

    def ways(self) -> list[tuple[str, str]]:
        """Return the ways that a block may be written, and when each is taken: the quickest first.

        It says what follows from the declarations alone; it connects to nothing.
        """


def dry_run(writer: Writer, block: Sequence[Entry]) -> list[RowResult]:
    """Call `Writer.dry_run`, or the `rehearse` of a writer that still has the old name."""
    if not hasattr(writer, "dry_run") and hasattr(writer, "rehearse"):
        _warn(f"{type(writer).__name__}.rehearse", "dry_run")
        return list(writer.rehearse(block))
    return writer.dry_run(block)


def check_capabilities(writer: Writer) -> None:
    """Raise `DeploymentFault` if rows need `partial_updates` and the writer can't: before anything is read."""
    if writer.capabilities.partial_updates:
        return
    fields = list(_fields_left_out(writer.rows))
    if fields:
        raise DeploymentFault(
            f"{writer.name} replaces rows whole, but {', '.join(fields)} would keep what is stored where a message"
            " does not mention it: give the field a default (T | None = None), and have each class name every column"
        )


def _fields_left_out(rows: Sequence[type[Row]]) -> Iterator[str]:
    """Yield fields that a row may leave out: they may be absent, or another class of the table lacks them."""
    tables = {row: row.__table__ for row in rows}
    names = {column.name: row for row, table in tables.items() for column in table.columns}
    for row, table in tables.items():
        for column in table.columns:
            if column.nullable and column.default is msgspec.NODEFAULT:
                yield f"{row.__name__}.{column.name}"
        own = {column.name for column in table.columns}
        yield from (f"{other.__name__}.{name}" for name, other in names.items() if name not in own)


def attributes_of(rows: Sequence[type[Row]]) -> dict[str, str]:
    """Return the field that holds each column of the row classes of one table.

    Raises `TypeError` if two classes have two fields for a column.
    """
    attributes: dict[str, str] = {}
    for row in rows:
        for name, attribute in row.__table__.attributes.items():
            if attributes.setdefault(name, attribute) != attribute:
                first = next(other.__name__ for other in rows if name in other.__table__.attributes)
                raise TypeError(
                    f"column {name!r} is {first}.{attributes[name]} and {row.__name__}.{attribute}: give both one name"
                )
    return attributes


def superseded(results: Sequence[RowResult], keys: Sequence[Hashable]) -> list[RowResult]:
    """Return a block's results with the written rows that a later row of the block overwrote marked as superseded."""
    last: dict[Hashable, int] = {
        key: index
        for index, (key, result) in enumerate(zip(keys, results, strict=True))
        if result is RowOutcome.WRITTEN
    }
    return [
        RowOutcome.SUPERSEDED if result is RowOutcome.WRITTEN and last[keys[index]] != index else result
        for index, result in enumerate(results)
    ]
