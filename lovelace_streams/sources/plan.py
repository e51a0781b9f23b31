"""The plan of a flow: whether messages pass its steps as columns, and at which step, for which event, they can't.

Theory of this file. Columns (`columns`) flow where our own steps follow each other without anything between, from the
source to the writer, and each of them takes columns: the format gives them (`SupportsColumns` of `formats.decoder`),
row classes map them, the writer encodes them (`SupportsColumns` of `writers.column_block`). A step of the flow's own
gets items one by one, and so does everything before it: an object is then made anyway. So one step that needs items has
all messages of its source pass as items. An event that needs them has its own messages pass so, beside the others.

The plan is made here and nowhere else. A worker makes it once, at its start, and its source has the loop; `lovelace
explain` and `lovelace check` print it. Nothing connects, and no record is looked at.
"""

from collections.abc import Mapping
from itertools import repeat
from typing import Any

import msgspec
from bytewax.dataflow import Dataflow

from lovelace_streams.columns import AdaptiveLoop, ColumnLoop, EncodingLoop
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.formats.decoder import SupportsColumns as FormatSupportsColumns
from lovelace_streams.formats.decoder import SupportsTargets
from lovelace_streams.formats.made_again import MakeAgain
from lovelace_streams.rows.normalizer import Normalizer, normalizer
from lovelace_streams.sources.ports import ENDS, operator_of
from lovelace_streams.sources.route import PORTS, ROUTE, Stage, name_of, source_steps, stages
from lovelace_streams.writers import SupportsWays
from lovelace_streams.writers.column_block import SupportsColumns as WriterSupportsColumns
from lovelace_streams.writers.column_block import SupportsEncodeAtOnce

COLUMNS, ITEMS = "columns", "items"
"""The two ways of messages."""
UNNAMED = frozenset({"sorted_ports"})
"""Operators of ours that are a part of the step before them."""


class StepPlan(msgspec.Struct, frozen=True):
    """A step that messages of a source pass."""

    step: str
    operator: str
    """`decode`, and so on; for a step of the flow's own Bytewax' operator, as `op.map`."""
    needs_items: str = ""
    """Why it has messages pass as items; "" if it does not."""
    writes: tuple[tuple[str, str], ...] = ()
    """Of `upsert`: the ways that a block may be written and when each is taken, as far as the declarations tell."""


class EventPlan(msgspec.Struct, frozen=True):
    """An event that a decoder takes items of."""

    event: str
    """"" where no event is named."""
    becomes: str
    """The row class, or the function, that makes a row of an item."""
    needs_items: str = ""
    """Why its messages pass as items; "" if they need not."""


class ColumnPlan(msgspec.Struct, frozen=True):
    """How messages of one source pass a flow's steps."""

    source: str = ""
    """The name of the step that reads."""
    topics: tuple[str, ...] = ()
    steps: tuple[StepPlan, ...] = ()
    events: tuple[EventPlan, ...] = ()
    loop: ColumnLoop | None = None
    """What makes columns of messages; None: they pass as items."""
    could: bool = False
    """Whether format and writer take columns, so that only the flow or its settings keep messages from passing so."""

    @property
    def way(self) -> str:
        """`columns` or `items`."""
        return ITEMS if self.loop is None else COLUMNS

    @property
    def reasons(self) -> tuple[str, ...]:
        """All that has messages of every event pass as items, in the order in which they meet it."""
        found = [each.needs_items for each in self.steps]
        if all(each.needs_items for each in self.events):
            found += [f"{each.event}: {each.needs_items}" if each.event else each.needs_items for each in self.events]
        return tuple(dict.fromkeys(filter(None, found)))

    def way_of(self, event: EventPlan) -> str:
        """Return the way of an event's messages."""
        return ITEMS if event.needs_items else self.way

    @property
    def reason(self) -> str:
        """The first of them; "" for columns."""
        return next(iter(self.reasons), "")


def column_plans(flow: Dataflow, *, traced: bool = False) -> list[ColumnPlan]:
    """Make the plan of each source of a flow; `traced`: spans are recorded.

    >>> import lovelace_streams as ls
    >>> class Order(ls.Row, table="orders", primary_key="id"):
    ...     id: int
    >>> flow = Dataflow("orders")
    >>> source = ls.KafkaSource(ls.KafkaSettings("127.0.0.1:9092"), topics=["orders.raw"])
    >>> _ = ls.decode("decode", ls.kafka_source("kafka", flow, source), ls.JsonDecoder(Order))
    >>> [(plan.way, plan.reason) for plan in column_plans(flow)]
    [('items', 'no step takes the items of decode')]
    """
    return [_plan(flow, step, traced=traced) for step in source_steps(flow)]


def column_plan(flow: Dataflow, source: Any, *, traced: bool = False) -> ColumnPlan:
    """Make the plan for what a flow reads from one source."""
    step = next((step for step in source_steps(flow) if step.source is source), None)
    return ColumnPlan() if step is None else _plan(flow, step, traced=traced)


