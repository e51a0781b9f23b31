"""Discord members → Postgres with Bytewax's own connectors and operators, as its documentation puts a job together.

    python -m bytewax.run benchmarks.peers.plain_bytewax.flow

`bytewax.connectors.kafka` reads, `op.map` decodes and maps item by item, `op.collect` makes batches, a `DynamicSink`
writes each with `executemany` (psycopg pipelines it) and commits. Its reader's `batch_size` is 1,000 as its guide
suggests for throughput (the default is 1,000 too), one worker thread as ours. No offset is committed to the group: its
own recovery store is what it has for that, and it is off, as that is quicker.
"""

import os
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
import msgspec
import psycopg
from bytewax.connectors.kafka import KafkaSourceMessage
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from confluent_kafka import OFFSET_BEGINNING

BATCH = int(os.environ["BATCH"])
UPSERT = """
insert into discord_members (guild_id, user_id, username, display_name, roles, joined_at, avatar, seen_at)
values (%s, %s, %s, %s, %s, %s, %s, %s)
on conflict (guild_id, user_id) do update set username = excluded.username, display_name = excluded.display_name,
  roles = excluded.roles, joined_at = excluded.joined_at, avatar = excluded.avatar, seen_at = excluded.seen_at
where discord_members.seen_at <= excluded.seen_at
"""

Member = tuple[Any, ...]


def member(message: KafkaSourceMessage[bytes | None, bytes | None]) -> Member | None:
    """A message's row; None for other events."""
    raw = msgspec.json.decode(message.value or b"")
    if raw["t"] not in {"GUILD_MEMBER_ADD", "GUILD_MEMBER_UPDATE"}:
        return None
    data = raw["d"]
    user = data["user"]
    return (
        int(data["guild_id"]),
        int(user["id"]),
        user["username"].lower(),
        data["nick"] or user["global_name"] or user["username"],
        [int(role) for role in data["roles"]],
        datetime.fromisoformat(data["joined_at"]),
        user["avatar"],
        datetime.fromtimestamp((message.timestamp or (0, 0))[1] / 1000, UTC),
    )


class Upsert(StatelessSinkPartition[tuple[str, list[Member]]]):
    """A transaction a batch."""

    def __init__(self) -> None:
        self.connection = psycopg.connect(os.environ["POSTGRES_DSN"])

    def write_batch(self, items: list[tuple[str, list[Member]]]) -> None:
        """Every batch by itself."""
        for _, members in items:
            with self.connection.transaction(), self.connection.cursor() as cursor:
                cursor.executemany(UPSERT, members)


class Postgres(DynamicSink[tuple[str, list[Member]]]):
    """One connection a worker."""

    def build(self, _step_id: str, _worker_index: int, _worker_count: int) -> Upsert:
        """As Bytewax asks."""
        return Upsert()


flow = Dataflow("members")
read = kop.input(
    "kafka",
    flow,
    brokers=os.environ["KAFKA_BROKERS"].split(","),
    topics=[os.environ["TOPIC"]],
    starting_offset=OFFSET_BEGINNING,
    batch_size=1000,
)
members = op.filter_map("member", read.oks, member)
keyed = op.key_on("key", members, lambda _: "all")
batches = op.collect("batch", keyed, timeout=timedelta(milliseconds=50), max_size=BATCH)
op.output("postgres", batches, Postgres())
