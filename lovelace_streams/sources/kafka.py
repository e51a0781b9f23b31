"""1. Kafka → `Envelope[bytes]`: the source whose worker reads as one member of a consumer group.

Only the engine's side lies here; the consumer is `kafka.consumer`, the worker's loop is `runtime.worker`.
"""

import bytewax.operators as op
from bytewax.dataflow import Dataflow, Stream, operator

from lovelace_streams.errors import DeploymentFault
from lovelace_streams.kafka.consumer import GroupConsumer
from lovelace_streams.records import Envelope
from lovelace_streams.sources.worker_source import TOPIC, WorkerSource


class KafkaSource(WorkerSource):
    """Read a flow's topics as one member of its consumer group; at run time the context of the worker's steps.

    `topics` are read together with `<pipeline>.replay`. `kafka_source` gives their messages as `Envelope[bytes]`, in
    the order of each partition, in windows of at most `settings.poll_size` messages gathered within `settings.linger`
    seconds.

    A restart reads again from the committed offset: messages that were settled but not committed are repeated, and
    every effect is idempotent. The worker waits for a broker that is away. A deployment that cannot work (no such
    topic, no access, an expired offset) stops the worker with one line and exit code 78. Nothing is opened and nothing
    is raised before the flow runs.

    >>> from lovelace_streams import KafkaSettings
    >>> source = KafkaSource(KafkaSettings("127.0.0.1:9092"), topics=["orders.raw"])
    >>> source.topics, source.pipeline  # the flow names the pipeline, unless the settings name a group
    (('orders.raw',), None)
    """

    def begins(self, flow: Dataflow) -> None:
        """Note the flow as `WorkerSource` does. Raises `DeploymentFault` for what can't be the name of a topic, too."""
        if bad := [topic for topic in self.topics if not TOPIC.fullmatch(topic)]:
            raise DeploymentFault(
                f"topics: Kafka has no topic {bad[0]!r}: use letters, digits, '.', '_' and '-', at most 249 of them"
            )
        super().begins(flow)

    def make_reader(self) -> GroupConsumer:
        """Make the group's consumer; it joins the group when it is opened."""
        return GroupConsumer(self)


@operator
def kafka_source(step_id: str, flow: Dataflow, source: KafkaSource) -> Stream[Envelope[bytes]]:
    """Read the source's topics: `Envelope[bytes]`, one a message, in windows, each partition in its order.

    The consumer group is named like the flow, unless `source.settings.group` names another. Nothing leaves by `errs`;
    `KafkaSource` says what stops the worker, and what a restart reads again.

    >>> from bytewax.dataflow import Dataflow
    >>> from lovelace_streams import KafkaSettings
    >>> source = KafkaSource(KafkaSettings("127.0.0.1:9092"), topics=["orders.raw"])
    >>> flow = Dataflow("orders")
    >>> raw = kafka_source("kafka", flow, source)
    >>> source.pipeline
    'orders'
    """
    source.begins(flow)
    return op.input("input", flow, source)
