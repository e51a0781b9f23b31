"""4. `Envelope[Row]` → `Batch`: cut the window that the source gathered by rows and by bytes."""

from collections.abc import Iterator, Sequence
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Stream, operator

from lovelace_streams.columns import Part, Slice, append
from lovelace_streams.records import Batch, Envelope
from lovelace_streams.settings import BatchPolicy


def cut(envelopes: Sequence[Part], policy: BatchPolicy) -> Iterator[Batch[Any]]:
    """Cut items into batches, in the order given: at `policy.rows`, at `policy.bytes`, or at the window's end.

    The bytes are those of the messages' values, divided evenly among a message's items. An item is never cut.

    >>> from lovelace_streams.records import Record
    >>> record = Record("t", 0, 0, 0, 1, None, b"x" * 10, [], -1, items=1)
    >>> [(len(b.envelopes), b.reason) for b in cut([Envelope(record, 0, None)] * 5, BatchPolicy(rows=2))]
    [(2, 'rows'), (2, 'rows'), (1, 'window')]
    """
    most_rows, most_bytes = policy.rows, policy.bytes
    batch: list[Part] = []
    rows = size = 0
    for envelope in envelopes:
        if isinstance(envelope, Slice):
            if rows + len(envelope) < most_rows and size + (more := envelope.size) < most_bytes:
                append(batch, envelope)
                rows, size = rows + len(envelope), size + more
                continue
            begin = envelope.start
            while begin < envelope.stop:
                end = envelope.columns.cut(begin, min(begin + most_rows - rows, envelope.stop), most_bytes - size)
                part = Slice(envelope.columns, begin, end)
                append(batch, part)
                rows, size, begin = rows + len(part), size + part.size, end
                if rows >= most_rows or size >= most_bytes:
                    yield Batch(batch, "rows" if rows >= most_rows else "bytes", size)
                    batch, rows, size = [], 0, 0
            continue
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
    """Cut each window of rows into batches, the unit in which a refused row is isolated: `Envelope[Row]` → `Batch`.

    A batch has at most `policy.rows` rows (100) and `policy.bytes` bytes of the messages' values (8 MiB), but for its
    last item, which is never cut; it says in `reason` what closed it. The window is the source's: at most `poll_size`
    messages gathered within `linger` seconds. Nothing is kept from one window to the next, so nothing waits while the
    topic is silent. Nothing fails here, and a restart repeats nothing of its own.

    >>> import bytewax.operators as op
    >>> from bytewax.dataflow import Dataflow
    >>> from bytewax.testing import TestingSink, TestingSource, run_main
    >>> from lovelace_streams.records import Record
    >>> record = Record("orders", 0, 0, 0, 1, None, b"{}", [], -1, items=1)
    >>> flow, batches = Dataflow("orders"), []
    >>> rows = op.input("rows", flow, TestingSource([Envelope(record, 0, None)] * 5, batch_size=5))
    >>> op.output("out", batch("batch", rows, BatchPolicy(rows=2)), TestingSink(batches))
    >>> run_main(flow)
    >>> [len(b.envelopes) for b in batches]
    [2, 2, 1]
    """
    return op.flat_map_batch("cut", up, lambda window: cut(window, policy))
