"""`dataflows.discord` whose rows go nowhere: `python -m bytewax.run benchmarks.scale_flow`.

The destination is then not the bottleneck; all else is as in production: dead letters, ledger and commits.
"""

import os
from collections.abc import Sequence

from bytewax.dataflow import Dataflow

import lovelace_streams as ls
from dataflows import discord
from lovelace_streams import JsonDecoder, KafkaSource, Settings
from lovelace_streams.writers import Capabilities, Entry, RowOutcome, RowResult


class Nowhere:
    """A writer that is always done."""

    rows = discord.SOURCE.rows
    capabilities = Capabilities()
    deadline = 30.0
    name = "nowhere"

    def ddl(self) -> str:
        """There is no table."""
        return ""

    def open(self) -> None:
        """Nothing to connect to."""

    def write(self, block: Sequence[Entry]) -> list[RowResult]:
        """All written."""
        return [RowOutcome.WRITTEN] * len(block)

    dry_run = write

    def probe(self, others: Sequence[Entry] = ()) -> bool | None:  # noqa: ARG002
        """It could."""
        return True

    def abort(self) -> None:
        """Nothing to shut."""

    def close(self) -> None:
        """Nothing to let go of."""


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
