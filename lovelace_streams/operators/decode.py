"""2. `Envelope[bytes]` → `Envelope[raw item]`: whatever the bytes are, every item leaves by one of three ports."""

from functools import partial

import bytewax.operators as op
import structlog
from bytewax.dataflow import Stream, operator

from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.formats.decoder import Decoder, sort
from lovelace_streams.formats.waiting import WaitingDecoder
from lovelace_streams.observability import metrics
from lovelace_streams.operators.ports import Sorted, by_list, split
from lovelace_streams.records import Envelope
from lovelace_streams.runtime.worker import WorkerContext

log = structlog.get_logger(__name__)


@operator
def decode(step_id: str, up: Stream[Envelope[bytes]], decoder: Decoder, source: WorkerContext | None = None) -> Sorted:
    """Decode messages into items, each by itself: one bad member does not cost its chunk (law 7).

    Undecodable messages and items leave by `errs`, tombstones, unknown events and empty messages by `skipped`. While a
    schema registry that the decoder asks is away, the step waits and dead-letters nothing. Such a decoder needs the
    `source`, else `DeploymentFault` is raised at build. A registry that refuses us stops the worker with exit code 78.
    """
    if not decoder.waits:
        return split(op.flat_map_batch("sort", up, by_list("decode", partial(sort, decoder))))
    if source is None:
        raise DeploymentFault(
            f"{step_id}: this decoder asks a schema registry and has to wait while that is away: "
            "hand it the source, decode(step, stream, decoder, source)"
        )
    waiting = WaitingDecoder(decoder, source, partial(_on_fault, source))
    return split(op.flat_map_batch("sort", up, by_list("decode", waiting.sort)))


def _on_fault(source: WorkerContext, fault: DestinationFault, failures: int) -> None:
    metrics.RETRIES.labels(source.pipeline, "decode", fault.code).inc()
    log.warning("waiting for the schema registry", fault=str(fault), failures=failures)
