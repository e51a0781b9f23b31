"""A step of one's own in a flow: what it refuses is held back, released and counted like what our own steps refuse."""

from collections.abc import Iterable
from typing import Any

import pytest
from bytewax import operators as op
from bytewax.dataflow import Dataflow

import lovelace_streams as ls
from lovelace_streams.formats.decoder import Ports
from lovelace_streams.operators.ports import by_list, split
from lovelace_streams.records import DeadLetter, Envelope, Reason
from lovelace_streams.testing import Message, run
from lovelace_streams.writers.postgres import PostgresWriter


class Item(ls.Row, table="items", primary_key="id"):
    id: int
    price: int


def validated(envelopes: Iterable[Envelope[Item]]) -> Ports:
    ports = Ports()
    for envelope in envelopes:
        if envelope.payload.price >= 0:
            ports.oks.append(envelope)
        else:
            ports.errs.append(DeadLetter(envelope.record, envelope.item, 1, "validate", Reason.RULE, "price below 0"))
    return ports


def flow(settings: ls.Settings) -> Dataflow:
    source = ls.KafkaSource(settings.kafka, topics=["items"])
    flow = Dataflow("items")
    raw = ls.kafka_source("kafka", flow, source)
    decoded = ls.decode("decode", raw, ls.JsonDecoder(Item))
    items = ls.normalize("normalize", decoded.oks, Item)
    valid = split(op.flat_map_batch("validate", items.oks, by_list("validate", validated)))
    batches = ls.batch("batch", valid.oks, settings.batch)
    written = ls.upsert("upsert", batches, PostgresWriter(settings.postgres, Item), source)
    dead = ls.dead_letter("dead_letter", source, decoded.errs, items.errs, valid.errs, written.errs)
    settled = written.settled, dead.settled, decoded.skipped, items.skipped, valid.skipped
    ls.progress("progress", source, settings.progress, *settled)
    return flow


def messages(count: int, *, bad: Any) -> list[Message]:
    """Items of two jobs in turn."""
    return [Message({"id": n, "price": -1 if bad(n) else n}, job=f"job-{n % 2}") for n in range(count)]


def test_a_step_that_refuses_one_in_twenty_stops_nobody() -> None:
    result = run(flow, messages(22_000, bad=lambda n: n % 40 in {0, 21}), jobs={"job-0": 11_000, "job-1": 11_000})

    assert result.outcomes == {"written": 20_900, "dead_lettered": 1_100}
    assert {(letter.step, letter.reason) for letter in result.letters} == {("validate", "rule")}
    assert {job: (state.succeeded, state.failed) for job, state in result.jobs.items()} == {
        "job-0": (10_450, 550),
        "job-1": (10_450, 550),
    }


def test_a_step_that_refuses_everything_stops_the_worker_and_floods_nothing() -> None:
    with pytest.raises(ls.DeploymentFault, match="refused by 'validate' for one cause"):
        run(flow, messages(3_000, bad=lambda n: True), jobs={"job-0": 1_500, "job-1": 1_500})
