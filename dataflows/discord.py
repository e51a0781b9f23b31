"""Discord members → Postgres: gateway dispatches from `discord.members.raw`, with onboarding progress per job.

    python -m bytewax.run dataflows.discord

Payloads are the gateway's dispatches `{"op", "t", "s", "d"}` (Discord's developer documentation, "Gateway Events"):
a member joins or changes (`GUILD_MEMBER_ADD`, `GUILD_MEMBER_UPDATE`), a chunk of up to 1,000 members arrives
(`GUILD_MEMBERS_CHUNK`), or a member leaves (`GUILD_MEMBER_REMOVE`). Everything else is skipped as `unknown_event`.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

import msgspec
from bytewax.dataflow import Dataflow

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
from lovelace_streams.writers.postgres import PostgresWriter

TOPIC = "discord.members.raw"


class Member(Row, table="discord_members", primary_key=("guild_id", "user_id"), version="seen_at"):
    """A member as last seen. An update mentions only some fields; the others keep their stored values."""

    guild_id: Annotated[int, From("$.d.guild_id")]  # $ is the whole message, else relative to the item
    user_id: Annotated[int, From("user.id")]
    username: Annotated[str | None, From("user.username"), str.lower, Pii("username")]
    display_name: Annotated[str | None, From("nick", "user.global_name", "user.username"), Pii("name")]
    roles: list[int] | None  # From defaults to the field's own name
    joined_at: datetime | None
    avatar: Annotated[str | None, From("user.avatar"), Pii("picture")]
    left_at: datetime | None  # set by GUILD_MEMBER_REMOVE
    seen_at: Annotated[datetime, FromKafka("timestamp")]


class MemberJoined(Member, table="discord_members", primary_key=("guild_id", "user_id"), version="seen_at"):
    """A member that is in the guild: whoever left and joins again has not left."""

    left_at: datetime | None = None


class MemberLeft(Row, table="discord_members", primary_key=("guild_id", "user_id"), version="seen_at"):
    """A member that left: `left_at` is set, the other columns keep their values."""

    guild_id: Annotated[int, From("$.d.guild_id")]
    user_id: Annotated[int, From("user.id")]
    left_at: Annotated[datetime, FromKafka("timestamp")]
    seen_at: Annotated[datetime, FromKafka("timestamp")]


EVENTS = Events(
    "t",
    {
        "GUILD_MEMBER_ADD": Items("d", MemberJoined),
        "GUILD_MEMBER_UPDATE": Items("d", Member, partial=True),  # its `nick` is optional, for one
        "GUILD_MEMBERS_CHUNK": Items("d.members", MemberJoined),
        "GUILD_MEMBER_REMOVE": Items("d", MemberLeft),
    },
    otherwise=Skip("unknown_event"),
)


def messages(payload: Any, guild: str | int | None = None) -> Iterator[Outgoing]:
    """Send dispatches as they are; wrap members of a REST listing as `GUILD_MEMBER_ADD` of `guild` (a number or text).

    Keys spread one guild over the partitions: guild and user, or guild and chunk number. Order across partitions does
    not matter, because the row declares a version.
    """
    if isinstance(payload, list):
        for each in payload:
            yield from messages(each, guild)
        return
    if isinstance(payload, dict) and "t" not in payload and "user" in payload:
        if guild is None:
            raise ValueError("these members do not name their guild: add --option guild=ID")
        payload = {"op": 0, "t": "GUILD_MEMBER_ADD", "s": None, "d": {**payload, "guild_id": str(guild)}}
    yield Outgoing(_key(payload), msgspec.json.encode(payload), _items(payload))


def _key(payload: Any) -> bytes:
    data = payload.get("d") if isinstance(payload, dict) else None
    if not isinstance(data, dict):
        return b""
    user = data.get("user")
    within = data.get("chunk_index") if "members" in data else user.get("id") if isinstance(user, dict) else None
    return f"{data.get('guild_id')}:{within}".encode("utf-8", "replace")


def _items(payload: Any) -> int:
    data = payload.get("d") if isinstance(payload, dict) else None
    members = data.get("members") if isinstance(data, dict) and payload.get("t") == "GUILD_MEMBERS_CHUNK" else None
    return len(members) if isinstance(members, list) and members else 1


SOURCE = Source("discord", topic=TOPIC, rows=(Member, MemberJoined, MemberLeft), messages=messages)


def flow(settings: Settings | None = None) -> Dataflow:
    """Discord members → Postgres, with onboarding progress per job."""
    settings = settings or Settings()
    source = KafkaSource(settings.kafka, topics=[TOPIC])
    writer = PostgresWriter(settings.postgres, Member, MemberJoined, MemberLeft)

    flow = Dataflow("discord")
    raw = ls.kafka_source("kafka", flow, source)
    decoded = ls.decode("decode", raw, JsonDecoder(EVENTS))
    members = ls.normalize("normalize", decoded.oks, Member)
    batches = ls.batch("batch", members.oks, settings.batch)
    written = ls.upsert("upsert", batches, writer, source)
    dead = ls.dead_letter("dead_letter", source, decoded.errs, members.errs, written.errs)
    settled = written.settled, dead.settled, decoded.skipped, members.skipped
    states = ls.progress("progress", source, settings.progress, *settled)
    ls.aggregate_progress("aggregate_progress", states, source)
    return flow
