"""The job of `keyvalue` by our own steps alone, so that its messages pass as columns."""

import os

from bytewax.dataflow import Dataflow

import lovelace_streams as ls
from lovelace_streams.writers.postgres import PostgresWriter
from tests.faults.keyvalue import KeyValue


def flow() -> Dataflow:
    """The flow, its group and topic from the environment."""
    settings = ls.Settings()
    source = ls.KafkaSource(settings.kafka, topics=[os.environ["TOPIC"]])
    flow = Dataflow(os.environ.get("FLOW", "keyvalue"))
    decoded = ls.decode("decode", ls.kafka_source("kafka", flow, source), ls.JsonDecoder(KeyValue))
    mapped = ls.normalize("normalize", decoded.oks, KeyValue)
    batches = ls.batch("batch", mapped.oks, settings.batch)
    written = ls.upsert("upsert", batches, PostgresWriter(settings.postgres, KeyValue), source)
    dead = ls.dead_letter("dead_letter", source, decoded.errs, mapped.errs, written.errs)
    ends = (written.settled, dead.settled, decoded.skipped, mapped.skipped)
    ls.progress("progress", source, settings.progress, *ends)
    return flow
