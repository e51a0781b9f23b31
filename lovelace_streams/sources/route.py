"""How records pass a flow, read from the flow itself before it runs: a step, and the steps that take its items.

A Bytewax step keeps the names of the streams that it takes and gives. `stages` follows them from a source on, by the
port that leads to the next of our steps; a step of the flow's own is followed by all of its ports. What leaves a step
on another way (dead letters, skips) is `ports`' business.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from bytewax.dataflow import Dataflow, Operator

from lovelace_streams.sources.ports import ENDS, all_steps, operator_of, streams_of

SOURCES = frozenset({"kafka_source", "worker_source"})
"""Our operators that read."""
ROUTE = ("decode", "normalize", "batch", "upsert")
"""Our steps in the order in which records pass them, after the source."""
PORTS = {"kafka_source": "down", "worker_source": "down", "decode": "oks", "normalize": "oks", "batch": "down"}
"""Operator → the port that leads to the next of our steps."""


class Stage(msgspec.Struct, frozen=True):
    """A step that records pass, and the steps that take its items."""

    step: Any
    takers: tuple[Any, ...]

    def taker(self, operator: str) -> Any:
        """Return the first step of one of our operators that takes its items; None if there is none."""
        return next((taker for taker in self.takers if operator_of(taker) == operator), None)


def source_steps(flow: Dataflow) -> list[Any]:
    """Return the steps that read, in the order in which they were built."""
    return [step for step in all_steps(flow.substeps) if operator_of(step) in SOURCES]


def stages(flow: Dataflow, source: Any) -> Iterator[Stage]:
    """Follow the records of a source's step; yields each step that they reach once, those nearest to the source first.

    The ends, which settle what they take (`dead_letter`, `commit`), are among the takers, and are not followed.

    >>> import lovelace_streams as ls
    >>> class Order(ls.Row, table="orders", primary_key="id"):
    ...     id: int
    >>> flow = Dataflow("orders")
    >>> source = ls.KafkaSource(ls.KafkaSettings("127.0.0.1:9092"), topics=["orders.raw"])
    >>> decoded = ls.decode("decode", ls.kafka_source("kafka", flow, source), ls.JsonDecoder(Order))
    >>> _ = ls.normalize("orders", decoded.oks, Order)
    >>> [step] = source_steps(flow)
    >>> [(name_of(flow, stage.step), len(stage.takers)) for stage in stages(flow, step)]
    [('kafka', 1), ('decode', 1), ('orders', 0)]
    """
    takers: dict[str, list[Any]] = {}
    for node in _nodes(flow.substeps):
        for stream in streams_of(node, node.ups_names):
            takers.setdefault(stream, []).append(node)
    waiting, seen = [source], {source.step_id}
    for step in waiting:
        onward = {taker.step_id: taker for stream in _onward(step) for taker in takers.get(stream, [])}
        yield Stage(step, tuple(onward.values()))
        for name, taker in onward.items():
            if name not in seen and operator_of(taker) not in ENDS:
                seen.add(name)
                waiting.append(taker)


def name_of(flow: Dataflow, step: Any) -> str:
    """Name a step as the flow's author does; a part of a composed step has that one's name before its own."""
    return str(step.step_id.removeprefix(f"{flow.flow_id}."))


def _nodes(steps: Iterable[Operator]) -> Iterator[Any]:
    """Our steps, and the flow's own whole; of one that is composed of ours, its parts."""
    for step in steps:
        if operator_of(step) or not any(map(operator_of, all_steps(step.substeps))):
            yield step
        else:
            yield from _nodes(step.substeps)


def _onward(step: Any) -> list[str]:
    """Streams that records leave a step by."""
    operator = operator_of(step)
    if operator in PORTS:
        return streams_of(step, [PORTS[operator]])
    return [] if operator == ROUTE[-1] else streams_of(step, step.dwn_names)
