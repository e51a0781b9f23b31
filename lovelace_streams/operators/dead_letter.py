"""✕ Any step's failures → one exit: the dead-letter topic, one letter a message, naming the items that failed."""

from dataclasses import dataclass
from functools import partial

import bytewax.operators as op
from bytewax.dataflow import Stream, operator

from lovelace_streams.dead_letters.sender import DeadLetterSender
from lovelace_streams.records import DeadLetter, Settled
from lovelace_streams.runtime.worker import WorkerContext


@dataclass(frozen=True)
class Sent:
    """What the broker has acknowledged, as dead-lettered items."""

    settled: Stream[Settled]


@operator
def dead_letter(step_id: str, source: WorkerContext, *errs: Stream[DeadLetter]) -> Sent:
    """Send what failed to the dead-letter topic (`DEAD_LETTER_TOPIC`, default `<pipeline>.dlq`).

    `errs` are those of every step, in the order in which a record meets the steps: an item that a later step refuses
    has passed the earlier ones. A step of one's own needs to say nothing more about itself.

    Gives `Settled` (dead-lettered) for what the broker has acknowledged. A restart may send a letter again: letters are
    counted and replayed by their origin, so one that came twice is one. A thousand items in a row refused for one
    cause stop the worker with none of them dead-lettered.
    """
    sender = DeadLetterSender(source)
    source.register(sender)
    settled = [
        op.flat_map_batch(f"send_{order}", letters, partial(sender.take, order=order))
        for order, letters in enumerate(errs)
    ]
    return Sent(settled=op.merge("settled", *settled) if len(settled) > 1 else settled[0])
