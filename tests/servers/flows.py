"""Flows as their users would write them, without jobs: they end in `commit`."""

import os
from datetime import datetime
from typing import Annotated, Any, Literal

import bytewax.operators as op
from bytewax.dataflow import Dataflow

import lovelace_streams as ls
from lovelace_streams import FromKafka, JsonDecoder, KafkaSource, Row, Settings, Source
from lovelace_streams.submit import keyed_by
from lovelace_streams.writers.postgres import PostgresWriter


class Order(Row, table="orders", primary_key="id", version="seen_at"):
    id: int
    total: int
    state: Literal["new", "paid"]
    parent: int | None = None
    seen_at: Annotated[datetime, FromKafka("timestamp")]


SOURCE = Source("orders", os.environ.get("TOPIC", "orders"), (Order,), keyed_by("id"))


def orders(settings: Settings, topic: str, *, between: bool = False, decoder: Any = None) -> Dataflow:
    """Orders → Postgres; with `between` a step of the flow's own lies before the batches."""
    source = KafkaSource(settings.kafka, topics=[topic])
    flow = Dataflow("orders")
    raw = ls.kafka_source("kafka", flow, source)
    decoded = ls.decode("decode", raw, decoder or JsonDecoder(Order), source)
    rows = ls.normalize("normalize", decoded.oks, Order)
    passed = op.filter("paid", rows.oks, lambda envelope: envelope.payload.state == "paid") if between else rows.oks
    batches = ls.batch("batch", passed, settings.batch)
    written = ls.upsert("upsert", batches, PostgresWriter(settings.postgres, Order), source)
    dead = ls.dead_letter("dead_letter", source, decoded.errs, rows.errs, written.errs)
    settled = (written.settled, dead.settled, decoded.skipped, rows.skipped)
    if settings.progress_api_url:
        ls.progress("progress", source, settings.progress, *settled)
    else:
        ls.commit("commit", source, *settled)
    return flow


def flow() -> Dataflow:
    """As the command line finds it."""
    return orders(Settings(), os.environ["TOPIC"])
