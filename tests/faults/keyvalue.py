"""The thinnest flow: `{"key": 1, "value": 7}` → a table without versions, no mapping, no jobs.

TOPIC=… TABLE_DSN… python -m bytewax.run tests.faults.keyvalue
"""

import os
from typing import Any

import bytewax.operators as op
import msgspec
from bytewax.dataflow import Dataflow

from lovelace_streams.operators.batch import batch
from lovelace_streams.operators.dead_letter import dead_letter
from lovelace_streams.operators.progress import progress
from lovelace_streams.operators.upsert import upsert
from lovelace_streams.records import DeadLetter, Envelope, Reason
from lovelace_streams.rows import Row
from lovelace_streams.settings import Settings
from lovelace_streams.sources.kafka import KafkaSource, kafka_source
from lovelace_streams.writers.postgres import PostgresWriter


class KeyValue(Row, table="key_value", primary_key="key"):
    key: int
    value: int


def to_row(window: list[Envelope[bytes]]) -> list[Any]:
    """Rows, and a dead letter for what is not one."""
    ends: list[Any] = []
    for envelope in window:
        record = envelope.record
        record.items = 1
        try:
            ends.append(Envelope(record, 0, msgspec.json.decode(record.value or b"", type=KeyValue)))
        except (ValueError, RecursionError):
            ends.append(DeadLetter(record, 0, 1, "decode", Reason.NOT_JSON))
    return ends


def flow() -> Dataflow:
    """The flow, its group and topic from the environment."""
    settings = Settings()
    source = KafkaSource(settings.kafka, topics=[os.environ["TOPIC"]])
    flow = Dataflow(os.environ.get("FLOW", "keyvalue"))
    raw = kafka_source("kafka", flow, source)
    sides = op.branch("side", op.flat_map_batch("decode", raw, to_row), lambda end: isinstance(end, Envelope))
    batches = batch("batch", sides.trues, settings.batch)
    writer = PostgresWriter(settings.postgres, KeyValue)
    written = upsert("upsert", batches, writer, source)
    dead = dead_letter("dead_letter", source, sides.falses, written.errs)
    progress("progress", source, settings.progress, written.settled, dead.settled)
    return flow
