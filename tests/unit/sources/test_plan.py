"""The plan of a flow: which way messages go, what keeps them from going as columns, and that a worker goes by it."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile
from typing import Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow, Stream, operator
from structlog.testing import capture_logs

import lovelace_streams as ls
from lovelace_streams.avro import AvroDecoder
from lovelace_streams.flows.explain import headline
from lovelace_streams.operators.ports import Sorted
from lovelace_streams.records import DeadLetter, Envelope, Record
from lovelace_streams.rows.targets import Target
from lovelace_streams.sources.plan import ColumnPlan, column_plans
from lovelace_streams.testing import run
from lovelace_streams.writers import Entry, RowResult
from lovelace_streams.writers.memory import MemoryWriter
from lovelace_streams.writers.postgres import PostgresWriter
from tests.unit.sources import test_worker_source

Between = Callable[[str, Stream[Any]], Stream[Any]]


class Item(ls.Row, table="items", primary_key="id"):
    id: int


class Looked(ls.Row, table="items", primary_key="id"):
    id: int

    def __post_init__(self) -> None:
        assert self.id


def clean(item: Any) -> Item:
    return Item(id=item["id"])


class ItemsDecoder:
    """A decoder that gives items; it decodes as `JsonDecoder` does."""

    waits = False

    def __init__(self, what: Any) -> None:
        self._json = ls.JsonDecoder(what)
        self.targets: dict[Any, Target] = dict(self._json.targets)

    def decode(
        self,
        record: Record,
        oks: list[Envelope[Any]],
        errs: list[DeadLetter],
        skipped: list[Any],
        step: str = "decode",
    ) -> None:
        self._json.decode(record, oks, errs, skipped, step)


class RowsWriter:
    """A writer that takes rows."""

    deadline = 30.0

    def __init__(self, *rows: type[ls.Row]) -> None:
        self._memory = MemoryWriter(*rows)
        self.rows = self._memory.rows
        self.capabilities = self._memory.capabilities
        self.name = "rows"

    def write(self, block: Sequence[Entry]) -> list[RowResult]:
        return self._memory.write(block)


@operator
def audit(step_id: str, up: Stream[Any]) -> Stream[Any]:
    """A step that its author composed of others."""
    return op.map("mark", op.filter("pass", up, bool), lambda it: it)


@operator
def normalized(step_id: str, up: Stream[Any]) -> Sorted:
    """A step that its author composed of ours."""
    return ls.normalize("normalize", up, Item)


def through(step: str, stream: Stream[Any]) -> Stream[Any]:
    return op.map(step, stream, lambda it: it)


def looked_at(step: str, stream: Stream[Any]) -> Stream[Any]:
    op.inspect(step, stream, lambda _step, _item: None)
    return stream


def part(
    flow: Dataflow,
    *,
    what: Any = Item,
    target: Any = Item,
    decoder: Callable[[Any], Any] = ls.JsonDecoder,
    writer: Callable[..., Any] = MemoryWriter,
    after: tuple[str, Between] | None = None,
    name: str = "",
    settings: ls.Settings | None = None,
) -> None:
    """Items from a topic into a writer, with a step of the flow's own after one of ours."""

    def between(step: str, stream: Stream[Any]) -> Stream[Any]:
        return after[1]("x", stream) if after is not None and after[0] == step else stream

    settings = settings or ls.Settings(_env_file=None, columnar=True)
    source = ls.KafkaSource(settings.kafka, topics=[f"{name}items"])
    raw = between("kafka", ls.kafka_source(f"{name}kafka", flow, source))
    decoded = ls.decode(f"{name}decode", raw, decoder(what))
    items = ls.normalize(f"{name}normalize", between("decode", decoded.oks), target)
    batches = between("batch", ls.batch(f"{name}batch", between("normalize", items.oks), settings.batch))
    written = ls.upsert(f"{name}upsert", batches, writer(Item, Looked), source)
    dead = ls.dead_letter(f"{name}dead_letter", source, decoded.errs, items.errs, written.errs)
    ls.commit(f"{name}commit", source, written.settled, dead.settled, decoded.skipped, items.skipped)


def plan_of(*, traced: bool = False, **parts: Any) -> ColumnPlan:
    flow = Dataflow("items")
    part(flow, **parts)
    [plan] = column_plans(flow, traced=traced)
    return plan


def needs(plan: ColumnPlan) -> dict[str, str]:
    """What needs items, by step or event."""
    told = {each.step: each.needs_items for each in plan.steps} | {each.event: each.needs_items for each in plan.events}
    return {name: reason for name, reason in told.items() if reason}


def test_messages_of_a_row_class_go_as_columns() -> None:
    plan = plan_of()

    assert (plan.way, plan.reason, plan.topics) == ("columns", "", ("items",))
    assert [step.step for step in plan.steps] == ["kafka", "decode", "normalize", "batch", "upsert"]
    assert [(event.event, event.becomes) for event in plan.events] == [("", "Item")]
    assert plan.steps[-1].writes == (("row by row", "always, into a dict"),)


