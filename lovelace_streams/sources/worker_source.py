"""1. A worker's context as a Bytewax source: the engine asks for the next window, and hears when the worker has ended.

A source of one's own subclasses `WorkerSource` and says in `make_reader` what reads its records (`runtime.reader`). No
step knows which source it runs behind.
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


class WorkerSource(WorkerContext, DynamicSource[Envelope[bytes]]):
    """Gives `Envelope[bytes]` in the order of each partition, in windows; and is the context of the worker's steps.

    `settings` name the broker that dead letters go to; `clients` are those of librdkafka unless a test brings others.
    """

    def __init__(self, settings: KafkaSettings, topics: Iterable[str], clients: Clients | None = None) -> None:
        super().__init__(settings, topics, clients or KafkaClients())

    def build(self, step_id: str, worker_index: int, worker_count: int) -> "_Worker":  # noqa: ARG002
        """Begin the one worker of this process: partitions are shared out by starting more processes."""
        if worker_count > 1:
            self.note(
                DeploymentFault(
                    f"{step_id}: a flow in a consumer group runs one worker a process, not {worker_count}; "
                    f"start `python -m bytewax.run` again instead, and the partitions are shared out"
                )
            )
        self.begin()
        return _Worker(self)


class _Worker(StatelessSourcePartition[Envelope[bytes]]):
    """The engine's end of a source: nothing but the two calls."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context

    def next_batch(self) -> list[Envelope[bytes]]:
        return self._context.next_window()

    def close(self) -> None:
        self._context.close()


@operator
def worker_source(step_id: str, flow: Dataflow, source: WorkerSource) -> Stream[Envelope[bytes]]:
    """Read any source; its pipeline is called like the flow, unless the settings name another."""
    source.pipeline = source.pipeline or flow.flow_id
    return op.input("input", flow, source)
