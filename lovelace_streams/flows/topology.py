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
from lovelace_streams.sources.ports import LoosePort, all_steps, loose_ports, operator_of
from lovelace_streams.writers import Writer

ROUTE = ("decode", "normalize", "batch", "upsert")
"""Our steps in the order in which records pass them."""


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
    sources = [step for step in steps if operator_of(step) == "kafka_source"]
    if not sources:
        raise DeploymentFault(f"the flow {flow.flow_id!r} reads no topic: begin it with ls.kafka_source(…)")
    ends = [step.settings for step in steps if operator_of(step) == "progress"]
    return Topology(
        name=flow.flow_id,
        routes=tuple(_route(source, steps, flow) for source in sources),
        writers=tuple(dict.fromkeys(step.writer for step in steps if operator_of(step) == "upsert")),
        progress=next((settings for settings in ends if settings.url is not None), None),
        counts=bool(ends),
        loose=loose_ports(flow),
    )


def _our_steps(steps: list[Any]) -> Iterator[Any]:
    """Our steps, also those within operators that a flow's author composed of them."""
    for step in steps:
        if operator_of(step):
            yield step
        else:
            yield from _our_steps(getattr(step, "substeps", []))


def _route(source: Any, steps: list[Any], flow: Dataflow) -> Route:
    """Follow the stream from a source on."""
    found: dict[str, Any] = {}
    last, stream = "kafka_source", source.down
    for operator in ROUTE:
        step = next((each for each in steps if operator_of(each) == operator and _takes(each, stream)), None)
        if step is None:
            break
        found[operator] = step
        last, stream = operator, getattr(step, "oks", None) or getattr(step, "down", None)
    whole = last == ROUTE[-1]
    return Route(
        source.source,
        getattr(found.get("decode"), "decoder", None),
        getattr(found.get("normalize"), "target", None),
        getattr(found.get("upsert"), "writer", None),
        last,
        None if whole else next((each.step_name for each in all_steps(flow.substeps) if _takes(each, stream)), None),
        tuple(getattr(found.get("normalize"), "skips", ())),
    )


def _takes(step: Any, stream: Any) -> bool:
    """Whether a stream enters a step."""
    return any(stream.stream_id in getattr(step, name).stream_ids.values() for name in step.ups_names)
