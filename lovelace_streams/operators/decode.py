"""2. `Envelope[bytes]` → `Envelope[raw item]`: decode messages; every item leaves by one of three ports.

The decoders are in `formats`.
"""

from functools import partial

import bytewax.operators as op
import structlog
from bytewax.dataflow import Stream, operator

from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.formats.decoder import Decoder, SupportsPathCheck, expecting, sort, sort_chunks
from lovelace_streams.formats.waiting import WaitingDecoder
from lovelace_streams.observability import metrics
from lovelace_streams.observability.outages import OutageLog
from lovelace_streams.operators.ports import Sorted, by_list, split
from lovelace_streams.records import Envelope, Record
from lovelace_streams.runtime.worker import WorkerContext

log = structlog.get_logger(__name__)

WAITING_FOR_MAX = 255
"""How many characters of what a partition waits for its status shows; the progress service takes no more."""


@operator
def decode(step_id: str, up: Stream[Envelope[bytes]], decoder: Decoder, source: WorkerContext | None = None) -> Sorted:
    """Decode messages into items: `Envelope[bytes]` → `Envelope[raw item]`, in the order read.

    Items leave by `oks`, one by one, so one bad item does not fail its message (law 7). Messages that cannot be decoded
    leave by `errs`, whole, as the number of items in their header, or 1 (law 6). Tombstones, unknown events and empty
    messages leave by `skipped`. A restart decodes again what is read again, with the same result.

    While a schema registry that the decoder asks is away, the step waits in `source.keep_alive` and dead-letters
    nothing; a registry that rejects the login stops the worker with exit code 78. A schema that it does not give, while
    it gives others, is waited for during `UNKNOWN_SCHEMA_GRACE`; then its messages are `unknown_schema`. Raises
    `DeploymentFault` at build if such a decoder is given without a `source`, or if the rows read a path that the flow's
    own schema does not have.

    >>> import bytewax.operators as op
    >>> from bytewax.dataflow import Dataflow
    >>> from bytewax.testing import TestingSink, TestingSource, run_main
    >>> from lovelace_streams import JsonDecoder, Row
    >>> from lovelace_streams.records import Record
    >>> class Order(Row, table="orders", primary_key="id"):
    ...     id: int
    >>> cut_off = Record("orders", 0, 0, 0, 1, None, b'{"id": ', [], -1)
    >>> flow, letters = Dataflow("orders"), []
    >>> messages = op.input("in", flow, TestingSource([Envelope(cut_off, 0, cut_off.value)]))
    >>> decoded = decode("decode", messages, JsonDecoder(Order))
    >>> op.output("out", decoded.errs, TestingSink(letters))
    >>> run_main(flow)
    >>> [(letter.step, str(letter.reason)) for letter in letters]
    [('decode', 'not_json')]
    """
    if isinstance(decoder, SupportsPathCheck):
        decoder.check_paths()
    skips = getattr(decoder, "skips", ())
    if not decoder.waits:
        by_decoder = expecting(decoder, partial(sort_chunks, partial(sort, decoder)))
        return split(op.flat_map_batch("sort", up, by_list("decode", by_decoder, skips)))
    if source is None:
        raise DeploymentFault(
            f"{step_id}: this decoder asks a schema registry and has to wait while that is away: "
            "hand it the source, decode(step, stream, decoder, source)"
        )
    grace = source.settings.unknown_schema_grace
    waiting = WaitingDecoder(
        decoder, source, partial(_on_wait, source, OutageLog(log, "waiting for the schema registry")), grace=grace
    )
    by_decoder = expecting(decoder, partial(sort_chunks, waiting.sort))
    return split(op.flat_map_batch("sort", up, by_list("decode", by_decoder, skips)))


def _on_wait(
    source: WorkerContext, outage: OutageLog, record: Record, fault: DestinationFault | None, _failures: int
) -> None:
    """Show what a partition waits for: in the log, in its status, in a counter."""
    partition = (record.topic, record.partition)
    if fault is None:
        source.waiting_for.pop(partition, None)
        outage.back()
        return
    source.waiting_for[partition] = str(fault)[:WAITING_FOR_MAX]
    metrics.RETRIES.labels(source.pipeline, "decode", fault.code).inc()
    place = f"{record.topic}-{record.partition}:{record.offset}"
    outage.away(fault, record=place)
