"""Write batches to a destination, block by block; wait while it is away, and leave a large block to a thread.

Theory of this file. The batches of a window become blocks, one transaction each. While the background thread writes
one, this thread prepares the next. Up to two large blocks are still to be written when the call returns, one after the
other, so that the next window is read and decoded meanwhile, and the destination has no pause. The next calls finish
them. If the topic is silent no call comes, and `serve` finishes them. A block behind one that failed is not tried
before it. While the worker is behind, rows wait in the buffer until a block is full.

The outcomes of a block leave by one of three ways: `write` returns them (the step's ports); `serve` and `revoke`
settle them at the context, with failed items by `add_dead_letters`. What of it is in which state: `blocks.BlockState`.
Why it is so: docs/decisions/0017-what-is-in-flight.md.
"""

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import structlog

from lovelace_streams.delivery.background import BackgroundCall, BackgroundThread, NotTried
from lovelace_streams.delivery.blocks import Block, BlockBuffer, BlockState, TimedResults, without_foreign
from lovelace_streams.delivery.retry import BlockRetry, Breaker
from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.observability import metrics, tracing
from lovelace_streams.observability.outages import OutageLog
from lovelace_streams.records import Batch, DeadLetter, Settled
from lovelace_streams.runtime.backoff import Backoff
from lovelace_streams.runtime.grace import LOGIN_SECONDS, Grace
from lovelace_streams.runtime.service import Service
from lovelace_streams.runtime.worker import WorkerContext
from lovelace_streams.writers import Entry, RowResult, SupportsStored, Writer, check_capabilities

log = structlog.get_logger(__name__)

BUFFER_SECONDS = 0.25
"""How long rows may wait for a block to fill while the worker is behind and no other step waits."""
PARKED_SECONDS = 5.0
"""How long a parked block waits for another row before it is tried again."""
PROBE_ROWS = 10
"""How many items of the next block may be used to test the destination."""
BLOCKS_BEGUN = 2
"""How many blocks the thread may have to write when the next window is read: one is being written, one waits for it."""
BACKGROUND_ROWS_MIN = 100
"""The smallest block that is left to the thread: a smaller one is written before the next window could be read."""
_GAUGE = {Breaker.CLOSED: 0, Breaker.HALF_OPEN: 1, Breaker.OPEN: 2}


