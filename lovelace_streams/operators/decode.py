"""2. `Envelope[bytes]` → `Envelope[raw item]`: whatever the bytes are, every item leaves by one of three ports.

A decoder may have to ask somebody (a schema registry). That one is a destination like any other: while it is away the
window waits in `source.keep_alive`, and goes on with the very record that asked.
"""

import time
from collections.abc import Callable, Iterable
from functools import partial

import bytewax.operators as op
import structlog
from bytewax.dataflow import Stream, operator

from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.formats.decoder import Decoder, Ports, looked_ahead, sort
from lovelace_streams.observability import metrics
from lovelace_streams.operators.ports import Sorted, by_list, split
from lovelace_streams.records import Envelope, Record
from lovelace_streams.runtime.backoff import Backoff
from lovelace_streams.runtime.worker import WorkerContext

log = structlog.get_logger(__name__)


ALIVE_SECONDS = 1.0
"""After so long of decoding the consumer is kept alive: each record of a window may have had to ask, and been slow."""


@operator
def decode(step_id: str, up: Stream[Envelope[bytes]], decoder: Decoder, source: WorkerContext | None = None) -> Sorted:
    """Decode messages into items, each by itself: one bad member does not cost its chunk (law 7).

    Undecodable messages and items leave by `errs`, tombstones, unknown events and empty messages by `skipped`. What the
    decoder has to ask is waited for, and nothing is dead-lettered meanwhile; a decoder that asks needs the `source`,
    else `DeploymentFault` is raised at build. A refusal stops the worker with exit code 78.
    """
    if not decoder.waits:
        return split(op.flat_map_batch("sort", up, by_list("decode", partial(sort, decoder))))
    if source is None:
        raise DeploymentFault(
            f"{step_id}: this decoder asks a schema registry and has to wait while that is away: "
            "hand it the source, decode(step, stream, decoder, source)"
        )
    return split(op.flat_map_batch("sort", up, by_list("decode", Asking(decoder, source).sort)))


class Asking:
    """Decodes by asking somebody, who is waited for."""

    def __init__(self, decoder: Decoder, source: WorkerContext, clock: Callable[[], float] = time.monotonic) -> None:
        self._decoder = decoder
        self._source = source
        self._clock = clock
        self._backoff = Backoff()

    def sort(self, window: Iterable[Envelope[bytes]]) -> Ports:
        """Messages as items, letters and skips, without the rest of the window where the worker ends.

        What is left out is not settled, so whoever reads on after us reads it again.
        """
        ports = Ports()
        due = self._clock() + ALIVE_SECONDS
        for envelope in looked_ahead(self._decoder, window):
            if not self._decode(envelope.record, ports):
                break
            if self._clock() >= due:
                if not self._source.keep_alive(0.0):
                    break
                due = self._clock() + ALIVE_SECONDS
        return ports

    def _decode(self, record: Record, ports: Ports) -> bool:
        """Decode a record for as long as it takes, or until it is another's; False where the worker ends."""
        failures = 0
        while True:
            try:
                self._decoder.decode(record, ports.oks, ports.errs, ports.skipped)
            except DestinationFault as fault:
                failures += 1
                metrics.RETRIES.labels(self._source.pipeline, "decode", fault.code).inc()
                log.warning("waiting for the schema registry", fault=str(fault), failures=failures)
                if not self._source.keep_alive(self._backoff.seconds(failures), [record]):
                    return not self._source.ending
            except DeploymentFault as fault:
                self._source.note(fault)
                return False
            else:
                return True
