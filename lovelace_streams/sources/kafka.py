"""1. Kafka → `Envelope[bytes]`: a worker that reads as one member of a consumer group."""

import bytewax.operators as op
from bytewax.dataflow import Dataflow, Stream, operator

from lovelace_streams.kafka.consumer import GroupConsumer
from lovelace_streams.records import Envelope
from lovelace_streams.sources.worker_source import WorkerSource


class KafkaSource(WorkerSource):
    """The topics a flow reads, as one member of its consumer group, and the worker's context at run time.

    Gives `Envelope[bytes]` in the order of each partition, in lists of at most `poll_size` gathered for at most
    `linger` seconds. A restart reads again from the committed offset: what was settled but not committed is repeated,
    and every effect is idempotent. The worker waits for a broker that is away. An invalid deployment (no such topic, no
    access, an expired offset) stops the worker with one line and exit code 78.

    >>> from lovelace_streams import KafkaSettings
    >>> source = KafkaSource(KafkaSettings("127.0.0.1:9092"), topics=["orders.raw"])
    >>> source.pipeline is None  # the flow that it is used in names it
    True
    """

    def make_reader(self) -> GroupConsumer:
        """Make the consumer, which joins the group when it is opened."""
        return GroupConsumer(self)


@operator
def kafka_source(step_id: str, flow: Dataflow, source: KafkaSource) -> Stream[Envelope[bytes]]:
    """Read the source's topics as the consumer group named like the flow, unless the settings name another."""
    source.pipeline = source.pipeline or flow.flow_id
    return op.input("input", flow, source)
