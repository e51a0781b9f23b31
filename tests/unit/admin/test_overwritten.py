"""Which tables a rewind warns of: those in which an older row takes a newer one's place."""

from datetime import datetime
from typing import Annotated

import pytest
from bytewax.dataflow import Dataflow

import lovelace_streams as ls
from lovelace_streams import FromKafka, JsonDecoder, KafkaSettings, KafkaSource, PostgresSettings, Row
from lovelace_streams.admin.rewind import overwritten_tables
from lovelace_streams.flows.topology import Topology, topology_of
from lovelace_streams.settings import BatchPolicy, ClickHouseSettings
from lovelace_streams.writers import Writer
from lovelace_streams.writers.clickhouse import ClickHouseWriter
from lovelace_streams.writers.memory import MemoryWriter
from lovelace_streams.writers.postgres import PostgresWriter


class Plain(Row, table="plain", primary_key="id"):
    id: int


class Versioned(Row, table="versioned", primary_key="id", version="at"):
    id: int
    at: datetime


class Logged(Row, table="logged", primary_key=("partition", "offset")):
    partition: Annotated[int, FromKafka("partition")]
    offset: Annotated[int, FromKafka("offset")]


class LoggedByOffset(Row, table="by_offset", primary_key="offset"):
    """Two partitions have the same offsets: a row of one takes the place of another's."""

    offset: Annotated[int, FromKafka("offset")]


def flow(**writers: Writer) -> Topology:
    """A flow that reads each of these topics into a writer."""
    made = Dataflow("rewound")
    for topic, writer in writers.items():
        source = KafkaSource(KafkaSettings("127.0.0.1:1"), topics=[topic])
        raw = ls.kafka_source(f"{topic}_kafka", made, source)
        decoded = ls.decode(f"{topic}_decode", raw, JsonDecoder(writer.rows[0]))
        rows = ls.normalize(f"{topic}_normalize", decoded.oks, writer.rows[0])
        batches = ls.batch(f"{topic}_batch", rows.oks, BatchPolicy())
        written = ls.upsert(f"{topic}_upsert", batches, writer, source)
        dead = ls.dead_letter(f"{topic}_dead", source, decoded.errs, rows.errs, written.errs)
        ls.commit(f"{topic}_commit", source, written.settled, dead.settled, decoded.skipped, rows.skipped)
    return topology_of(made)


POSTGRES = PostgresSettings("postgresql://nobody@127.0.0.1:1/none")
CLICKHOUSE = ClickHouseSettings("http://127.0.0.1:1/none")


@pytest.mark.parametrize(
    ("writer", "named"),
    [
        (PostgresWriter(POSTGRES, Plain), ["plain"]),
        (MemoryWriter(Plain), ["plain"]),
        (PostgresWriter(POSTGRES, LoggedByOffset), ["by_offset"]),
        (PostgresWriter(POSTGRES, Versioned), []),
        (PostgresWriter(POSTGRES, Logged), []),
        (ClickHouseWriter(CLICKHOUSE, Plain), []),
        (ClickHouseWriter(CLICKHOUSE, Versioned), []),
    ],
)
def test_only_tables_that_lose_newer_rows_are_named(writer: Writer, named: list[str]) -> None:
    assert overwritten_tables(flow(orders=writer), {"orders"}) == named


def test_a_table_of_a_topic_that_stays_is_not_named() -> None:
    built = flow(orders=PostgresWriter(POSTGRES, Plain), members=PostgresWriter(POSTGRES, LoggedByOffset))

    assert overwritten_tables(built, {"orders"}) == ["plain"]
    assert overwritten_tables(built, {"orders", "members"}) == ["plain", "by_offset"]
