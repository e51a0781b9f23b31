"""Rows as a block of columns, as a writer gets them from a chunk: what a test of blocks gives a writer both ways."""

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

from lovelace_streams.columns import Chunk, Columns, Part, Run, Slice
from lovelace_streams.records import Envelope, Origin, Record
from lovelace_streams.writers import ITEM_BITS, Entry, sequence_of
from lovelace_streams.writers.column_block import ColumnBlock, SupportsEncodeAtOnce


def column_block(entries: Sequence[Entry]) -> ColumnBlock:
    """Make a block of columns of entries of one row each, in their order.

    Entries with ascending sequences are of one chunk, with columns for each class. A replay's stays an item.
    """
    parts: list[Part] = []
    for replayed, run in groupby(entries, key=lambda entry: entry.only_new):
        same = list(run)
        parts += map(_item, same) if replayed else _slices(same)
    return ColumnBlock(parts)


def encode_at_once(block: ColumnBlock, writer: SupportsEncodeAtOnce) -> ColumnBlock:
    """Have a writer encode columns of a block as soon as they are made, as after a loop, all but every third."""
    found = {id(part.columns): part.columns for part in block.parts if isinstance(part, Slice)}
    for number, columns in enumerate(found.values()):
        if number % 3 < 2 and (encoded := writer.encode_at_once(columns)) is not None:
            values = columns.values
            columns.let_go(*encoded, lambda _, values=values: values)
    return block


def _item(entry: Entry) -> Envelope:
    offset, item = _place(entry)
    origin = Origin("T", "t", 0, offset, 0)
    return Envelope(Record("t.replay", 0, 0, 0, 1, None, b"", [], -1, origin=origin, items=1), item, entry.row)


def _slices(entries: list[Entry]) -> Iterator[Slice]:
    cuts = [n for n, (one, other) in enumerate(pairwise(entries), 1) if one.sequence >= other.sequence]
    for start, stop in pairwise([0, *cuts, len(entries)]):
        yield from _of_chunk(entries[start:stop])


def _of_chunk(entries: list[Entry]) -> Iterator[Slice]:
    offsets = sorted({_place(entry)[0] for entry in entries})
    chunk = Chunk("t", 0, 1, offsets, [None] * len(offsets), [b""] * len(offsets), [-1] * len(offsets), [])
    chunk.runs = [Run(n, n + 1, offset, offset, []) for n, offset in enumerate(offsets)]
    columns = {
        kind: _columns(chunk, [e for e in entries if type(e.row) is kind]) for kind in {type(e.row) for e in entries}
    }
    done = dict.fromkeys(columns, 0)
    for kind, rows in groupby(entries, key=lambda entry: type(entry.row)):
        start = done[kind]
        done[kind] += len(list(rows))
        yield Slice(columns[kind], start, done[kind])


def _columns(chunk: Chunk, entries: list[Entry]) -> Columns:
    kind = type(entries[0].row)
    values = {name: [getattr(entry.row, name) for entry in entries] for name in kind.__struct_fields__}
    items = {offset: [_place(e)[1] for e in same] for offset, same in groupby(entries, key=lambda e: _place(e)[0])}
    places = [list(chunk.offsets).index(offset) for offset in items]
    chunk.items = [max(items.get(offset, [0])) + 1 for offset in chunk.offsets]
    if all(numbers == [0] for numbers in items.values()):
        return Columns(chunk, kind, values, places)
    lost = {n: sorted(set(range(numbers[-1])) - set(numbers)) for n, numbers in enumerate(items.values())}
    counts = [len(numbers) for numbers in items.values()]
    return Columns(chunk, kind, values, places, counts, {n: numbers for n, numbers in lost.items() if numbers})


def _place(entry: Entry) -> tuple[int, int]:
    """Return the offset and the number of the item that a sequence is made of."""
    offset = entry.sequence >> ITEM_BITS
    return offset, entry.sequence - sequence_of(offset, 0)