def _plan(flow: Dataflow, source: Any, *, traced: bool) -> ColumnPlan:
    passed = [stage for stage in stages(flow, source) if operator_of(stage.step) not in UNNAMED]
    ours = {operator_of(stage.step): stage.step for stage in reversed(passed)}
    decoder = ours["decode"].decoder if "decode" in ours else None
    writer = ours["upsert"].writer if "upsert" in ours else None
    why = _needs_of_steps(flow, passed, traced=traced)
    mapper, reason = _mapper(ours.get("normalize"))
    if reason:
        why.setdefault(ours["normalize"].step_id, reason)
    loop, of_events, reason = _loop(decoder, mapper)
    if reason:
        why.setdefault(ours["decode"].step_id, reason)
    plan = ColumnPlan(
        name_of(flow, source),
        source.source.topics,
        tuple(_step(flow, stage.step, why.get(stage.step.step_id, "")) for stage in passed),
        _events(decoder, of_events),
        could=isinstance(decoder, FormatSupportsColumns) and isinstance(writer, WriterSupportsColumns),
    )
    if plan.reasons or loop is None or mapper is None or decoder is None:
        return plan
    if isinstance(writer, SupportsEncodeAtOnce):
        loop = EncodingLoop(loop, writer.encode_at_once, MakeAgain(loop, decoder, mapper))
    return msgspec.structs.replace(plan, loop=AdaptiveLoop(loop))


def _step(flow: Dataflow, step: Any, why: str) -> StepPlan:
    writer = step.writer if operator_of(step) == "upsert" else None
    writes = tuple(writer.ways()) if isinstance(writer, SupportsWays) else ()
    return StepPlan(name_of(flow, step), operator_of(step) or _operator(step), why, writes)


def _operator(step: Any) -> str:
    """Name the operator of a step of the flow's own, as its author imports Bytewax'."""
    kind = type(step)
    return f"{'op.' if kind.__module__.startswith('bytewax.') else ''}{kind.__name__}"


# ---- why steps need items -------------------------------------------------------------------------------------------


def _needs_of_steps(flow: Dataflow, passed: list[Stage], *, traced: bool) -> dict[str, str]:
    """Return the steps that need items, by their id, each with the reason."""
    needs: dict[str, str] = {}
    if reason := _need_of_source(passed[0].step, traced=traced):
        needs[passed[0].step.step_id] = reason
    for expected, stage in zip((operator_of(passed[0].step), *ROUTE, *repeat("", len(passed))), passed, strict=False):
        reason = _need_of_step(flow, stage)
        if not (reason or needs) and operator_of(stage.step) != expected:
            reason = f"{name_of(flow, stage.step)} is where {expected or 'the way ends'} would be"
        if reason:
            needs.setdefault(stage.step.step_id, reason)
    return needs


def _need_of_source(step: Any, *, traced: bool) -> str:
    if operator_of(step) != "kafka_source":
        return f"{type(step.source).__name__} gives items"
    if not step.source.settings.columnar:
        return "COLUMNAR=off"
    return "tracing is on, and a span is linked to each record" if traced else ""


def _need_of_step(flow: Dataflow, stage: Stage) -> str:
    step, operator, name = stage.step, operator_of(stage.step), name_of(flow, stage.step)
    if operator == "upsert":
        writer = step.writer
        return writer.needs_rows if isinstance(writer, WriterSupportsColumns) else f"{type(writer).__name__} takes rows"
    if operator not in PORTS:
        return f"{_operator(step)}({name!r}), a step of the flow's own, takes items"
    if operator == "decode" and not isinstance(step.decoder, FormatSupportsColumns):
        return f"{type(step.decoder).__name__} gives items"
    if not stage.takers:
        return f"no step takes the items of {name}"
    ours = [taker for taker in stage.takers if operator_of(taker)]
    ends = [name_of(flow, taker) for taker in ours if operator_of(taker) in ENDS]
    if ends:
        return f"{ends[0]} takes the items of {name}"
    return f"{len(ours)} steps take the items of {name}" if len(ours) > 1 else ""


# ---- why events need items ------------------------------------------------------------------------------------------


def _mapper(step: Any) -> tuple[Normalizer | None, str]:
    """Make what a `normalize` step maps by, or say why that maps item by item."""
    try:
        mapper = None if step is None else normalizer(step.target, skips=step.skips)
    except (TypeError, ValueError, DeploymentFault) as fault:  # the step itself says it, too
        return None, str(fault)
    reason = "" if mapper is None else mapper.items_only
    return (None if reason else mapper), reason


def _loop(decoder: Any, mapper: Normalizer | None) -> tuple[ColumnLoop | None, Mapping[str, str], str]:
    """Make the loop of a decoder; say also which events need items and why, or what is wrong with it."""
    if mapper is None or not isinstance(decoder, FormatSupportsColumns):
        return None, {}, ""
    try:
        reasons = decoder.needs_items(mapper)
        none = bool(reasons) and all(reasons.values())
        return None if none else decoder.column_loop(mapper), reasons, ""
    except (TypeError, ValueError, DeploymentFault) as fault:
        return None, {}, str(fault)


def _events(decoder: Any, reasons: Mapping[str, str]) -> tuple[EventPlan, ...]:
    if not isinstance(decoder, SupportsTargets):
        return tuple(EventPlan(event, "", reason) for event, reason in reasons.items())
    return tuple(
        EventPlan(str(event), target.name, reasons.get(str(event), "")) for event, target in decoder.targets.items()
    )
