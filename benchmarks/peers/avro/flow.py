"""`dataflows.discord` as it is, but for its decoder: `python -m bytewax.run benchmarks.peers.avro.flow`."""

import os
from pathlib import Path

from bytewax.dataflow import Dataflow

import lovelace_streams as ls
from dataflows.discord import Member
from lovelace_streams import Events, Items, KafkaSource, Settings, Skip
from lovelace_streams.avro import AvroDecoder
from lovelace_streams.writers.postgres import PostgresWriter

SCHEMA = Path(__file__).with_name("member.avsc")
EVENTS = Events(
    "t", {"GUILD_MEMBER_ADD": Items("d", Member), "GUILD_MEMBER_UPDATE": Items("d", Member)}, Skip("unknown_event")
)


def flow(settings: Settings | None = None) -> Dataflow:
    """Discord members in Avro → Postgres, with onboarding progress per job."""
    settings = settings or Settings()
    source = KafkaSource(settings.kafka, topics=[os.environ["BENCH_TOPIC"]])
    writer = PostgresWriter(settings.postgres, Member)

    flow = Dataflow("discord")
    raw = ls.kafka_source("kafka", flow, source)
    decoded = ls.decode("decode", raw, AvroDecoder(settings.registry, EVENTS, reader=SCHEMA), source)
    members = ls.normalize("normalize", decoded.oks, Member)
    batches = ls.batch("batch", members.oks, settings.batch)
    written = ls.upsert("upsert", batches, writer, source)
    dead = ls.dead_letter("dead_letter", source, decoded.errs, members.errs, written.errs)
    settled = written.settled, dead.settled, decoded.skipped, members.skipped
    states = ls.progress("progress", source, settings.progress, *settled)
    ls.aggregate_progress("aggregate_progress", states, source)
    return flow
