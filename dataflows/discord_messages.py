"""Discord messages → ClickHouse: gateway dispatches from `discord.messages.raw`, with onboarding progress per job.

    python -m bytewax.run dataflows.discord_messages

Payloads are the gateway's dispatches `{"op", "t", "s", "d"}`, as JSON or, where SCHEMA_REGISTRY_URL is set, also as
Avro in Confluent's frame (schemas/avro/discord/message.avsc), on the same topic. ClickHouse replaces rows as a
whole. So the table has a row for each part of a message, with its own key and version, and no part erases another:

- part `message`, whole: `MESSAGE_CREATE` and `MESSAGE_UPDATE`. The gateway sends updates whole. An update with only the
  changed fields (no `author`) would blank the other columns, so it is dead-lettered as `missing`.
- part `deletion`: `MESSAGE_DELETE`, and an item for each of the `ids` of `MESSAGE_DELETE_BULK`. No later event changes
  it, so a deleted message does not come back.

`VIEW` puts the parts together: a row a message, with `deleted_at`. Everything else is skipped as `unknown_event`.
"""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
from bytewax.dataflow import Dataflow
from msgspec import field

import lovelace_streams as ls
from lovelace_streams import (
    Events,
    From,
    FromKafka,
    Items,
    JsonDecoder,
    KafkaSource,
    Outgoing,
    Pii,
    Row,
    Settings,
    Skip,
    Source,
)
from lovelace_streams.avro import AvroDecoder, JsonOrAvro
from lovelace_streams.writers.clickhouse import ClickHouseWriter

TOPIC = "discord.messages.raw"
SCHEMA = Path(__file__).parents[1] / "schemas" / "avro" / "discord" / "message.avsc"
KEY = ("channel_id", "message_id", "part")
DELETIONS = {"MESSAGE_DELETE", "MESSAGE_DELETE_BULK"}

VIEW = """
CREATE VIEW IF NOT EXISTS discord_messages_now AS
SELECT message.* EXCEPT (part, deleted_at), nullIf(deletion.at, toDateTime64(0, 6, 'UTC')) AS deleted_at
FROM (SELECT * FROM discord_messages FINAL WHERE part = 'message') AS message
LEFT JOIN (
  SELECT channel_id, message_id, assumeNotNull(deleted_at) AS at FROM discord_messages FINAL WHERE part = 'deletion'
) AS deletion USING (channel_id, message_id)
"""
"""One row per message in its present state, with `deleted_at` if it was deleted."""


def part_of(event: str) -> str:
    """Tell which part of a message an event describes."""
    return "deletion" if event in DELETIONS else "message"


class Part(Row, table="discord_messages", primary_key=KEY, version="seen_at"):
    """The table: all columns of a message. Each part of a message is a row, and fills some of them."""

    channel_id: Annotated[int, From("$.d.channel_id")]
    message_id: Annotated[int, From("$.d.id")]
    part: Annotated[str, From("$.t"), part_of]
    guild_id: Annotated[int | None, From("$.d.guild_id")] = None  # a direct message has none
    author_id: Annotated[int | None, From("$.d.author.id")] = None
    username: Annotated[str | None, From("$.d.author.username"), Pii("username")] = None
    content: Annotated[str | None, From("$.d.content"), Pii("text")] = None
    kind: Annotated[int | None, From("$.d.type")] = None
    flags: Annotated[int | None, From("$.d.flags")] = None
    pinned: Annotated[bool | None, From("$.d.pinned")] = None
    mention_roles: Annotated[list[int], From("$.d.mention_roles")] = field(default_factory=list)
    sent_at: Annotated[datetime | None, From("$.d.timestamp")] = None
    edited_at: Annotated[datetime | None, From("$.d.edited_timestamp")] = None
    deleted_at: datetime | None = None
    seen_at: Annotated[datetime, FromKafka("timestamp")]


class Message(Part, table="discord_messages", primary_key=KEY, version="seen_at"):
    """A message as last seen, whole. One without its author is an update with only the changed fields."""

    author_id: Annotated[int, From("$.d.author.id")]
    sent_at: Annotated[datetime, From("$.d.timestamp")]


class Deletion(Part, table="discord_messages", primary_key=KEY, version="seen_at"):
    """The deletion of a message; its content stays in the other part."""

    deleted_at: Annotated[datetime, FromKafka("timestamp")]


class BulkDeletion(Deletion, table="discord_messages", primary_key=KEY, version="seen_at"):
    """One message of a bulk deletion: the item is its id."""

    message_id: Annotated[int, From(".")]


EVENTS = Events(
    "t",
    {
        "MESSAGE_CREATE": Items("d", Message),
        "MESSAGE_UPDATE": Items("d", Message),
        "MESSAGE_DELETE": Items("d", Deletion),
        "MESSAGE_DELETE_BULK": Items("d.ids", BulkDeletion),
    },
    otherwise=Skip("unknown_event"),
)


def messages(payload: Any, guild: str | int | None = None) -> Iterator[Outgoing]:
    """Send dispatches as they are; wrap messages of the REST listing as `MESSAGE_CREATE` of `guild` (a number or text).

    Keys keep a message in its partition. A bulk deletion is keyed by its channel, because the row has a version.
    """
    if isinstance(payload, list):
        for each in payload:
            yield from messages(each, guild)
        return
    if isinstance(payload, dict) and "t" not in payload and "author" in payload:
        data = payload if guild is None else {**payload, "guild_id": str(guild)}
        payload = {"op": 0, "t": "MESSAGE_CREATE", "s": None, "d": data}
    told = payload.get("d") if isinstance(payload, dict) else None
    named = told if isinstance(told, dict) else {}
    ids = named.get("ids")
    key = f"{named.get('channel_id')}:{named.get('id')}".encode("utf-8", "replace") if named else b""
    yield Outgoing(key, msgspec.json.encode(payload), len(ids) if isinstance(ids, list) and ids else 1)


SOURCE = Source(
    "discord_messages", topic=TOPIC, rows=(Part, Message, Deletion, BulkDeletion), messages=messages, row="message"
)


def decoder(settings: Settings) -> JsonDecoder | JsonOrAvro:
    """Decode JSON, and also Avro if a registry is set, which has its schemas."""
    json = JsonDecoder(EVENTS)
    if settings.schema_registry_url is None or not settings.schema_registry_url.get_secret_value():
        return json
    return JsonOrAvro(json, AvroDecoder(settings.registry, EVENTS, reader=SCHEMA))


def flow(settings: Settings | None = None) -> Dataflow:
    """Discord messages → ClickHouse, with onboarding progress per job."""
    settings = settings or Settings()
    source = KafkaSource(settings.kafka, topics=[TOPIC])
    writer = ClickHouseWriter(settings.clickhouse, *SOURCE.rows)

    flow = Dataflow("discord_messages")
    raw = ls.kafka_source("kafka", flow, source)
    decoded = ls.decode("decode", raw, decoder(settings), source)
    told = ls.normalize("normalize", decoded.oks, Message)
    batches = ls.batch("batch", told.oks, settings.batch)
    written = ls.upsert("upsert", batches, writer, source)
    dead = ls.dead_letter("dead_letter", source, decoded.errs, told.errs, written.errs)
    settled = written.settled, dead.settled, decoded.skipped, told.skipped
    states = ls.progress("progress", source, settings.progress, *settled)
    ls.aggregate_progress("aggregate_progress", states, source)
    return flow
