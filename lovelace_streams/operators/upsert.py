"""5. `Batch` → `Settled`: rows become durable, what is refused is isolated, an outage is waited out."""

from dataclasses import dataclass
from typing import Any, cast

import bytewax.operators as op
from bytewax.dataflow import Stream, operator

from lovelace_streams.delivery.block_writer import BlockWriter
from lovelace_streams.records import Batch, DeadLetter, Settled
from lovelace_streams.runtime.worker import WorkerContext
from lovelace_streams.writers import Writer


@dataclass(frozen=True)
class Written:
    """Two ports: what is durable (or was suppressed by a trigger), and what the destination's rules refuse."""

    settled: Stream[Settled]
    errs: Stream[DeadLetter]


@operator
def upsert(step_id: str, up: Stream[Batch[Any]], writer: Writer, source: WorkerContext) -> Written:
    """Write each batch in one transaction; a refused row is isolated and leaves by `errs`, its neighbours are written.

    A destination that is down is waited for (`source.keep_alive`), for as long as it takes, and nothing is
    dead-lettered; a call that takes longer than the writer's `deadline` is cut off and tried again. A restart writes
    rows again: they are idempotent (law 8). A wrong table stops the worker with exit code 78.
    """
    block_writer = BlockWriter("upsert", writer, source)
    source.register(block_writer, holds_items=True)
    outcomes = op.flat_map_batch("write", up, block_writer.write)
    branches = op.branch("side", outcomes, _is_settled)
    return Written(settled=cast("Stream[Settled]", branches.trues), errs=cast("Stream[DeadLetter]", branches.falses))


def _is_settled(outcome: Settled | DeadLetter) -> bool:
    return isinstance(outcome, Settled)
