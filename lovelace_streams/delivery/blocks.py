"""Join batches to blocks, one transaction each; turn the results of a block's rows into outcomes of its items.

Where a block is, `BlockState` says:

batches ─ BlockBuffer ─▶ WAITING ─ prepare ─▶ PREPARED ─ start ─▶ WRITING ─▶ finished
                            ▲                     │
                            └─ PARKED ◀───────────┘  no other row can tell an outage from a harmful row
"""

import time
from collections.abc import Container, Iterable, Iterator, Sequence
from enum import Enum
from typing import Any

from lovelace_streams.columns import Part, Slice, assignment_of, assignments_of, count_of, extend, row_class_of
from lovelace_streams.delivery.background import BackgroundCall
from lovelace_streams.records import Batch, DeadLetter, Envelope, Outcome, Reason, Settled, SkipReason, envelopes_of
from lovelace_streams.writers import (
    Entry,
    Refusal,
    RowOutcome,
    RowResult,
    SupportsEncode,
    Writer,
    sequence_of,
)
from lovelace_streams.writers.column_block import ColumnBlock, SupportsColumns

BLOCK_BYTES_MAX = 64 * 1024 * 1024
"""Bytes of the messages' values in a block of several batches: a parameter of Postgres holds less than a GiB."""

TimedResults = tuple[list[RowResult], float]
"""What a write returns: a result for each entry, and the seconds that it took."""


class BlockState(Enum):
    """Where a block is on its way."""

    WAITING = "waiting"
    """Its batches are complete; no entries are made yet."""
    PREPARED = "prepared"
    """Its entries are made, and encoded if the writer can encode ahead."""
    WRITING = "writing"
    """The background thread writes it."""
    PARKED = "parked"
    """It may hold a harmful row, and there was no other row to test the destination with."""


class Block:
    """Items that are written in one transaction, with their entries once it is prepared."""

    __slots__ = ("assignments", "batch", "call", "entries", "parts", "rows_per_item", "state")

    def __init__(self, batch: Batch[Any]) -> None:
        self.batch = batch
        self.state = BlockState.WAITING
        self.parts = batch.parts
        self.assignments = assignments_of(batch.parts)
        """The numbers of the assignments that its items were read in."""
        self.entries: Sequence[Entry] = ()
        self.rows_per_item: list[int] | None = None
        """None: each item has one row."""
        self.call: BackgroundCall[TimedResults] | None = None
        """The call that writes it, while it is `WRITING`."""

    def __len__(self) -> int:
        return self.batch.count

    def prepare(self, current: Container[int], writer: Writer) -> None:
        """Make the entries of the items whose assignment has not ended; does nothing if they are made and current."""
        if self.entries and self.is_current(current):
            return
        if self.parts is not self.batch.parts:  # it was prepared before
            self.parts = self.batch.parts
            self.assignments = assignments_of(self.parts)
        if not self.is_current(current):
            self.parts = [part for part in self.batch.parts if assignment_of(part) in current]
            self.assignments = assignments_of(self.parts)
        block = block_of(self.parts)
        if block is not None and isinstance(writer, SupportsColumns):
            self.rows_per_item = None
            self.entries = writer.encode_columns(block)
        else:
            self.parts = envelopes_of(self.parts)
            entries, self.rows_per_item = entries_of(self.parts)
            self.entries = writer.encode(entries) if isinstance(writer, SupportsEncode) else entries
        self.state = BlockState.PREPARED

    def is_current(self, current: Container[int]) -> bool:
        """Whether no assignment of its items has ended."""
        return all(number in current for number in self.assignments)

    def outcomes(self, step: str, results: Sequence[RowResult]) -> list[Settled | DeadLetter]:
        """Turn a result for each of its entries into the outcomes of its items."""
        if self.rows_per_item is None:
            return outcomes_of_parts(step, self.parts, results)
        return outcomes_of(step, self.parts, self.rows_per_item, results)

    def first_entries(self, count: int) -> Sequence[Entry]:
        """Return the rows of its first items, at most `count`; they are made when somebody asks for one."""
        first: list[Part] = []
        for part in self.parts:
            first.append(part.first(count) if isinstance(part, Slice) else part)
            count -= count_of(part)
            if count <= 0:
                break
        block = block_of(first)
        return entries_of(envelopes_of(first))[0] if block is None else block


class BlockBuffer:
    """Joins consecutive batches to blocks of at most `rows_max` items and `BLOCK_BYTES_MAX`.

    >>> from lovelace_streams.records import Record
    >>> batch = Batch([Envelope(Record("t", 0, 0, 0, 1, None, b"", [], -1, items=1), 0, None)] * 2, "rows", 0)
    >>> buffer = BlockBuffer(5)
    >>> full, rest = buffer.add([batch, batch, batch]), buffer.take()
    >>> [len(block) for block in full], [len(block) for block in rest], buffer.take()
    ([4], [2], [])
    """

    def __init__(self, rows_max: int) -> None:
        self.rows_max = rows_max
        self._batch: Batch[Any] | None = None
        self.since = 0.0
        """When the first buffered batch arrived, by the monotonic clock."""

    def __bool__(self) -> bool:
        return self._batch is not None

    def add(self, batches: Iterable[Batch[Any]]) -> list[Block]:
        """Add batches; returns the blocks that are full now. The rest waits for more."""
        full: list[Block] = []
        for batch in batches:
            if self._batch is not None and not self._has_room_for(self._batch, batch):
                full += self.take()
            if self._batch is None:  # a new list, because it grows and the batch must not
                self._batch = Batch(list(batch.parts), batch.reason, batch.size, batch.count)
                self.since = time.monotonic()
            else:
                extend(self._batch.parts, batch.parts)
                self._batch.reason = batch.reason
                self._batch.size += batch.size
                self._batch.count += batch.count
            if self._batch.count >= self.rows_max:
                full += self.take()
        return full

    def take(self) -> list[Block]:
        """Take the buffered rest as a block; an empty list if nothing is buffered."""
        batch, self._batch = self._batch, None
        return [Block(batch)] if batch is not None else []

    def _has_room_for(self, block: Batch[Any], batch: Batch[Any]) -> bool:
        return block.count + batch.count <= self.rows_max and block.size + batch.size <= BLOCK_BYTES_MAX


