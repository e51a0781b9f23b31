"""5. `Batch` → `Settled`: write rows durably, isolate refused ones, wait out an outage.

The work is done by `delivery.block_writer`, with one of the `writers`.
"""

from dataclasses import dataclass
from typing import Any, cast

import bytewax.operators as op
from bytewax.dataflow import Stream, operator

from lovelace_streams.delivery.block_writer import BlockWriter
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.operators.mapped_rows import foreign_rows
from lovelace_streams.records import Batch, DeadLetter, Settled
from lovelace_streams.runtime.worker import WorkerContext
from lovelace_streams.writers import Writer


@dataclass(frozen=True)
class Written:
    """Two ports: items that are durable (or that a trigger suppressed), and items that the destination refuses."""

    settled: Stream[Settled]
    errs: Stream[DeadLetter]


@operator
def upsert(step_id: str, up: Stream[Batch[Any]], writer: Writer, source: WorkerContext) -> Written:
    """Write batches to a table: `Batch` → `Settled` and `DeadLetter`.

    Batches are joined to blocks of at most `writer.capabilities.block_rows` rows, one transaction each. A row that the
    destination's rules refuse is isolated and leaves by `errs` with its reason; the other rows of its batch are written
    and leave by `settled`, as `written`, `superseded` or `skipped`. A large block is written while the next window is
    read, so its items may be settled without passing these ports (`BlockWriter` has all three ways).

    While the destination is down the step waits in `source.keep_alive`, for as long as it takes, and dead-letters
    nothing. A call that takes longer than `writer.deadline` seconds is aborted and tried again. A table that does not
    match the row classes stops the worker with exit code 78, before anything is read. A restart writes rows again that
    were not committed: the table ends the same (law 8). Raises `DeploymentFault` at build if the mapping makes rows of
    a class that the writer was not given, where decoder, row classes or the function's annotation tell.

    >>> import bytewax.operators as op
    >>> from bytewax.dataflow import Dataflow
    >>> from bytewax.testing import TestingSource
    >>> from lovelace_streams import KafkaSettings, KafkaSource, Row
    >>> source = KafkaSource(KafkaSettings("127.0.0.1:9092"), topics=["orders"])
    >>> from lovelace_streams.writers.memory import MemoryWriter
    >>> class Order(Row, table="orders", primary_key="id"):
    ...     id: int
    >>> batches = op.input("batches", Dataflow("orders"), TestingSource([]))
    >>> written = upsert("upsert", batches, MemoryWriter(Order), source)
    >>> written.settled.stream_id, written.errs.stream_id
    ('orders.upsert.side.trues', 'orders.upsert.side.falses')
    """
    if foreign := foreign_rows(up, writer):
        raise DeploymentFault(
            f"{step_id}: the mapping makes rows of {', '.join(foreign)}, which {type(writer).__name__} was not given: "
            "hand it the classes too"
        )
    block_writer = BlockWriter("upsert", writer, source)
    source.register(block_writer, holds_items=True)
    outcomes = op.flat_map_batch("write", up, block_writer.write)
    branches = op.branch("side", outcomes, _is_settled)
    return Written(settled=cast("Stream[Settled]", branches.trues), errs=cast("Stream[DeadLetter]", branches.falses))


def _is_settled(outcome: Settled | DeadLetter) -> bool:
    return isinstance(outcome, Settled)
