"""A block whose rows are columns: what `SupportsColumns.encode_columns` takes, and any other call as rows.

A `ColumnBlock` is a sequence of entries like any block, so a writer may treat it as one; then the rows are made. What
it has beside that are the columns. Rows that came item by item lie between the slices, each in its place.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, compress, repeat
from typing import Any, NamedTuple, Protocol, overload, runtime_checkable

from lovelace_streams.columns import Columns, Part, Slice, append, count_of, row_class_of
from lovelace_streams.rows.row import Row
from lovelace_streams.writers import ITEM_BITS, Entry, sequence_of


class RowKind(NamedTuple):
    """What rows have in common that may share columns: their class, and whether they may replace stored ones."""

    row: type[Row]
    only_new: bool
    """A replay's, which may not replace a newer row."""


class ColumnBlock(Sequence[Entry]):
    """Rows to write, as slices of columns and single items of one row each, in the order read."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts
        self._entries: list[Entry] | None = None
        self._count = sum(map(count_of, parts))

    @property
    def row_classes(self) -> set[type[Row]]:
        """The classes of its rows."""
        return set(map(row_class_of, self.parts))

    @property
    def by_kind(self) -> "dict[RowKind, tuple[Sequence[int], ColumnBlock]]":
        """The rows of each class, those of replays apart, and their indexes in the block."""
        parts: dict[RowKind, list[Part]] = {}
        indexes: dict[RowKind, list[int]] = {}
        start = 0
        for part in self.parts:
            is_replay = not isinstance(part, Slice) and part.record.origin is not None
            kind, count = RowKind(row_class_of(part), is_replay), count_of(part)
            append(parts.setdefault(kind, []), part)
            indexes.setdefault(kind, []).extend(range(start, start + count))
            start += count
        if len(parts) == 1:
            [kind] = parts
            return {kind: (range(start), self)}
        return {kind: (indexes[kind], ColumnBlock(parts[kind])) for kind in parts}

    @property
    def columns(self) -> dict[str, Sequence[Any]]:
        """Field → the values of all rows. Of rows of several classes: the fields that all of them have."""
        row, *others = self.row_classes
        names = [name for name in row.__struct_fields__ if all(name in other.__struct_fields__ for other in others)]
        return {name: self.column(name) for name in names}

    def column(self, name: str) -> Sequence[Any]:
        """Return the values of a field of all rows."""
        if len(self.parts) == 1:
            return _part_of(self.parts[0], name)
        return [*chain.from_iterable([_part_of(each, name) for each in self.parts])]

    @property
    def sequences(self) -> list[int]:
        """The place of each row in its partition, as `Entry.sequence`."""
        return [*chain.from_iterable(map(_sequences_of, self.parts))]

    @property
    def classes(self) -> list[type[Row]]:
        """The class of each row."""
        return [*chain.from_iterable(repeat(row_class_of(part), count_of(part)) for part in self.parts)]

    def gathered(self) -> "ColumnBlock":
        """Return the same rows with those of the same columns side by side, for a writer that needs no order.

        Messages of several classes in turn are slices of few rows, and each costs as much as a dozen values.
        """
        together: dict[int, list[Part]] = {}
        for part in self.parts:
            append(together.setdefault(id(part.columns) if isinstance(part, Slice) else 0, []), part)
        return ColumnBlock([*chain.from_iterable(together.values())])

    def chosen(self, accepted: Sequence[bool]) -> "ColumnBlock":
        """Return some of the rows."""
        chosen: list[Part] = []
        start = 0
        for part in self.parts:
            if not isinstance(part, Slice):
                if accepted[start]:
                    chosen.append(part)
                start += 1
                continue
            for rows in part.chosen(list(compress(range(len(part)), accepted[start : start + len(part)]))):
                append(chosen, rows)
            start += len(part)
        return ColumnBlock(chosen)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | Sequence[Entry]:
        if self._entries is not None or (isinstance(index, slice) and index.step is not None):
            return self._made()[index]
        if isinstance(index, slice):
            start, stop, _ = index.indices(self._count)
            return ColumnBlock(list(self._between(start, stop)))
        return self._entry_at(index if index >= 0 else index + self._count)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._made())

    def _made(self) -> list[Entry]:
        if self._entries is None:
            self._entries = [entry for part in self.parts for entry in _entries_of(part)]
        return self._entries

    def _entry_at(self, index: int) -> Entry:
        for part in self._between(index, index + 1):
            return next(_entries_of(part))
        raise IndexError

    def _between(self, start: int, stop: int) -> Iterator[Part]:
        """Yield the parts of some consecutive rows; no row is made."""
        for part in self.parts:
            count = count_of(part)
            first, end = max(start, 0), min(stop, count)
            if first < end:
                yield Slice(part.columns, part.start + first, part.start + end) if isinstance(part, Slice) else part
            start, stop = start - count, stop - count
            if stop <= 0:
                return


class PreparedBlock(Sequence[Entry]):
    """The entries of a block; a writer's own class of it has beside them what the writer made of them ahead."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | Sequence[Entry]:
        return self.entries[index]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)