def without_foreign(step: str, envelopes: Sequence[Part], writer: Writer) -> tuple[Sequence[Part], list[DeadLetter]]:
    """Leave out the items with a row of a class that the writer was not given: dead letters `rule`.

    A user's function or step may make any row. No writer can say where such a row belongs, and every restart would meet
    it again.
    """
    known = frozenset(writer.rows)
    if known.issuperset([e.columns.row if isinstance(e, Slice) else e.payload.__class__ for e in envelopes]):
        return envelopes, []  # nearly always, at 40 ns an item
    own: list[Part] = []
    letters = []
    for envelope in envelopes_of(envelopes):
        rows = envelope.payload if envelope.payload.__class__ is tuple else (envelope.payload,)
        foreign = next((type(row).__name__ for row in rows if type(row) not in known), None)
        if foreign is None:
            own.append(envelope)
        else:
            detail = f"{foreign} is no row class of {writer.name}: hand it to the writer"
            letters.append(DeadLetter(envelope.record, envelope.item, 1, step, Reason.RULE, detail))
    return own, letters


def entries_of(envelopes: Sequence[Envelope[Any]]) -> tuple[list[Entry], list[int]]:
    """Make the entries of the items' rows; also returns how many rows each item has."""
    entries: list[Entry] = []
    rows_per_item = [1] * len(envelopes)
    for index, envelope in enumerate(envelopes):
        row, record = envelope.payload, envelope.record
        origin = record.origin
        sequence = sequence_of((origin or record).offset, envelope.item)
        if row.__class__ is tuple:
            rows = enumerate(row)
            entries += [Entry(one, origin is not None, sequence, same_item=n > 0) for n, one in rows]
            rows_per_item[index] = len(row)
        else:
            entries.append(Entry(row, origin is not None, sequence))
    return entries, rows_per_item


def outcomes_of(
    step: str, envelopes: Sequence[Envelope[Any]], rows_per_item: Sequence[int], results: Sequence[RowResult]
) -> list[Settled | DeadLetter]:
    """Make the outcomes of items: an item fails if one of its rows does, and is superseded if all its rows are."""
    if results.count(RowOutcome.WRITTEN) == len(results):
        return [_settled(RowOutcome.WRITTEN, list(envelopes))]
    settled: dict[RowOutcome, list[Envelope[Any]]] = {}
    letters: list[Settled | DeadLetter] = []
    for envelope, result in zip(envelopes, _by_item(rows_per_item, results), strict=True):
        if isinstance(result, RowOutcome):
            settled.setdefault(result, []).append(envelope)
        else:
            letters.append(DeadLetter(envelope.record, envelope.item, 1, step, result.reason, result.rule, result.code))
    return [_settled(outcome, items) for outcome, items in settled.items()] + letters


def outcomes_of_parts(step: str, parts: Sequence[Part], results: Sequence[RowResult]) -> list[Settled | DeadLetter]:
    """Make the outcomes of parts whose items have one row each."""
    if results.count(RowOutcome.WRITTEN) == len(results):
        return [_settled(RowOutcome.WRITTEN, list(parts))]
    settled: dict[RowOutcome, list[Part]] = {}
    letters: list[Settled | DeadLetter] = []
    start = 0
    for part in parts:
        own = results[start : start + count_of(part)]
        start += len(own)
        indexes: dict[RowOutcome, list[int]] = {}
        for index, result in enumerate(own):
            if isinstance(result, RowOutcome):
                indexes.setdefault(result, []).append(index)
                continue
            record, item = part.item_at(index) if isinstance(part, Slice) else (part.record, part.item)
            letters.append(DeadLetter(record, item, 1, step, result.reason, result.rule, result.code))
        for outcome, chosen in indexes.items():
            settled.setdefault(outcome, []).extend(part.chosen(chosen) if isinstance(part, Slice) else [part])
    return [_settled(outcome, items) for outcome, items in settled.items()] + letters


def block_of(parts: Sequence[Part]) -> ColumnBlock | None:
    """Return parts as a block of columns; None if none are columns, or if an item has several rows."""
    if Slice not in set(map(type, parts)):
        return None
    kinds = {row_class_of(part) for part in parts}
    return ColumnBlock(parts) if tuple not in kinds else None


def _by_item(rows_per_item: Sequence[int], results: Sequence[RowResult]) -> Iterable[RowResult]:
    """Give one result for each item."""
    return results if len(rows_per_item) == len(results) else _of_several(rows_per_item, results)


def _of_several(rows_per_item: Sequence[int], results: Sequence[RowResult]) -> Iterator[RowResult]:
    index = 0
    for count in rows_per_item:
        rows = results[index : index + count]
        index += count
        refusal = next((r for r in rows if isinstance(r, Refusal)), None)
        yield refusal or (rows[0] if len(set(rows)) == 1 else RowOutcome.WRITTEN)


def _settled(outcome: RowOutcome, parts: list[Any]) -> Settled | DeadLetter:
    if outcome is RowOutcome.SUPPRESSED:
        return Settled(Outcome.SKIPPED, parts, SkipReason.SUPPRESSED)
    return Settled(Outcome.WRITTEN if outcome is RowOutcome.WRITTEN else Outcome.SUPERSEDED, parts)
