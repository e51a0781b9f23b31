"""4. `Envelope[Row]` → `Batch`: the window that the source gathered, cut by rows and by bytes."""

from collections.abc import Iterator, Sequence
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Stream, operator

from lovelace_streams.records import Batch, Envelope
from lovelace_streams.settings import BatchPolicy


def cut(envelopes: Sequence[Envelope[Any]], policy: BatchPolicy) -> Iterator[Batch[Any]]:
    """Batches in the order given, each closed by `policy.rows`, by `policy.bytes`, or by the window's end.

    Bytes are those of the messages' values, shared out evenly among a message's items; an item is never cut.

    >>> from lovelace_streams.records import Record
    >>> record = Record("t", 0, 0, 0, 1, None, b"x" * 10, [], -1, items=1)
    >>> [(len(b.envelopes), b.reason) for b in cut([Envelope(record, 0, None)] * 5, BatchPolicy(rows=2))]
    [(2, 'rows'), (2, 'rows'), (1, 'window')]
    """
    most_rows, most_bytes = policy.rows, policy.bytes
    batch: list[Envelope[Any]] = []
    rows = size = 0
    for envelope in envelopes:
        batch.append(envelope)
        record, payload = envelope.record, envelope.payload
        rows += len(payload) if payload.__class__ is tuple else 1
        size += len(record.value or b"") // (record.items or 1)
        if rows >= most_rows or size >= most_bytes:
            yield Batch(batch, "rows" if rows >= most_rows else "bytes", size)
            batch, rows, size = [], 0, 0
    if batch:
        yield Batch(batch, "window", size)


@operator
def batch(step_id: str, up: Stream[Envelope[Any]], policy: BatchPolicy) -> Stream[Batch[Any]]:
    """Cut each window into batches of `policy.rows` (100): the unit in which a refused row is isolated.

    The window is the source's: at most `poll_size` messages gathered for at most `linger`. Nothing is kept here from
    one window to the next, so nothing waits when the topic falls silent.
    """
    return op.flat_map_batch("cut", up, lambda window: cut(window, policy))
