"""Writes blocks to a destination: one background thread, one call at a time.

The batches of a window go in blocks, a transaction each. While one is being written, in a background thread, the next
one is made ready in this. A window's last block, where it is a large one, is still being written when the call returns,
so that the next window is read and decoded meanwhile: it is finished by the next call or, where none comes, by what the
source serves, so a silent topic leaves nothing behind; a partition is given up only after it.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

import structlog

from lovelace_streams.delivery.blocks import Block, BlockBuffer, ends_of, entries_of
from lovelace_streams.delivery.retry import BlockRetry, Breaker
from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.observability import metrics, tracing
from lovelace_streams.records import Batch, DeadLetter, Settled
from lovelace_streams.sources.kafka import KafkaSource
from lovelace_streams.writers import Entry, RowResult, Writer, check_capabilities

log = structlog.get_logger(__name__)


T = TypeVar("T")
"""What a call of the writer answers."""
GATHER_SECONDS = 0.25
"""How long rows may wait for a block to fill while the source is behind, and no other step waits for somebody."""
ASIDE_SECONDS = 5.0
"""How long a block that was put aside waits for a neighbour before it is tried again."""
NEIGHBOURS = 10
"""So many items of the next block may serve as the neighbour that can still be written."""
LARGE = 100
"""Items of a block that is not waited for at once: fewer are there before anything could be read meanwhile."""
QUICK = 0.5
"""Seconds that a call may take before the consumer is kept alive meanwhile: most calls end within milliseconds."""


class PendingWrite(NamedTuple):
    """A block that is being written while the next window is read."""

    block: Block
    flight: Future[tuple[list[RowResult], float]]
    since: float


class BlockWriter:
    """Carries batches to a writer: one background thread, one call at a time."""

    def __init__(self, step: str, writer: Writer, source: KafkaSource) -> None:
        self._step = step
        self.writer = writer
        self._source = source
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=step)
        self._flight: Future[Any] | None = None
        self._open = False
        self._gathering = BlockBuffer(writer.capabilities.block_rows)
        self._aside: list[Batch[Any]] = []
        self._aside_until = 0.0
        self._span = tracing.OFF
        self._block: Block | None = None
        self._next: Batch[Any] | None = None
        self._ahead: Block | None = None
        self._begun: PendingWrite | None = None
        self._patience = BlockRetry(self._call, self._probe, self._wait, on_fault=self._on_fault)

    def write(self, batches: list[Batch[Any]]) -> list[Settled | DeadLetter]:
        """What became of the rows of these batches; batches that had to be given up are left out (and read again).

        A block that may hold a harmful row is parked while there is no other row to test the destination with. It is
        tried again before the next block, or after five seconds if nothing is read.
        """
        ends: list[Settled | DeadLetter] = []
        self._source.reached += sum(len(batch.envelopes) for batch in batches)
        for batch in batches:
            metrics.BATCHES.labels(self._source.pipeline, batch.reason).inc()
        due = self._due(batches)
        begun = [self._begun.block.batch] if self._begun is not None and (due or not batches) else []
        blocks = [*begun, *self._aside, *due]
        self._aside = []
        for at, batch in enumerate(blocks):
            if self._source.fault or (due and batch is due[-1] and self._begin(batch)):
                break
            self._next = blocks[at + 1] if at + 1 < len(blocks) else None
            others = entries_of(self._next.envelopes[:NEIGHBOURS])[0] if self._next is not None else ()
            try:
                with tracing.step("write", batch.envelopes[0].record, items=len(batch.envelopes)) as self._span:
                    done = self._write(batch, others)
            except DeploymentFault as fault:
                self._source.note(fault)
                break
            if done is None:
                break
            ends += done
        metrics.BREAKER.labels(self._source.pipeline).set(_GAUGE[self._patience.breaker])
        return ends

    def _due(self, batches: Iterable[Batch[Any]]) -> list[Batch[Any]]:
        """Blocks to be written now: while the source is behind only full ones, else all that there is."""
        full = self._gathering.add(batches)
        return full if self._may_wait() else full + self._gathering.take()

    def _may_wait(self) -> bool:
        """Whether rows may wait for a block to fill: more is there already, and nothing is wrong."""
        soon = self._source.behind and time.monotonic() < self._gathering.since + GATHER_SECONDS
        return soon and self._sound()

    def _sound(self) -> bool:
        return self._open and not self._aside and not self._source.ending and self._patience.breaker is Breaker.CLOSED

    def _write(self, batch: Batch[Any], others: Sequence[Entry]) -> list[Settled | DeadLetter] | None:
        """One batch, without what belongs to an ended assignment; None where the worker ends before it is done."""
        while True:
            block = self._block = self._ready(batch)
            if not block.entries:
                return []
            metrics.BATCH_ROWS.labels(self._source.pipeline).observe(len(block.entries))
            results = self._patience.write(block.entries, others)
            if results is not None:
                ends = ends_of(self._step, block.envelopes, block.spans, results)
                if refused := sum(isinstance(end, DeadLetter) for end in ends):
                    metrics.ISOLATIONS.labels(self._source.pipeline).inc()
                self._span.set(rows=len(block.entries), refused=refused)
                return ends
            if self._source.ending:
                return None
            if self._patience.inconclusive:
                self._aside.append(batch)
                self._aside_until = time.monotonic() + ASIDE_SECONDS
                return []

    def _begin(self, batch: Batch[Any]) -> bool:
        """Begin to write a large block and leave it; False where it has to be waited for."""
        if not self._sound() or len(batch.envelopes) < LARGE:
            return False
        block = self._ready(batch)
        if block.entries:
            self._begun = PendingWrite(block, self._thread.submit(self._clocked, block.entries), time.monotonic())
        return True

    def _ready(self, batch: Batch[Any]) -> Block:
        """The block of a batch: the one that was begun or made ahead, unless an assignment has ended since."""
        ahead, self._ahead = self._ahead, None
        current = self._source.in_flight.current
        for made in (self._begun.block if self._begun is not None else None, ahead):
            if made is not None and made.batch is batch and made.is_current(current):
                return made
        if self._begun is not None and self._begun.block.batch is batch:
            self._forsake(self._begun)
        return Block(batch, current, self.writer)

    def _forsake(self, begun: PendingWrite) -> None:
        """Wait for a block of which not all is ours any more; what still is will be written again."""
        self._begun = None
        try:
            self._landed(begun.flight, begun.since)
        except DestinationFault:
            self._open = False
        except DeploymentFault:  # it may concern rows of an ended assignment; rows that are still ours raise it again
            pass

    def _make_ahead(self) -> None:
        """Make the next block ready, once, while this one is being written."""
        if self._next is not None:
            self._ahead, self._next = Block(self._next, self._source.in_flight.current, self.writer), None

    # -- what the source serves -----------------------------------------------------------------------------------

    def serve(self, *, idle: bool, between: bool) -> None:  # noqa: ARG002
        """Connect and compare the table once, before anything is read; finish what was begun or put aside."""
        if not between:
            return
        late = self._gathering and not self._may_wait()
        if late or self._is_through() or (self._aside and time.monotonic() >= self._aside_until):
            self._end(self.write([]))
        if self._open or self._source.ending:
            return
        try:
            self._call(())
        except DestinationFault as fault:
            log.warning("waiting for the destination", destination=self.writer.name, fault=str(fault))
        except DeploymentFault as fault:
            self._source.note(fault)

    def _is_through(self) -> bool:
        """Whether the block that was begun has come to its end, or should have."""
        if self._begun is None:
            return False
        return self._begun.flight.done() or time.monotonic() > self._begun.since + self.writer.deadline

    def _end(self, ends: Iterable[Settled | DeadLetter]) -> None:
        """Hand on what did not end within a call."""
        letters = []
        for end in ends:
            if isinstance(end, Settled):
                self._source.settle(end)
            else:
                letters.append(end)
        self._source.failed(letters)

    def unfinished(self) -> bool:
        """Whether a block is being written, or gathered."""
        return self._begun is not None or bool(self._gathering)

    def revoke(self, seconds: float) -> None:
        """Wait for the transaction in flight; past the bound shut its connection.

        What it came to is settled before the partition goes; where it failed, whoever owns its records writes them.
        """
        flight = self._flight or (self._begun.flight if self._begun is not None else None)
        if flight is not None and wait([flight], seconds).not_done:
            self.writer.abort()
            wait([flight], 1.0)
        if self._flight is None and self._begun is not None and self._begun.flight.done():
            with suppress(DestinationFault, DeploymentFault):
                results, _ = self._begun.flight.result()
                block, self._begun = self._begun.block, None
                self._end(ends_of(self._step, block.envelopes, block.spans, results))

    def full(self) -> bool:
        """Nothing piles up here."""
        return False

    def close(self) -> None:
        """Let go of the connection, of which nobody makes use any more."""
        if self._begun is not None and not self._begun.flight.done():
            self.writer.abort()
            wait([self._begun.flight], 1.0)
        self._thread.shutdown(wait=False, cancel_futures=True)
        self.writer.close()

    # -- one call ------------------------------------------------------------------------------------------------

    def _call(self, entries: Sequence[Entry]) -> list[RowResult]:
        """Write a block under the client's own deadline, connecting first where there is no connection."""
        self._connect()
        if not entries:
            return []
        begun, self._begun = self._begun, None
        try:
            if begun is not None and begun.block.entries is entries:
                results, seconds = self._landed(begun.flight, begun.since, self._make_ahead)
            else:
                results, seconds = self._timed(lambda: self._clocked(entries), self._make_ahead)
        except DestinationFault:
            self._open = False  # whatever it was, the next try begins with a connection that answers
            raise
        metrics.WRITE_SECONDS.labels(self._source.pipeline).observe(seconds)
        return results

    def _clocked(self, entries: Sequence[Entry]) -> tuple[list[RowResult], float]:
        began = time.perf_counter()
        return self.writer.write(entries), time.perf_counter() - began

    def _connect(self) -> None:
        if not self._open:
            check_capabilities(self.writer)
            self._timed(self.writer.open)
            self._gathering.rows = self.writer.capabilities.block_rows  # which the real table may decide
            self._open = True

    def _probe(self, others: Sequence[Entry]) -> bool | None:
        try:
            self._connect()
            return self._timed(lambda: self.writer.probe(others))
        except DestinationFault:
            self._open = False
            return False

    def _timed(self, function: Callable[[], T], meanwhile: Callable[[], None] | None = None) -> T:
        """Run in the background thread, under the client's own deadline."""
        return self._landed(self._thread.submit(function), time.monotonic(), meanwhile)

    def _landed(self, flight: Future[T], since: float, meanwhile: Callable[[], None] | None = None) -> T:
        """Wait for a call; past the deadline (or the end of a drain) the connection is shut under it."""
        self._flight = flight
        end = since + self.writer.deadline
        try:
            if meanwhile is not None:
                meanwhile()
            if not wait([flight], QUICK).not_done:
                return flight.result()
            while wait([flight], 0.01).not_done:
                if time.monotonic() > end or self._source.drain_left <= 0:
                    self.writer.abort()
                    if wait([flight], 1.0).not_done:
                        self._thread.shutdown(wait=False)
                        self._thread = ThreadPoolExecutor(1, thread_name_prefix=self._step)
                        raise DestinationFault("timeout", f"{self.writer.name}: no answer, and none to shutting it")
                    raise DestinationFault("timeout", f"{self.writer.name}: no answer in {self.writer.deadline:g} s")
                if not self._source.keep_alive(0.1):
                    wait([flight], 0.1)
            return flight.result()
        finally:
            self._flight = None

    def _wait(self, seconds: float) -> bool:
        if self._patience.inconclusive:
            return False
        envelopes = self._block.envelopes if self._block is not None else ()
        return self._source.keep_alive(seconds, [e.record for e in envelopes])

    def _on_fault(self, fault: DestinationFault, failures: int) -> None:
        self._span.event("fault", code=fault.code)
        metrics.RETRIES.labels(self._source.pipeline, self._step, fault.code).inc()
        metrics.BREAKER.labels(self._source.pipeline).set(_GAUGE[Breaker.OPEN])
        log.warning("waiting for the destination", destination=self.writer.name, fault=str(fault), failures=failures)


_GAUGE = {Breaker.CLOSED: 0, Breaker.HALF_OPEN: 1, Breaker.OPEN: 2}
