"""Whether a flow's messages may pass its steps as columns, read from the flow itself before it runs; and why not.

Theory of this file. Columns flow where our own steps follow each other without anything between, from the source to the
writer, and each of them takes columns: the format gives them (`SupportsColumns` of `formats.decoder`), row classes map
them, the writer encodes them (`SupportsColumns` of `writers`). A step of the flow's own gets items one by one, and so
does everything before it: an object is then made anyway. The plan is made once, and the source has it.
"""

from itertools import pairwise
from typing import Any

import msgspec
from bytewax.dataflow import Dataflow

from lovelace_streams.columns import AdaptiveLoop, ColumnLoop, ItemsOnly
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.formats.decoder import SupportsColumns as FormatSupportsColumns
from lovelace_streams.rows.normalizer import normalizer
from lovelace_streams.sources.ports import all_steps, operator_of
from lovelace_streams.writers.column_block import SupportsColumns as WriterSupportsColumns

WAY = (("kafka_source", "down"), ("decode", "oks"), ("normalize", "oks"), ("batch", "down"), ("upsert", ""))
"""Our steps in the order in which records pass them, and the port that leads to the next."""


class ColumnPlan(msgspec.Struct, frozen=True):
    """How a flow's messages pass its steps."""

    loop: ColumnLoop | None = None
    """What makes columns of messages; None: they pass as items."""
    reason: str = ""
    """Why they pass as items."""
    reasons: dict[str, str] = {}
    """Event → why it needs items; "" for one that would not."""


def column_plan(flow: Dataflow, source: Any) -> ColumnPlan:
    """Make the plan of a flow for what it reads from a source; builds and connects nothing.

    >>> import lovelace_streams as ls
    >>> class Order(ls.Row, table="orders", primary_key="id"):
    ...     id: int
    >>> flow = Dataflow("orders")
    >>> source = ls.KafkaSource(ls.KafkaSettings("127.0.0.1:9092"), topics=["orders.raw"])
    >>> _ = ls.decode("decode", ls.kafka_source("kafka", flow, source), ls.JsonDecoder(Order))
    >>> column_plan(flow, source).reason
    'no step takes the items of decode'
    """
    if not source.settings.columnar:
        return ColumnPlan(reason="COLUMNAR=off")
    try:
        steps = _way(flow, source)
        decoder, writer = steps["decode"].decoder, steps["upsert"].writer
        if not isinstance(decoder, FormatSupportsColumns):
            return ColumnPlan(reason=f"{type(decoder).__name__} gives items")
        if not isinstance(writer, WriterSupportsColumns):
            return ColumnPlan(reason=f"{type(writer).__name__} takes rows")
        target = steps["normalize"].target
        return ColumnPlan(AdaptiveLoop(decoder.column_loop(normalizer(target, skips=steps["normalize"].skips))))
    except ItemsOnly as needed:
        return ColumnPlan(reason=str(needed), reasons=dict(needed.reasons))
    except (TypeError, ValueError, DeploymentFault) as fault:  # the steps themselves say what is wrong
        return ColumnPlan(reason=str(fault))


def _way(flow: Dataflow, source: Any) -> dict[str, Any]:
    """Find our steps that follow each other. Raises `ItemsOnly` if another one takes what flows between them."""
    steps: list[Any] = list(all_steps(flow.substeps))
    found: dict[str, Any] = {}
    step: Any = next((each for each in steps if operator_of(each) == WAY[0][0] and each.source is source), None)
    for (operator, port), (following, _) in pairwise(WAY):
        if step is None:
            raise ItemsOnly({"": f"the flow has no {operator} step"})
        stream = getattr(step, port)
        takers = [each for each in steps if _takes(each, stream)]
        ours = [each for each in takers if operator_of(each) == following]
        others = [each for each in takers if each not in ours and not _is_within(each, ours)]
        if others:
            raise ItemsOnly({"": f"{others[0].step_name} takes the items of {step.step_name}"})
        if not ours:
            raise ItemsOnly({"": f"no step takes the items of {step.step_name}"})
        [step] = ours[:1]
        if len(ours) > 1:
            raise ItemsOnly({"": f"{ours[1].step_name} takes the items, too"})
        found[following] = step
    return found


def _takes(step: Any, stream: Any) -> bool:
    return any(stream.stream_id in getattr(step, name).stream_ids.values() for name in step.ups_names)


def _is_within(step: Any, ours: list[Any]) -> bool:
    """Whether a step is a part of one of ours."""
    return any(step.step_id.startswith(f"{each.step_id}.") for each in ours)
