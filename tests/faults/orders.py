"""Orders in Avro, by a registry, → Postgres, without jobs: `TOPIC=… python -m bytewax.run tests.faults.orders`."""

import os
from typing import Any

from bytewax.dataflow import Dataflow

import lovelace_streams as ls
from lovelace_streams import KafkaSource, Row, Settings
from lovelace_streams.avro import AvroDecoder
from lovelace_streams.writers.postgres import PostgresWriter

FIRST: dict[str, Any] = {
    "type": "record",
    "name": "shop.Order",
    "fields": [{"name": "id", "type": "int"}, {"name": "memo", "type": "string"}],
}
SECOND: dict[str, Any] = {
    "type": "record",
    "name": "shop.Order",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "note", "aliases": ["memo"], "type": ["null", "string"], "default": None},
        {
            "name": "state",
            "type": {"type": "enum", "name": "State", "symbols": ["OPEN", "PAID"]},
            "default": "OPEN",
        },
    ],
}


class Order(Row, table="orders", primary_key="id"):
    id: int
    note: str | None
    state: str


def flow() -> Dataflow:
    """Its group and topic from the environment."""
    settings = Settings()
    source = KafkaSource(settings.kafka, topics=[os.environ["TOPIC"]])
    flow = Dataflow("orders")
    raw = ls.kafka_source("kafka", flow, source)
    decoded = ls.decode("decode", raw, AvroDecoder(settings.registry, Order, reader=SECOND), source)
    orders = ls.normalize("normalize", decoded.oks, Order, source)
    batches = ls.batch("batch", orders.oks, settings.batch)
    written = ls.upsert("upsert", batches, PostgresWriter(settings.postgres, Order), source)
    dead = ls.dead_letter("dead_letter", source, decoded.errs, orders.errs, written.errs)
    ls.commit("commit", source, written.settled, dead.settled, decoded.skipped, orders.skipped)
    return flow
