"""Skips, rows and reasons of a flow's own, in a whole flow: one that nobody declared costs its item only."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from bytewax import operators as op
from bytewax.dataflow import Dataflow

import lovelace_streams as ls
from lovelace_streams import DeadLetter, Envelope, Skip
from lovelace_streams.formats.decoder import Ports
from lovelace_streams.operators.ports import by_list, split
from lovelace_streams.testing import Message, run
from lovelace_streams.writers.postgres import PostgresWriter


class Item(ls.Row, table="items", primary_key="id"):
    id: int


class Foreign(ls.Row, table="elsewhere", primary_key="id"):
    id: int


class Child(Item, table="items", primary_key="id"):
    """Of a table of the writer, but the writer was not given the class."""


def flow_of(
    mapping: Any,
    *,
    skips: Iterable[str] = (),
    decoder: Any = None,
    step: Callable[[list[Envelope[Any]]], Ports] | None = None,
    step_skips: Iterable[str] = (),
) -> Callable[[ls.Settings], Dataflow]:
    def flow(settings: ls.Settings) -> Dataflow:
        source = ls.KafkaSource(settings.kafka, topics=["items"])
        flow = Dataflow("items")
        raw = ls.kafka_source("kafka", flow, source)
        decoded = ls.decode("decode", raw, decoder or ls.JsonDecoder(mapping))
        items = ls.normalize("normalize", decoded.oks, mapping, skips=skips)
        own = split(op.flat_map_batch("own", items.oks, by_list("own", step or _all, step_skips)))
        batches = ls.batch("batch", own.oks, settings.batch)
        written = ls.upsert("upsert", batches, PostgresWriter(settings.postgres, Item), source)
        dead = ls.dead_letter("dead_letter", source, decoded.errs, items.errs, own.errs, written.errs)
        settled = written.settled, dead.settled, decoded.skipped, items.skipped, own.skipped
        ls.progress("progress", source, settings.progress, *settled)
        return flow

    return flow


def _all(envelopes: list[Envelope[Any]]) -> Ports:
    ports = Ports()
    ports.oks = list(envelopes)
    return ports


def second_is(made: Callable[[int], Any]) -> Callable[[dict[str, Any]], Any]:
    def mapping(item: dict[str, Any]) -> Any:
        return made(item["id"]) if item["id"] == 2 else Item(id=item["id"])

    return mapping


MESSAGES = [{"id": 1}, {"id": 2}, {"id": 3}]
NEIGHBOURS = [{"id": 1}, {"id": 3}]


@pytest.mark.parametrize(
    ("made", "step", "why"),
    [
        (lambda n: Skip("draft"), "normalize", "for a reason that the flow does not declare"),
        (lambda n: Foreign(id=n), "upsert", "Foreign"),
        (lambda n: Child(id=n), "upsert", "Child"),
        (lambda n: [Item(id=n), Foreign(id=n)], "upsert", "Foreign"),
        (lambda n: [Foreign(id=n), None], "normalize", "made a NoneType"),
    ],
)
def test_one_item_that_nobody_foresaw_costs_no_neighbour(made: Callable[[int], Any], step: str, why: str) -> None:
    result = run(flow_of(second_is(made)), MESSAGES)

    assert result.rows() == NEIGHBOURS
    assert (result.letter().step, result.letter().reason) == (step, "rule")
    assert why in result.letter().detail


def test_a_declared_reason_is_counted_under_its_name() -> None:
    result = run(flow_of(second_is(lambda n: Skip("draft")), skips=("draft",)), MESSAGES, jobs={})

    assert (result.rows(), result.skipped) == (NEIGHBOURS, {"draft": 1})


def test_a_job_counts_items_that_are_skipped_for_reasons_of_ones_own() -> None:
    messages = [Message(value, job="job") for value in MESSAGES]

    result = run(flow_of(second_is(lambda n: Skip("draft")), skips=("draft",)), messages, jobs={"job": 3})

    assert (result.jobs["job"].succeeded, result.jobs["job"].skipped, result.jobs["job"].status) == (2, 1, "completed")


def test_events_name_a_reason_of_their_own() -> None:
    events = ls.Events("t", {"A": ls.Items("d", Item)}, otherwise=Skip("heartbeat"))

    result = run(flow_of(Item, decoder=ls.JsonDecoder(events)), [{"t": "A", "d": {"id": 1}}, {"t": "B"}])

    assert (result.rows(), result.skipped, result.letters) == ([{"id": 1}], {"heartbeat": 1}, [])


def skips_two(reason: str) -> Callable[[list[Envelope[Any]]], Ports]:
    def sort(envelopes: list[Envelope[Any]]) -> Ports:
        ports = Ports()
        ports.oks = [e for e in envelopes if e.payload.id != 2]
        ports.skipped = [(reason, e) for e in envelopes if e.payload.id == 2]
        return ports

    return sort


def refuses_two(envelopes: list[Envelope[Any]]) -> Ports:
    ports = Ports()
    ports.oks = [e for e in envelopes if e.payload.id != 2]
    ports.errs = [DeadLetter(e.record, e.item, 1, "own", "price", "below 0") for e in envelopes if e.payload.id == 2]  # type: ignore[arg-type]
    return ports


def test_a_step_of_ones_own_declares_its_reasons() -> None:
    declared = run(flow_of(Item, step=skips_two("draft"), step_skips=("draft",)), MESSAGES)
    undeclared = run(flow_of(Item, step=skips_two("draft")), MESSAGES)

    assert (declared.rows(), declared.skipped, declared.letters) == (NEIGHBOURS, {"draft": 1}, [])
    assert (undeclared.rows(), undeclared.skipped) == (NEIGHBOURS, {})
    assert (undeclared.letter().step, undeclared.letter().reason) == ("own", "rule")


def test_a_step_of_ones_own_can_not_open_the_set_of_reasons() -> None:
    result = run(flow_of(Item, step=refuses_two), [Message(v, job="job") for v in MESSAGES], jobs={"job": 3})

    assert (result.letter().step, result.letter().reason) == ("own", "rule")
    assert result.jobs["job"].status == "completed"


def yields(row: Any) -> Any:
    def mapping(item: dict[str, Any]) -> Iterator[Any]:
        yield Item(id=item["id"])

    mapping.__annotations__["return"] = row
    return mapping


@pytest.mark.parametrize(
    ("mapping", "decoder"),
    [
        (Foreign, None),
        (Child, None),
        ([Item, Foreign], ls.JsonDecoder(ls.Events("t", {"A": ls.Items("d", Foreign)}, Skip()))),
        (Item, ls.JsonDecoder(ls.Events("t", {"A": ls.Items("d", Item), "B": ls.Items("d", Child)}, Skip()))),
        (Item, ls.JsonDecoder(ls.Events("t", {"A": ls.Items("d", yields(Foreign))}, Skip()))),
        (yields(Iterator[Item | Foreign]), None),
        (yields(list[Foreign] | Skip), None),
        (yields(Child), None),
    ],
)
def test_a_class_that_the_writer_was_not_given_is_refused_at_build(mapping: Any, decoder: Any) -> None:
    with pytest.raises(ls.DeploymentFault, match="upsert: the mapping makes rows of (Foreign|Child), which Postgres"):
        run(direct(mapping, decoder or ls.JsonDecoder(mapping)), [])


@pytest.mark.parametrize("mapping", [yields(Iterator[ls.Row]), yields(Any), yields(Item | None), lambda item: None])
def test_what_the_build_can_not_tell_is_left_to_the_items(mapping: Any) -> None:
    run(direct(mapping, ls.JsonDecoder(mapping)), [])


def direct(mapping: Any, decoder: Any) -> Callable[[ls.Settings], Dataflow]:
    """A flow without steps of its own."""

    def flow(settings: ls.Settings) -> Dataflow:
        source = ls.KafkaSource(settings.kafka, topics=["items"])
        flow = Dataflow("items")
        decoded = ls.decode("decode", ls.kafka_source("kafka", flow, source), decoder)
        items = ls.normalize("normalize", decoded.oks, mapping)
        batches = ls.batch("batch", items.oks, settings.batch)
        written = ls.upsert("upsert", batches, PostgresWriter(settings.postgres, Item), source)
        dead = ls.dead_letter("dead_letter", source, decoded.errs, items.errs, written.errs)
        ls.commit("commit", source, written.settled, dead.settled, decoded.skipped, items.skipped)
        return flow

    return flow
