"""What `lovelace explain` says of a flow's plan (`sources.plan`), for people and for programs.

Nothing connects. The plan is the worker's own; here it is only put into words.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
from bytewax.dataflow import Dataflow

from lovelace_streams.observability import tracing
from lovelace_streams.settings import Settings
from lovelace_streams.sources.plan import COLUMNS, ColumnPlan, column_plans

HEAD = ("part", "name", "what", "way", "why")
"""The columns of the table: a `step`, an `event`, or how a step `writes`."""


def plans_of(flow: Dataflow, settings: Settings) -> list[ColumnPlan]:
    """Make the plan of each source of a flow, as a worker with these settings makes it."""
    return column_plans(flow, traced=tracing.endpoint_of(settings) is not None)


def headline(plan: ColumnPlan) -> str:
    """Say in one line which way the messages of a source go, and the first reason.

    >>> headline(ColumnPlan("kafka", ("orders.raw",)))
    'kafka: orders.raw: messages pass as items'
    """
    topics = ", ".join(plan.topics)
    if plan.way == COLUMNS:
        others = [event.event for event in plan.events if event.needs_items]
        but = f"; those of {', '.join(others)} as items" if others else ""
        return f"{plan.source}: {topics}: messages pass as columns, decoded and mapped in one loop{but}"
    return f"{plan.source}: {topics}: messages pass as items" + (f", because {plan.reason}" if plan.reason else "")


def table(plan: ColumnPlan) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield the rows of a plan's table, with the columns of `HEAD`."""
    for step in plan.steps:
        yield "step", step.step, step.operator, plan.way, step.needs_items
    for event in plan.events:
        yield "event", event.event or "every message", event.becomes, plan.way_of(event), event.needs_items
    for step in plan.steps:
        for way, when in step.writes:
            yield "write", step.step, "", way, when


def told(plan: ColumnPlan) -> dict[str, Any]:
    """Return a plan as plain values, for JSON."""
    way = {"way": plan.way}
    steps, events = msgspec.to_builtins(plan.steps), msgspec.to_builtins(plan.events)
    for step in steps:
        step["writes"] = [{"way": written, "when": when} for written, when in step["writes"]]
    return {
        "source": plan.source,
        "topics": list(plan.topics),
        "way": plan.way,
        "reasons": list(plan.reasons),
        "steps": [step | way for step in steps],
        "events": [event | {"way": plan.way_of(each)} for event, each in zip(events, plan.events, strict=True)],
    }


def note(plan: ColumnPlan) -> str:
    """Say why a flow that could be quick is not; "" for one that is, or that can't be."""
    if plan.way == COLUMNS or not plan.could:
        return ""
    return f"{plan.source}: messages pass item by item, because {plan.reason}: `lovelace explain FLOW` says more"