class BlockWriter(Service):
    """Writes a step's batches with one writer, one call at a time."""

    def __init__(self, step: str, writer: Writer, context: WorkerContext) -> None:
        self._step = step
        self.writer = writer
        self._context = context
        self._thread = BackgroundThread(step, lambda: self.writer, context)
        self._connected = False
        self._login = Grace(LOGIN_SECONDS)
        self._outage = OutageLog(log, "waiting for the destination", destination=writer.name)
        self._backoff = Backoff()
        self._failures = 0
        """How often in a row `serve` could not connect."""
        self._connect_at = 0.0
        """When `serve` tries again, by the monotonic clock."""
        self._buffer = BlockBuffer(writer.capabilities.block_rows)
        self._blocks: list[Block] = []
        """Blocks that are `WRITING` or `PARKED` between two calls."""
        self._parked_until = 0.0
        self._block: Block | None = None
        """The block that is being written, and the one that can be prepared meanwhile."""
        self._next: Block | None = None
        self._span = tracing.OFF
        self._retry = BlockRetry(self._call, self._probe, self._wait, on_fault=self._on_fault, stored=self._stored)

    def write(self, batches: list[Batch[Any]]) -> list[Settled | DeadLetter]:
        """Write batches; returns the outcomes of their items, and of earlier ones that were still waiting.

        A block that may hold a harmful row is parked while there is no other row to test the destination with. It is
        tried again before the next block, or after five seconds if nothing is read. When the worker ends, items without
        an outcome are left out; the next owner reads them again.
        """
        batches, foreign = self._without_foreign(batches)
        outcomes: list[Settled | DeadLetter] = [*foreign]
        self._context.items_at_writer += sum(batch.count for batch in batches)
        for batch in batches:
            metrics.BATCHES.labels(self._context.pipeline, batch.reason).inc()
        due = self._due(batches)
        # If all batches are buffered, the block in the background is left alone: waiting for it would gain nothing.
        writing = self._in_state(BlockState.WRITING) if due or not batches else []
        queue = [*writing, *self._parked(), *due]
        self._blocks = [block for block in self._blocks if block not in queue]
        for index, block in enumerate(queue):
            if self._context.fault:
                self._blocks += [left for left in queue[index:] if left.state is BlockState.WRITING]
                break
            if self._left_to_thread(queue[index:]):
                break
            following = next((later for later in queue[index + 1 :] if later.call is None), None)
            written = self._write(block, following)
            if written is None:  # the worker ends: the next owner reads the items of this block and the rest again
                break
            outcomes += written
        metrics.BREAKER.labels(self._context.pipeline).set(_GAUGE[self._retry.breaker])
        return outcomes

    def _without_foreign(self, batches: list[Batch[Any]]) -> tuple[list[Batch[Any]], list[DeadLetter]]:
        """Leave out the items that this writer has no table for, and batches that are empty then."""
        own, letters = [], []
        for batch in batches:
            parts, foreign = without_foreign(self._step, batch.parts, self.writer)
            letters += foreign
            if parts:
                own.append(batch if not foreign else Batch(list(parts), batch.reason, batch.size))
        return own, letters

    def _due(self, batches: Iterable[Batch[Any]]) -> list[Block]:
        """Take the blocks to write now: only full ones while rows may wait, else the buffered rest too."""
        full = self._buffer.add(batches)
        return full if self._may_buffer() else full + self._buffer.take()

    def _may_buffer(self) -> bool:
        """Whether rows may wait for a block to fill: more messages have arrived, and nothing is wrong."""
        in_time = time.monotonic() < self._buffer.since + BUFFER_SECONDS
        return self._context.behind and in_time and self._is_healthy()

    def _is_healthy(self) -> bool:
        quiet = not self._parked() and not self._context.ending
        return self._connected and quiet and self._retry.breaker is Breaker.CLOSED

    def _in_state(self, state: BlockState) -> list[Block]:
        return [block for block in self._blocks if block.state is state]

    def _parked(self) -> list[Block]:
        return self._in_state(BlockState.PARKED)

    # -- one block ------------------------------------------------------------------------------------------------

    def _write(self, block: Block, following: Block | None) -> list[Settled | DeadLetter] | None:
        """Write a block for as long as it takes; returns None if the worker ends before it is written."""
        self._block, self._next = block, following
        try:
            with tracing.step("write", block.batch.parts[0], items=len(block)) as self._span:
                return self._write_current(block, following.first_entries(PROBE_ROWS) if following else ())
        except DeploymentFault as fault:
            self._context.note(fault)
            return None

    def _write_current(self, block: Block, probe_rows: Sequence[Entry]) -> list[Settled | DeadLetter] | None:
        """Write the items of a block whose assignments have not ended; starts again when one ends meanwhile."""
        while True:
            self._prepare(block)
            if not block.entries:
                return []
            metrics.BATCH_ROWS.labels(self._context.pipeline).observe(len(block.entries))
            results = self._retry.write(block.entries, probe_rows)
            if results is not None:
                return self._outcomes(block, results)
            if self._context.ending:
                return None
            if self._retry.inconclusive:
                self._park(block)
                return []

    def _outcomes(self, block: Block, results: Sequence[RowResult]) -> list[Settled | DeadLetter]:
        outcomes = block.outcomes(self._step, results)
        if refused := sum(isinstance(outcome, DeadLetter) for outcome in outcomes):
            metrics.ISOLATIONS.labels(self._context.pipeline).inc()
        self._span.set(rows=len(block.entries), refused=refused)
        return outcomes

    def _park(self, block: Block) -> None:
        block.state = BlockState.PARKED
        self._blocks.append(block)
        self._parked_until = time.monotonic() + PARKED_SECONDS

    def _left_to_thread(self, blocks: list[Block]) -> bool:
        """Leave the last blocks to the thread, if they are large; returns False if the first must be waited for."""
        if not self._is_healthy() or len(blocks) > BLOCKS_BEGUN:
            return False
        for block in blocks:
            if block.call is None and len(block) < BACKGROUND_ROWS_MIN:
                return False
            if block.call is not None and self._is_due(block.call):
                return False
        for block in blocks:
            self._start(block)
        return True

    def _start(self, block: Block) -> None:
        """Give a block to the thread, unless that has it."""
        if block.call is None:
            self._prepare(block)
            if not (entries := block.entries):
                return
            block.call = self._thread.start(lambda: self._timed_write(entries))
            block.state = BlockState.WRITING
        self._blocks.append(block)

    def _prepare(self, block: Block) -> None:
        """Make a block's entries, without the items of assignments that have ended since its write was started."""
        current = self._context.in_flight.current
        if block.call is not None and not block.is_current(current):
            self._discard(block)
        if block.call is None:
            block.prepare(current, self.writer)

    def _discard(self, block: Block) -> None:
        """Wait for a write and ignore its results: the items whose assignments still hold are written again."""
        call, block.call = block.call, None
        assert call is not None
        try:
            self._thread.finish(call)
        except DestinationFault:
            self._connected = False
        except (
            DeploymentFault,
            NotTried,
        ):  # it may concern rows of an ended assignment; rows still ours raise it again
            pass

    def _prepare_next(self) -> None:
        """Prepare the next block while this one is being written."""
        following, self._next = self._next, None
        if following is not None and following.call is None:
            following.prepare(self._context.in_flight.current, self.writer)

    # -- beside the stream ----------------------------------------------------------------------------------------

    def serve(self, *, idle: bool, between_windows: bool) -> None:  # noqa: ARG002
        """Connect and compare the table before anything is read; finish blocks that are written, buffered or parked."""
        if not between_windows:
            return
        overdue = bool(self._buffer) and not self._may_buffer()
        parked = bool(self._parked()) and time.monotonic() >= self._parked_until
        if overdue or parked or self._is_finished():
            self._settle(self.write([]))  # no new batches: finish what waits
        if self._connected or self._context.ending or time.monotonic() < self._connect_at:
            return
        try:
            self._connect()
        except DestinationFault as fault:
            self._failures += 1
            self._connect_at = time.monotonic() + self._backoff.seconds(self._failures)
            self._outage.away(fault)
        except DeploymentFault as fault:
            self._context.note(fault)

    def _is_finished(self) -> bool:
        """Whether the thread has written a block, or is over the deadline."""
        calls = [block.call for block in self._in_state(BlockState.WRITING) if block.call is not None]
        return any(map(self._is_due, calls))

    def _is_due(self, call: BackgroundCall[TimedResults]) -> bool:
        """Whether a call has ended, or has to be given up: nothing else looks at it while the topic is silent."""
        return call.is_done() or call.is_overdue(self.writer.deadline)

    def _settle(self, outcomes: Iterable[Settled | DeadLetter]) -> None:
        """Pass on outcomes while no call of the step can return them."""
        letters = []
        for outcome in outcomes:
            if isinstance(outcome, Settled):
                self._context.settle(outcome)
            else:
                letters.append(outcome)
        self._context.add_dead_letters(letters)

    def unfinished(self) -> bool:
        """Whether a block is being written, or rows are buffered."""
        return bool(self._in_state(BlockState.WRITING)) or bool(self._buffer)

    def revoke(self, seconds: float) -> None:
        """Wait for the transactions in flight; close their connection if that takes longer than `seconds`.

        Their outcomes are settled before the partition is given up. If one failed, the next owner writes its rows, and
        those of the block behind it.
        """
        deadline = time.monotonic() + seconds
        if (waited_for := self._thread.waited_for) is not None:  # a step takes its result, and those behind it
            if not waited_for.wait(seconds):
                self._thread.abort(waited_for)
            return
        for block in self._in_state(BlockState.WRITING):
            call = block.call
            if call is None or not (call.wait(max(0.0, deadline - time.monotonic())) or self._thread.abort(call)):
                return
            try:
                results, _ = call.result()
            except (DestinationFault, DeploymentFault, NotTried):
                return
            self._blocks.remove(block)
            self._settle(block.outcomes(self._step, results))

    def close(self) -> None:
        """Close the connection, also under a write that has not ended."""
        for block in self._in_state(BlockState.WRITING):
            if block.call is not None and not block.call.is_done():
                self._thread.abort(block.call)
        self._thread.close()
        self.writer.close()

    # -- called by the retry --------------------------------------------------------------------------------------

    def _call(self, entries: Sequence[Entry]) -> list[RowResult]:
        """Write entries under the client's own deadline; connects first if there is no connection."""
        self._connect()
        if not entries:
            return []
        try:
            results, seconds = self._results(entries)
        except DestinationFault:
            self._connected = False  # after any fault the next try begins with a new connection
            raise
        metrics.WRITE_SECONDS.labels(self._context.pipeline).observe(seconds)
        return results

    def _results(self, entries: Sequence[Entry]) -> TimedResults:
        """Take the results of the write that the thread has started with these entries; else of a new write."""
        block = self._block
        if block is not None and block.call is not None and block.entries is entries:
            call, block.call, block.state = block.call, None, BlockState.PREPARED
            with suppress(NotTried):
                return self._thread.finish(call, self._prepare_next)
        return self._thread.run(lambda: self._timed_write(entries), self._prepare_next)

    def _timed_write(self, entries: Sequence[Entry]) -> TimedResults:
        began = time.perf_counter()
        return self.writer.write(entries), time.perf_counter() - began

    def _connect(self) -> None:
        if not self._connected:
            check_capabilities(self.writer)
            self._open()
            self._buffer.rows_max = self.writer.capabilities.block_rows  # the real table may decide it
            self._connected = True
            self._failures = 0
            self._outage.back()

    def _open(self) -> None:
        """Open the writer. A refusal that may pass is the destination's fault until it has lasted."""
        try:
            self._thread.run(self.writer.open)
        except (DestinationFault, DeploymentFault) as fault:
            if self._login.believes(fault, time.monotonic()) or isinstance(fault, DestinationFault):
                raise
            raise DestinationFault(fault.code, str(fault)) from None
        self._login.accepted()

    def _probe(self, probe_rows: Sequence[Entry]) -> bool | None:
        try:
            self._connect()
            return self._thread.run(lambda: self.writer.probe(probe_rows))
        except DestinationFault:
            self._connected = False
            return False

    def _stored(self, item: Sequence[Entry]) -> bool:
        """Whether a failed item is written all the same, if the writer can tell. Raises `DestinationFault`."""
        writer = self.writer
        if not isinstance(writer, SupportsStored):
            return False
        self._connect()
        return self._thread.run(lambda: writer.stored(item))

    def _wait(self, seconds: float) -> bool:
        if self._retry.inconclusive:
            return False
        return self._context.keep_alive(seconds, assignments=self._block.assignments if self._block is not None else ())

    def _on_fault(self, fault: DestinationFault, failures: int) -> None:  # noqa: ARG002 - the outage counts them
        self._span.event("fault", code=fault.code)
        metrics.RETRIES.labels(self._context.pipeline, self._step, fault.code).inc()
        metrics.BREAKER.labels(self._context.pipeline).set(_GAUGE[Breaker.OPEN])
        self._outage.away(fault)
