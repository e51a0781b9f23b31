"""The parts of a flow, read from the flow itself: a Bytewax step keeps the arguments that it was built with.

Nothing runs and nothing connects. `lovelace check`, `ddl` and `submit` learn in this way what a flow reads, how it
decodes, what its rows are and where they go. A flow needs no further declaration for that.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
from bytewax.dataflow import Dataflow

from lovelace_streams.errors import DeploymentFault
from lovelace_streams.formats.decoder import Decoder
from lovelace_streams.rows.row import Row
from lovelace_streams.settings import ProgressSettings
from lovelace_streams.sources.kafka import KafkaSource
from lovelace_streams.sources.ports import LoosePort, loose_ports, operator_of
from lovelace_streams.sources.route import ROUTE, name_of, source_steps, stages
from lovelace_streams.writers import Writer


class Route(msgspec.Struct, frozen=True):
    """The way of records through a flow, as far as our own steps follow each other; None from where they do not."""

    source: KafkaSource
    decoder: Decoder | None = None
    target: type[Row] | Callable[..., Any] | Sequence[type[Row]] | None = None
    writer: Writer | None = None
    last: str = "kafka_source"
    """The operator of the last of our steps that follow each other: `upsert` where all do."""
    own_step: str | None = None
    """The flow's own step that takes the records after `last`; None if no step does."""
    skips: tuple[str, ...] = ()
    """The reasons of the flow's own that its functions skip items for."""


class Topology(msgspec.Struct, frozen=True):
    """A flow's parts, in the order in which they were built."""

    name: str
    routes: tuple[Route, ...]
    writers: tuple[Writer, ...]
    progress: ProgressSettings | None
    """None where the flow ends in `commit`, or where no progress service is set."""
    counts: bool
    """Whether it ends in `progress`, which counts for jobs where there is a service."""
    loose: tuple[LoosePort, ...]
    """Ports that lead nowhere: no worker runs such a flow."""
    flow: Dataflow

    @property
    def source(self) -> KafkaSource:
        """Its first source: the group, the dead letters and the replays are named by its pipeline."""
        return self.routes[0].source

    @property
    def rows(self) -> tuple[type[Row], ...]:
        """All row classes that it writes, each once."""
        return tuple(dict.fromkeys(row for writer in self.writers for row in writer.rows))

    @property
    def topics(self) -> tuple[str, ...]:
        """All topics that it reads, each once."""
        return tuple(dict.fromkeys(topic for route in self.routes for topic in route.source.topics))


def topology_of(flow: Dataflow) -> Topology:
    """Read a flow. Raises `DeploymentFault` for one that reads no `KafkaSource`.

    >>> from lovelace_streams import KafkaSettings, KafkaSource, Row, kafka_source
    >>> flow = Dataflow("orders")
    >>> up = kafka_source("kafka", flow, KafkaSource(KafkaSettings("127.0.0.1:9092"), topics=["orders.raw"]))
    >>> topology_of(flow).routes[0].source.topics
    ('orders.raw',)
    """
    steps = list(_our_steps(flow.substeps))
    sources = [step for step in source_steps(flow) if operator_of(step) == "kafka_source"]
    if not sources:
        raise DeploymentFault(f"the flow {flow.flow_id!r} reads no topic: begin it with ls.kafka_source(…)")
    ends = [step.settings for step in steps if operator_of(step) == "progress"]
    return Topology(
        name=flow.flow_id,
        routes=tuple(_route(flow, source) for source in sources),
        writers=tuple(dict.fromkeys(step.writer for step in steps if operator_of(step) == "upsert")),
        progress=next((settings for settings in ends if settings.url is not None), None),
        counts=bool(ends),
        loose=loose_ports(flow),
        flow=flow,
    )


def _our_steps(steps: list[Any]) -> Iterator[Any]:
    """Our steps, also those within operators that a flow's author composed of them."""
    for step in steps:
        if operator_of(step):
            yield step
        else:
            yield from _our_steps(getattr(step, "substeps", []))


def _route(flow: Dataflow, source: Any) -> Route:
    """Follow records from a source on, as long as the next of our steps takes them."""
    passed = {stage.step.step_id: stage for stage in stages(flow, source)}
    found: dict[str, Any] = {}
    last = passed[source.step_id]
    for operator in ROUTE:
        step = last.taker(operator)
        if step is None:
            break
        found[operator] = step
        last = passed[step.step_id]
    return Route(
        source.source,
        getattr(found.get("decode"), "decoder", None),
        getattr(found.get("normalize"), "target", None),
        getattr(found.get("upsert"), "writer", None),
        operator_of(last.step),
        next((name_of(flow, taker) for taker in last.takers), None),
        tuple(getattr(found.get("normalize"), "skips", ())),
    )
