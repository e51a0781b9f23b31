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

from lovelace_streams.delivery.background import BackgroundCall
from lovelace_streams.records import Batch, DeadLetter, Envelope, Outcome, Reason, Settled, SkipReason
from lovelace_streams.writers import Entry, Refusal, RowOutcome, RowResult, SupportsEncode, Writer, sequence_of

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

    __slots__ = ("batch", "call", "entries", "envelopes", "rows_per_item", "state")

    def __init__(self, batch: Batch[Any]) -> None:
        self.batch = batch
        self.state = BlockState.WAITING
        self.envelopes = batch.envelopes
        self.entries: Sequence[Entry] = ()
        self.rows_per_item: list[int] = []
        self.call: BackgroundCall[TimedResults] | None = None
        """The call that writes it, while it is `WRITING`."""

    def __len__(self) -> int:
        return len(self.batch.envelopes)

    def prepare(self, current: Container[int], writer: Writer) -> None:
        """Make the entries of the items whose assignment has not ended; does nothing if they are made and current."""
        if self.entries and self.is_current(current):
            return
        self.envelopes = self.batch.envelopes
        if not self.is_current(current):
            self.envelopes = [e for e in self.batch.envelopes if e.record.assignment in current]
        entries, self.rows_per_item = entries_of(self.envelopes)
        self.entries = writer.encode(entries) if isinstance(writer, SupportsEncode) else entries
        self.state = BlockState.PREPARED

    def is_current(self, current: Container[int]) -> bool:
        """Whether no assignment of its items has ended."""
        return all(number in current for number in {e.record.assignment for e in self.envelopes})

    def outcomes(self, step: str, results: Sequence[RowResult]) -> list[Settled | DeadLetter]:
        """Turn a result for each of its entries into the outcomes of its items."""
        return outcomes_of(step, self.envelopes, self.rows_per_item, results)


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
                self._batch = Batch(list(batch.envelopes), batch.reason, batch.size)
                self.since = time.monotonic()
            else:
                self._batch.envelopes.extend(batch.envelopes)
                self._batch.reason = batch.reason
                self._batch.size += batch.size
            if len(self._batch.envelopes) >= self.rows_max:
                full += self.take()
        return full

    def take(self) -> list[Block]:
        """Take the buffered rest as a block; an empty list if nothing is buffered."""
        batch, self._batch = self._batch, None
        return [Block(batch)] if batch is not None else []

    def _has_room_for(self, block: Batch[Any], batch: Batch[Any]) -> bool:
        rows = len(block.envelopes) + len(batch.envelopes)
        return rows <= self.rows_max and block.size + batch.size <= BLOCK_BYTES_MAX


def without_foreign(
    step: str, envelopes: Sequence[Envelope[Any]], writer: Writer
) -> tuple[Sequence[Envelope[Any]], list[DeadLetter]]:
    """Leave out the items with a row of a class that the writer was not given: dead letters `rule`.

    A user's function or step may make any row. No writer can say where such a row belongs, and every restart would meet
    it again.
    """
    known = frozenset(writer.rows)
    if known.issuperset([envelope.payload.__class__ for envelope in envelopes]):  # nearly always, at 40 ns an item
        return envelopes, []
    own: list[Envelope[Any]] = []
    letters = []
    for envelope in envelopes:
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


def _settled(outcome: RowOutcome, envelopes: list[Envelope[Any]]) -> Settled | DeadLetter:
    if outcome is RowOutcome.SUPPRESSED:
        return Settled(Outcome.SKIPPED, envelopes, SkipReason.SUPPRESSED)
    return Settled(Outcome.WRITTEN if outcome is RowOutcome.WRITTEN else Outcome.SUPERSEDED, envelopes)
