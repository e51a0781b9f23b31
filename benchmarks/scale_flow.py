"""`dataflows.discord` whose rows go nowhere: `python -m bytewax.run benchmarks.scale_flow`.

The destination is then not the bottleneck; all else is as in production: dead letters, ledger and commits.
"""

import os

from bytewax.dataflow import Dataflow

import lovelace_streams as ls
from benchmarks.nowhere import Nowhere
from dataflows import discord
from lovelace_streams import JsonDecoder, KafkaSource, Settings


def flow() -> Dataflow:
    """The members flow, with another writer."""
    settings = Settings()
    source = KafkaSource(settings.kafka, topics=[os.environ["BENCH_TOPIC"]])
    flow = Dataflow("scale")
    raw = ls.kafka_source("kafka", flow, source)
    decoded = ls.decode("decode", raw, JsonDecoder(discord.EVENTS))
    members = ls.normalize("normalize", decoded.oks, discord.Member)
    batches = ls.batch("batch", members.oks, settings.batch)
    written = ls.upsert("upsert", batches, Nowhere(), source)
    dead = ls.dead_letter("dead_letter", source, decoded.errs, members.errs, written.errs)
    settled = written.settled, dead.settled, decoded.skipped, members.skipped
    ls.progress("progress", source, settings.progress, *settled)
    return flow
