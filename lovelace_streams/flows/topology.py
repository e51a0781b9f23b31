"""What a flow is made of, read from the flow itself: a Bytewax step keeps what it was built with.

Nothing runs and nothing connects. `lovelace check`, `ddl` and `submit` learn so what a flow reads, how it decodes, what
its rows are and where they go, whoever wrote it; a flow needs to say nothing about itself.
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
from lovelace_streams.writers import Writer


class Route(msgspec.Struct, frozen=True):
    """One way of records through a flow, as far as our own steps follow each other; None from where they do not."""

    source: KafkaSource
    decoder: Decoder | None = None
    target: type[Row] | Callable[..., Any] | Sequence[type[Row]] | None = None
    writer: Writer | None = None


class Topology(msgspec.Struct, frozen=True):
    """A flow's parts, in the order in which they were built."""

    name: str
    lanes: tuple[Route, ...]
    writers: tuple[Writer, ...]
    progress: ProgressSettings | None
    """None where the flow ends in `commit`, or reports to nobody."""
    counts: bool
    """Whether it ends in `progress`, which counts for jobs where there is a service."""

    @property
    def source(self) -> KafkaSource:
        """Where it reads, and what it is called there: its group, its dead letters, its replays."""
        return self.lanes[0].source

    @property
    def rows(self) -> tuple[type[Row], ...]:
        """All row classes that are written, each once."""
        return tuple(dict.fromkeys(row for writer in self.writers for row in writer.rows))


def topology_of(flow: Dataflow) -> Topology:
    """Read a flow. Raises `DeploymentFault` for one that reads no `KafkaSource`.

    >>> from lovelace_streams import KafkaSettings, KafkaSource, Row, kafka_source
    >>> flow = Dataflow("orders")
    >>> up = kafka_source("kafka", flow, KafkaSource(KafkaSettings("127.0.0.1:9092"), topics=["orders.raw"]))
    >>> topology_of(flow).lanes[0].source.topics
    ('orders.raw',)
    """
    steps = list(_steps(flow.substeps))
    sources = [step for step in steps if _kind(step) == "kafka_source"]
    if not sources:
        raise DeploymentFault(f"the flow {flow.flow_id!r} has no kafka_source: there is nothing to read")
    ends = [step.settings for step in steps if _kind(step) == "progress"]
    return Topology(
        name=flow.flow_id,
        lanes=tuple(_lane(source, steps) for source in sources),
        writers=tuple(dict.fromkeys(step.writer for step in steps if _kind(step) == "upsert")),
        progress=next((settings for settings in ends if settings.url is not None), None),
        counts=bool(ends),
    )


def _steps(steps: list[Any]) -> Iterator[Any]:
    """Our steps, also those within operators that somebody composed of them."""
    for step in steps:
        if _kind(step):
            yield step
        else:
            yield from _steps(getattr(step, "substeps", []))


def _kind(step: Any) -> str:
    """The name of one of our operators, "" for any other."""
    kind = type(step)
    return kind.__name__ if kind.__module__.partition(".")[0] == __name__.partition(".")[0] else ""


def _lane(source: Any, steps: list[Any]) -> Route:
    """Follow the streams from a source on."""
    decoder = _next("decode", source.down, steps)
    normalizer = decoder and _next("normalize", decoder.oks, steps)
    batch = normalizer and _next("batch", normalizer.oks, steps)
    writer = batch and _next("upsert", batch.down, steps)
    return Route(
        source.source,
        decoder and decoder.decoder,
        normalizer and normalizer.target,
        writer and writer.writer,
    )


def _next(kind: str, port: Any, steps: list[Any]) -> Any:
    """The step that takes what leaves by a port."""
    return next((step for step in steps if _kind(step) == kind and step.up.stream_id == port.stream_id), None)