@pytest.mark.parametrize("step", ["kafka", "decode", "normalize", "batch"])
@pytest.mark.parametrize(("own", "operator"), [(through, "op.map"), (looked_at, "op.inspect"), (audit, "audit")])
def test_a_step_of_the_flows_own_takes_items(step: str, own: Between, operator: str) -> None:
    plan = plan_of(after=(step, own))
    reason = f"{operator}('x'), a step of the flow's own, takes items"

    assert (plan.way, plan.loop, plan.could) == ("items", None, True)
    assert (plan.reason, needs(plan)["x"]) == (reason, reason)
    assert {"kafka", "decode", "normalize", "batch", "upsert", "x"} == {each.step for each in plan.steps}


@pytest.mark.parametrize(
    ("parts", "named", "reason"),
    [
        ({"target": clean}, "normalize", "items become rows by a function, clean"),
        ({"what": clean}, "", "items become rows by a function, clean"),
        ({"what": Looked}, "", "Looked has __post_init__, which looks at each row"),
        ({"traced": True}, "kafka", "tracing is on, and a span is linked to each record"),
        ({"settings": ls.Settings(_env_file=None, columnar=False)}, "kafka", "COLUMNAR=off"),
    ],
)
def test_what_the_flow_or_its_settings_say_keeps_messages_from_columns(
    parts: dict[str, Any], named: str, reason: str
) -> None:
    plan = plan_of(**parts)

    assert (plan.way, plan.reason, plan.could) == ("items", reason, True)
    assert needs(plan) == {named: reason}


@pytest.mark.parametrize(
    ("parts", "named", "reason"),
    [
        ({"decoder": ItemsDecoder}, "decode", "ItemsDecoder gives items"),
        ({"writer": RowsWriter}, "upsert", "RowsWriter takes rows"),
    ],
)
def test_a_format_or_writer_without_columns_leaves_nothing_to_do(
    parts: dict[str, Any], named: str, reason: str
) -> None:
    plan = plan_of(**parts)

    assert (plan.way, plan.reason, plan.could) == ("items", reason, False)
    assert needs(plan) == {named: reason}


def test_an_event_that_needs_items_is_named_and_leaves_the_others_alone() -> None:
    events = ls.Events(
        "type", {"seen": ls.Items("item", Item), "cleaned": ls.Items("item", clean)}, ls.Skip("unknown_event")
    )
    plan = plan_of(what=events)

    assert [(each.event, each.becomes) for each in plan.events] == [("seen", "Item"), ("cleaned", "clean")]
    assert needs(plan) == {"cleaned": "items become rows by a function, clean"}
    assert (plan.way, plan.reasons) == ("columns", ())
    assert [plan.way_of(event) for event in plan.events] == ["columns", "items"]
    assert headline(plan).endswith(
        "messages pass as columns, decoded and mapped in one loop; those of cleaned as items"
    )


class Passed(ls.Row, table="passed", primary_key="id"):
    id: int
    body: dict[str, Any]


def test_an_event_that_only_a_format_has_no_columns_of_is_named() -> None:
    fields = [{"name": "type", "type": "string"}, {"name": "id", "type": "long"}, {"name": "body", "type": "string"}]
    schema = {"type": "record", "name": "Seen", "fields": fields}
    events = ls.Events("type", {"seen": ls.Items("$", Item), "passed": ls.Items("$", Passed)}, ls.Skip("filtered"))
    with_passed = partial(MemoryWriter, Passed)
    plan = plan_of(what=events, decoder=partial(AvroDecoder, schema), target=[Item, Passed], writer=with_passed)

    assert needs(plan) == {"passed": "Passed.body reads JSON of any kind"}
    assert [plan.way_of(event) for event in plan.events] == ["columns", "items"]


def test_events_that_all_need_items_have_every_message_pass_as_items() -> None:
    events = ls.Events("type", {"one": ls.Items("item", clean), "two": ls.Items("it", clean)}, ls.Skip("unknown_event"))
    plan = plan_of(what=events)

    assert plan.way == "items"
    assert plan.reasons == tuple(f"{event}: items become rows by a function, clean" for event in ("one", "two"))


def test_everything_that_needs_items_is_told_at_once() -> None:
    plan = plan_of(after=("decode", through), target=clean, decoder=ItemsDecoder)

    assert plan.reasons == (
        "ItemsDecoder gives items",
        "op.map('x'), a step of the flow's own, takes items",
        "items become rows by a function, clean",
    )


def test_a_step_composed_of_ours_is_seen_through() -> None:
    settings = ls.Settings(_env_file=None, columnar=True)
    source = ls.KafkaSource(settings.kafka, topics=["items"])
    flow = Dataflow("items")
    decoded = ls.decode("decode", ls.kafka_source("kafka", flow, source), ls.JsonDecoder(Item))
    items = normalized("mapping", decoded.oks)
    ls.upsert("upsert", ls.batch("batch", items.oks, settings.batch), MemoryWriter(Item), source)
    [plan] = column_plans(flow)

    assert plan.way == "columns"
    assert [step.step for step in plan.steps] == ["kafka", "decode", "mapping.normalize", "batch", "upsert"]


