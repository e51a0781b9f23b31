"""✕ `DeadLetter` of any step → the dead-letter topic: one letter a message, with the items that failed.

How a letter is made: `dead_letters`, in the order `collector`, `fail_fast`, `letter`, `headers`, `sender`.
"""

from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import bytewax.operators as op
from bytewax.dataflow import Stream, operator

from lovelace_streams.dead_letters.sender import DeadLetterSender
from lovelace_streams.records import DeadLetter, Settled
from lovelace_streams.runtime.worker import WorkerContext


@dataclass(frozen=True)
class Sent:
    """One port: items whose letters the broker has acknowledged."""

    settled: Stream[Settled]


@operator
def dead_letter(
    step_id: str, source: WorkerContext, *errs: Stream[DeadLetter], erasable: timedelta | None = None
) -> Sent:
    """Send failed items to the dead-letter topic, one letter a message: `DeadLetter` → `Settled`.

    `errs` are those of every step, in the order in which a record passes the steps: an item that a later step refuses
    has passed the earlier ones. A step of one's own needs no other registration. The topic is `DEAD_LETTER_TOPIC`, by
    default `<pipeline>.dlq`, and is made if it does not exist.

    `erasable` declares that letters must be erasable by their key: the topic is compacted, keeps letters for that time,
    and of the letters with one key only the last; a letter without a key gets its origin as its key.

    A letter is sent when every item of its message has an outcome and fail fast has released it; its items are settled
    when the broker has acknowledged it, also while the topic is silent. The port `settled` shows them; nothing depends
    on it. A thousand items in a row that are refused for one cause stop the worker with exit code 78, and none of them
    is dead-lettered. A restart may send a letter again: letters are counted and replayed by their origin, so two
    letters of one origin count once.

    >>> import bytewax.operators as op
    >>> from bytewax.dataflow import Dataflow
    >>> from bytewax.testing import TestingSource
    >>> from lovelace_streams import KafkaSettings, KafkaSource
    >>> source = KafkaSource(KafkaSettings("127.0.0.1:9092"), topics=["orders"])
    >>> flow = Dataflow("orders")
    >>> decode_errs = op.input("decode_errs", flow, TestingSource([]))
    >>> normalize_errs = op.input("normalize_errs", flow, TestingSource([]))
    >>> dead_letter("dead_letter", source, decode_errs, normalize_errs).settled.stream_id
    'orders.dead_letter.settled.down'
    """
    sender = DeadLetterSender(source, erasable=erasable)
    source.register(sender)
    settled = [
        op.flat_map_batch(f"send_{order}", letters, partial(sender.take, order=order))
        for order, letters in enumerate(errs)
    ]
    return Sent(settled=op.merge("settled", *settled) if len(settled) > 1 else settled[0])
