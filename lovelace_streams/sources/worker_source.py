"""1. A worker's context as a Bytewax source: the engine asks for the next window until the worker has ended.

A source of one's own subclasses `WorkerSource` and makes in `make_reader` the reader of its records (the protocol is in
`runtime.reader`). No step knows which source it runs behind.
"""

import re
from collections.abc import Iterable
from typing import Any

import bytewax.operators as op
import structlog
from bytewax.dataflow import Dataflow, Stream, operator
from bytewax.inputs import DynamicSource, StatelessSourcePartition

from lovelace_streams.errors import DeploymentFault
from lovelace_streams.kafka.client import KafkaClients
from lovelace_streams.observability import tracing
from lovelace_streams.records import Envelope
from lovelace_streams.runtime.reader import Clients
from lovelace_streams.runtime.worker import WorkerContext
from lovelace_streams.settings import KafkaSettings
from lovelace_streams.sources.plan import column_plan
from lovelace_streams.sources.ports import loose_ports, refusal_of

log = structlog.get_logger(__name__)

TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
"""Kafka's own rule for the name of a topic."""
PIPELINE_MAX = 249 - len(".progress")
"""The longest name of a pipeline, after which its own topics are named."""


def checked_topics(topics: Any) -> tuple[str, ...]:
    """Give the topics of a source. Raises `DeploymentFault` for none, a bare text, and what is no text."""
    if isinstance(topics, str | bytes):
        shown = topics if isinstance(topics, str) else topics.decode("utf-8", "replace")
        raise DeploymentFault(f"topics={shown!r} is one text, which would be read as letters: write topics=[{shown!r}]")
    found = tuple(topics)
    if not found:
        raise DeploymentFault("the source has no topic: name those that the flow reads, topics=['orders.raw']")
    if bad := [topic for topic in found if not isinstance(topic, str) or not topic.strip()]:
        raise DeploymentFault(f"topics: expected names of topics, got {kind_of(bad[0])}: write topics=['orders.raw']")
    return found


def kind_of(thing: object) -> str:
    """Name what was given instead of a name, without an address."""
    return f"the empty text {thing!r}" if isinstance(thing, str) else type(thing).__name__


def check_pipeline(flow_id: str, settings: KafkaSettings) -> None:
    """Refuse a name that `<name>.dlq` and `<name>.replay` can't have. A group of the settings may have any name."""
    name, where = settings.group or flow_id, "CONSUMER_GROUP_ID" if settings.group else f"Dataflow({flow_id!r})"
    if settings.group and settings.dead_letter_topic:
        return
    if not TOPIC.fullmatch(name) or len(name) > PIPELINE_MAX:
        raise DeploymentFault(
            f"{where} names the flow's own topics, {name + '.dlq'!r} and others, and Kafka does not take that: use "
            f"letters, digits, '.', '_' and '-', at most {PIPELINE_MAX} of them"
        )


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
        super().__init__(settings, checked_topics(topics), clients or KafkaClients())
        self.flow: Dataflow | None = None

    def begins(self, flow: Dataflow) -> None:
        """Note the flow that reads this source: it names the pipeline, and its ports are checked before it runs.

        Raises `DeploymentFault` for a name that no topic can have.
        """
        self.flow = flow
        check_pipeline(flow.flow_id, self.settings)
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
        if self.flow is not None and not self.fault:
            plan = column_plan(self.flow, self, traced=tracing.is_on())
            odd = [event.event for event in plan.events if event.needs_items]
            log.info("plan", pipeline=self.pipeline, way=plan.way, reason=plan.reason, as_items=odd)
            self.columnar = plan.loop
        return _Worker(self)


class _Worker(StatelessSourcePartition[Envelope[bytes]]):
    """The engine's side of a source: the two calls that Bytewax makes."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context

    def next_batch(self) -> list[Any]:
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