@runtime_checkable
class SupportsColumns(Protocol):
    """A writer that encodes a block from its columns, without a row being made.

    Each value is the one that the row would have; the table and the results are those of the same rows, which the
    contract suite of writers holds (tests/contract/test_writers.py).
    """

    @property
    def needs_rows(self) -> str:
        """Say why it makes a row of each item before it writes; "" if it does not. `lovelace explain` tells it.

        Then messages pass as items: rows that are made of columns cost more than those that are made at once.
        """

    def encode_columns(self, block: ColumnBlock) -> Sequence[Entry]:
        """Return the same entries, with what was computed from the columns; `write` takes either. As `encode`."""


@runtime_checkable
class SupportsEncodeAtOnce(Protocol):
    """A writer that encodes columns as soon as they are made, so that their values need not be kept."""

    def encode_at_once(self, columns: Columns) -> tuple[Any, Sequence[str]] | None:
        """Return what the writer wants to find as `columns.encoded`, and the fields whose values it needs beside it.

        None leaves the values where they are. It is called in the engine's thread, while another may be in `write`,
        and also before `open`. Raises nothing.
        """


def _part_of(part: Part, name: str) -> Sequence[Any]:
    if not isinstance(part, Slice):
        return (getattr(part.payload, name),)
    values = part.columns.column(name)
    return values if len(part) == len(values) else values[part.start : part.stop]


def _sequences_of(part: Part) -> Sequence[int]:
    if not isinstance(part, Slice):
        return (sequence_of((part.record.origin or part.record).offset, part.item),)
    columns, offsets = part.columns, part.columns.chunk.offsets
    places, ends = columns.places, columns.ends
    if ends is None:
        chosen = places[part.start : part.stop]
        if len(chosen) == len(offsets):
            return [offset << ITEM_BITS for offset in offsets]
        return [offsets[place] << ITEM_BITS for place in chosen]
    sequences: list[int] = []
    for message in range(columns.message_of(part.start), columns.message_of(part.stop - 1) + 1):
        begin, end = max(part.start, ends[message]), min(part.stop, ends[message + 1])
        offset = offsets[places[message]]
        if message in columns.lost:
            sequences += [sequence_of(offset, columns.item_of(row, message)) for row in range(begin, end)]
        else:
            first = sequence_of(offset, begin - ends[message])
            sequences += range(first, first + end - begin)
    return sequences


def _entries_of(part: Part) -> Iterator[Entry]:
    if isinstance(part, Slice):
        offsets = part.columns.chunk.offsets
        for place, item, row in part.columns.rows(part.start, part.stop):
            yield Entry(row, False, sequence_of(offsets[place], item))
    else:
        origin = part.record.origin
        yield Entry(part.payload, origin is not None, sequence_of((origin or part.record).offset, part.item))
