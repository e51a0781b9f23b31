"""1. A worker's context as a Bytewax source: the engine asks for the next window until the worker has ended.

A source of one's own subclasses `WorkerSource` and makes in `make_reader` the reader of its records (the protocol is in
`runtime.reader`). No step knows which source it runs behind.
"""

from collections.abc import Iterable

import bytewax.operators as op
from bytewax.dataflow import Dataflow, Stream, operator
from bytewax.inputs import DynamicSource, StatelessSourcePartition

from lovelace_streams.errors import DeploymentFault
from lovelace_streams.kafka.client import KafkaClients
from lovelace_streams.records import Envelope
from lovelace_streams.runtime.reader import Clients
from lovelace_streams.runtime.worker import WorkerContext
from lovelace_streams.settings import KafkaSettings
from lovelace_streams.sources.ports import loose_ports, refusal_of


class WorkerSource(WorkerContext, DynamicSource[Envelope[bytes]]):
    """Base class of sources: reads through the reader that `make_reader` returns, and is the context of the steps.

    `worker_source` gives its messages as `Envelope[bytes]`, in windows, each partition in its order. `topics` name what
    is read, in reports and letters; `settings` name the broker that dead letters go to; `clients` make librdkafka's
    clients, unless a test brings others. A restart begins at the position that the reader committed last.

    >>> from lovelace_streams import KafkaSettings
    >>> class FileSource(WorkerSource):
    ...     def make_reader(self):
    ...         raise NotImplementedError("return a `runtime.reader.Reader` of the files")
    >>> FileSource(KafkaSettings("127.0.0.1:9092"), topics=["orders"]).topics
    ('orders',)
    """

    def __init__(self, settings: KafkaSettings, topics: Iterable[str], clients: Clients | None = None) -> None:
        super().__init__(settings, topics, clients or KafkaClients())
        self.flow: Dataflow | None = None

    def begins(self, flow: Dataflow) -> None:
        """Note the flow that reads this source: it names the pipeline, and its ports are checked before it runs."""
        self.flow = flow
        self.pipeline = self.pipeline or flow.flow_id

    def build(self, step_id: str, worker_index: int, worker_count: int) -> "_Worker":  # noqa: ARG002
        """Start the one worker of this process; more processes share the partitions out among them."""
        if worker_count > 1:
            self.note(
                DeploymentFault(
                    f"{step_id}: a flow in a consumer group runs one worker a process, not {worker_count}; "
                    f"start `python -m bytewax.run` again instead, and the partitions are shared out"
                )
            )
        if self.flow is not None and (loose := loose_ports(self.flow)):
            self.note(DeploymentFault(refusal_of(loose)))
        self.begin()
        return _Worker(self)


class _Worker(StatelessSourcePartition[Envelope[bytes]]):
    """The engine's side of a source: the two calls that Bytewax makes."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context

    def next_batch(self) -> list[Envelope[bytes]]:
        return self._context.next_window()

    def close(self) -> None:
        self._context.close()


@operator
def worker_source(step_id: str, flow: Dataflow, source: WorkerSource) -> Stream[Envelope[bytes]]:
    """Read a source of one's own: `Envelope[bytes]`, one a message, in windows, each partition in its order.

    The pipeline is named like the flow, unless `source.settings.group` names another. Nothing leaves by `errs`;
    `WorkerSource` says what a restart reads again.

    >>> from bytewax.dataflow import Dataflow
    >>> from lovelace_streams import KafkaSettings
    >>> source = WorkerSource(KafkaSettings("127.0.0.1:9092"), topics=["orders"])
    >>> raw = worker_source("files", Dataflow("orders"), source)
    >>> source.pipeline
    'orders'
    """
    source.begins(flow)
    return op.input("input", flow, source)