def test_items_that_two_steps_take_are_made_one_by_one() -> None:
    settings = ls.Settings(_env_file=None, columnar=True)
    source = ls.KafkaSource(settings.kafka, topics=["items"])
    flow = Dataflow("items")
    decoded = ls.decode("decode", ls.kafka_source("kafka", flow, source), ls.JsonDecoder(Item))
    for name in ("a", "b"):
        items = ls.normalize(f"normalize_{name}", decoded.oks, Item)
        ls.upsert(f"upsert_{name}", ls.batch(f"batch_{name}", items.oks, settings.batch), MemoryWriter(Item), source)
    [plan] = column_plans(flow)

    assert (plan.way, plan.reason) == ("items", "2 steps take the items of decode")
    assert [each.step for each in plan.steps if each.operator == "upsert"] == ["upsert_a", "upsert_b"]


def test_steps_in_another_order_are_no_way_for_columns() -> None:
    source = ls.KafkaSource(ls.KafkaSettings("127.0.0.1:9092"), topics=["items"])
    flow = Dataflow("items")
    decoded = ls.decode("decode", ls.kafka_source("kafka", flow, source), ls.JsonDecoder(Item))
    ls.upsert("upsert", ls.batch("batch", decoded.oks, ls.BatchPolicy()), MemoryWriter(Item), source)
    [plan] = column_plans(flow)

    assert (plan.way, plan.reason) == ("items", "batch is where normalize would be")


@pytest.mark.parametrize("last", ["kafka", "decode", "normalize", "batch"])
@pytest.mark.parametrize("by", ["commit", ""])
def test_a_way_that_ends_before_the_writer_is_none_for_columns(last: str, by: str) -> None:
    source = ls.KafkaSource(ls.KafkaSettings("127.0.0.1:9092"), topics=["items"])
    flow = Dataflow("items")
    steps: dict[str, Callable[[Any], Any]] = {
        "kafka": lambda _: ls.kafka_source("kafka", flow, source),
        "decode": lambda up: ls.decode("decode", up, ls.JsonDecoder(Item)).oks,
        "normalize": lambda up: ls.normalize("normalize", up, Item).oks,
        "batch": lambda up: ls.batch("batch", up, ls.BatchPolicy()),
    }
    stream = None
    for name in [*takewhile(last.__ne__, steps), last]:
        stream = steps[name](stream)
    if by:
        ls.commit(by, source, stream)
    [plan] = column_plans(flow)

    assert (plan.way, plan.reason) == ("items", f"{by or 'no step'} takes the items of {last}")


def test_each_source_has_a_plan_of_its_own() -> None:
    flow = Dataflow("items")
    part(flow, name="a_")
    part(flow, name="b_", target=clean)
    plans = column_plans(flow)

    assert [(plan.source, plan.topics, plan.way) for plan in plans] == [
        ("a_kafka", ("a_items",), "columns"),
        ("b_kafka", ("b_items",), "items"),
    ]


def test_a_source_of_ones_own_gives_items() -> None:
    source = test_worker_source.list_source([], [0])
    [plan] = column_plans(test_worker_source.flow(source, MemoryWriter(test_worker_source.Item)))

    assert (plan.way, plan.reason, plan.source) == ("items", "ListSource gives items", "list")


@pytest.mark.parametrize(("target", "way"), [(Item, "columns"), (clean, "items")])
def test_a_worker_goes_by_the_plan_and_logs_it_once(target: Any, way: str) -> None:
    flow = Dataflow("items")
    part(flow, target=target)
    [plan] = column_plans(flow)
    with capture_logs() as logs:
        run(flow, [{"id": number} for number in range(3)]).all_written()
    [told] = [entry for entry in logs if entry["event"] == "plan"]

    assert (told["pipeline"], told["way"], told["reason"]) == ("items", way, plan.reason)
    assert told["as_items"] == []


def test_a_worker_logs_the_events_whose_messages_are_left() -> None:
    flow = Dataflow("items")
    events = {"seen": ls.Items("item", Item), "cleaned": ls.Items("item", clean)}
    part(flow, what=ls.Events("type", events, ls.Skip("unknown_event")))
    with capture_logs() as logs:
        run(flow, [{"type": "cleaned", "item": {"id": 1}}]).all_written()
    [told] = [entry for entry in logs if entry["event"] == "plan"]

    assert (told["way"], told["as_items"]) == ("columns", ["cleaned"])


class Bill(ls.Row, table="bills", primary_key="id"):
    id: int


class Tag(ls.Row, table="tags", primary_key="id"):
    id: int


def test_rows_of_several_tables_in_postgres_are_made_one_by_one() -> None:
    settings = ls.PostgresSettings("postgresql://127.0.0.1/none")
    assert PostgresWriter(settings, Bill).needs_rows == ""
    assert PostgresWriter(settings, Bill, Tag).needs_rows == (
        "rows of several tables, bills and tags, are grouped one by one"
    )
