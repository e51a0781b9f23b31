"""Batches as blocks of entries, and the results of entries as outcomes of items."""

import time
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Any

from lovelace_streams.records import Batch, DeadLetter, Envelope, Outcome, Settled, SkipReason
from lovelace_streams.writers import Entry, Refusal, RowOutcome, RowResult, SupportsEncode, Writer, sequence_of

BLOCK_BYTES = 64 * 1024 * 1024
"""Of the messages' values in a block of several batches: a parameter of Postgres holds less than a GiB."""


class Block:
    """What a batch comes to when it is written: its items that are still ours, with their rows."""

    __slots__ = ("batch", "entries", "envelopes", "spans")

    def __init__(self, batch: Batch[Any], current: Container[int], writer: Writer) -> None:
        self.batch = batch
        self.envelopes = batch.envelopes
        if not self.is_current(current):
            self.envelopes = [e for e in batch.envelopes if e.record.assignment in current]
        entries, self.spans = entries_of(self.envelopes)
        self.entries: Sequence[Entry] = writer.encode(entries) if isinstance(writer, SupportsEncode) else entries

    def is_current(self, current: Container[int]) -> bool:
        """Whether all of it is still ours."""
        return all(number in current for number in {e.record.assignment for e in self.envelopes})


class BlockBuffer:
    """Consecutive batches as blocks of up to so many items and `BLOCK_BYTES`.

    >>> from lovelace_streams.records import Record
    >>> batch = Batch([Envelope(Record("t", 0, 0, 0, 1, None, b"", [], -1, items=1), 0, None)] * 2, "rows", 0)
    >>> gathering = BlockBuffer(5)
    >>> full, rest = gathering.add([batch, batch, batch]), gathering.take()
    >>> [len(block.envelopes) for block in full], [len(block.envelopes) for block in rest], gathering.take()
    ([4], [2], [])
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._block: Batch[Any] | None = None
        self.since = 0.0
        """When what waits began to wait."""

    def __bool__(self) -> bool:
        return self._block is not None

    def add(self, batches: Iterable[Batch[Any]]) -> list[Batch[Any]]:
        """The blocks that are full now; the last one waits for more."""
        full: list[Batch[Any]] = []
        for batch in batches:
            block = self._block
            if block is not None and (
                len(block.envelopes) + len(batch.envelopes) > self.rows or block.size + batch.size > BLOCK_BYTES
            ):
                full += self.take()
            if self._block is None:  # a list of the block's own: it grows, and the batch stays as it is
                self._block = Batch(list(batch.envelopes), batch.reason, batch.size)
                self.since = time.monotonic()
            else:
                self._block.envelopes.extend(batch.envelopes)
                self._block.reason = batch.reason
                self._block.size += batch.size
            if len(self._block.envelopes) >= self.rows:
                full += self.take()
        return full

    def take(self) -> list[Batch[Any]]:
        """What waits, if anything does."""
        block, self._block = self._block, None
        return [block] if block is not None else []


def ends_of(
    step: str, envelopes: Sequence[Envelope[Any]], spans: Sequence[int], results: Sequence[RowResult]
) -> list[Settled | DeadLetter]:
    """What became of the items: one fails if one of its rows does, and is superseded if all of them are."""
    if results.count(RowOutcome.WRITTEN) == len(results):
        return [_settled(RowOutcome.WRITTEN, list(envelopes))]
    settled: dict[RowOutcome, list[Envelope[Any]]] = {}
    letters: list[Settled | DeadLetter] = []
    for envelope, result in zip(envelopes, _by_item(spans, results), strict=True):
        if isinstance(result, RowOutcome):
            settled.setdefault(result, []).append(envelope)
        else:
            letters.append(DeadLetter(envelope.record, envelope.item, 1, step, result.reason, result.rule, result.code))
    return [_settled(end, done) for end, done in settled.items()] + letters


def _by_item(spans: Sequence[int], results: Sequence[RowResult]) -> Iterable[RowResult]:
    """One result an item."""
    return results if len(spans) == len(results) else _of_several(spans, results)


def _of_several(spans: Sequence[int], results: Sequence[RowResult]) -> Iterator[RowResult]:
    at = 0
    for span in spans:
        rows = results[at : at + span]
        at += span
        refusal = next((r for r in rows if isinstance(r, Refusal)), None)
        yield refusal or (rows[0] if len(set(rows)) == 1 else RowOutcome.WRITTEN)


def _settled(end: RowOutcome, envelopes: list[Envelope[Any]]) -> Settled | DeadLetter:
    if end is RowOutcome.SUPPRESSED:
        return Settled(Outcome.SKIPPED, envelopes, SkipReason.SUPPRESSED)
    return Settled(Outcome.WRITTEN if end is RowOutcome.WRITTEN else Outcome.SUPERSEDED, envelopes)


def entries_of(envelopes: Sequence[Envelope[Any]]) -> tuple[list[Entry], list[int]]:
    """The rows of the items, and how many each item has."""
    entries: list[Entry] = []
    spans = [1] * len(envelopes)
    for at, envelope in enumerate(envelopes):
        row, record = envelope.payload, envelope.record
        origin = record.origin
        sequence = sequence_of((origin or record).offset, envelope.item)
        if row.__class__ is tuple:
            entries += [Entry(each, origin is not None, sequence, same_item=n > 0) for n, each in enumerate(row)]
            spans[at] = len(row)
        else:
            entries.append(Entry(row, origin is not None, sequence))
    return entries, spans
