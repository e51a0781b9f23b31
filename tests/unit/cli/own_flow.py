"""A flow with a step of its own between ours, as `lovelace` finds flows: by the name of its module."""

from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow

import lovelace_streams as ls
from lovelace_streams.writers.memory import MemoryWriter


class Item(ls.Row, table="items", primary_key="id"):
    id: int


def flow() -> Dataflow:
    settings = ls.Settings()
    source = ls.KafkaSource(settings.kafka, topics=["items"])
    flow = Dataflow("items")
    decoded = ls.decode("decode", ls.kafka_source("kafka", flow, source), ls.JsonDecoder(Item))
    items = ls.normalize("normalize", op.map("look", decoded.oks, _same), Item)
    written = ls.upsert("upsert", ls.batch("batch", items.oks, settings.batch), MemoryWriter(Item), source)
    dead = ls.dead_letter("dead_letter", source, decoded.errs, items.errs, written.errs)
    ls.commit("commit", source, written.settled, dead.settled, decoded.skipped, items.skipped)
    return flow


def _same(item: Any) -> Any:
    return item
