"""Flows on members that are not the plain one: `python -m bytewax.run benchmarks.kinds_flow:own_step`, and others.

Each is `dataflows.discord` but for what its name says. Another commit's package runs them as well (`compare`), so they
use what it had: nothing is imported here but what flows have always been made of.
"""

import os
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow, Stream

import lovelace_streams as ls
from dataflows import discord
from dataflows.discord import Member, MemberJoined
from lovelace_streams import Events, From, FromKafka, Items, JsonDecoder, KafkaSource, Row, Settings, Skip
from lovelace_streams.writers.postgres import PostgresWriter


class Leaver(Row, table="discord_leavers", primary_key=("guild_id", "user_id"), version="left_at"):
    """A member that left, in a table of its own."""

    guild_id: Annotated[int, From("$.d.guild_id")]
    user_id: Annotated[int, From("user.id")]
    left_at: Annotated[datetime, FromKafka("timestamp")]


def member_by_hand(item: dict[str, Any], root: dict[str, Any], *, of: ls.RecordContext) -> MemberJoined:
    """What the row class says, written as a function."""
    user = item["user"]
    assert of.timestamp is not None
    return MemberJoined(
        guild_id=int(root["d"]["guild_id"]),
        user_id=int(user["id"]),
        username=user["username"].lower(),
        display_name=item["nick"] or user["global_name"] or user["username"],
        roles=[int(role) for role in item["roles"]],
        joined_at=datetime.fromisoformat(item["joined_at"]),
        avatar=user["avatar"],
        seen_at=of.timestamp,
    )


def own_step() -> Dataflow:
    """With a step between `normalize` and `batch`, which looks at each row."""

    def looked_at(envelope: Any) -> Any:
        assert envelope.payload.user_id > 0
        return envelope

    return _members(discord.EVENTS, Member, between=lambda rows: op.map("look", rows, looked_at))


def function() -> Dataflow:
    """With a function in place of the row class."""
    return _members(by_function(), member_by_hand)


def by_function() -> Events:
    """The events that it takes."""
    return Events("t", {"GUILD_MEMBER_ADD": Items("d", member_by_hand)}, Skip("unknown_event"))


def tables() -> Dataflow:
    """With those who left in a table of their own."""
    events = {
        "GUILD_MEMBER_ADD": Items("d", MemberJoined),
        "GUILD_MEMBER_UPDATE": Items("d", Member, partial=True),
        "GUILD_MEMBER_REMOVE": Items("d", Leaver),
    }
    return _members(Events("t", events, Skip("unknown_event")), [Member, Leaver], Leaver)


def _members(
    events: Events,
    target: Any,
    *more: type[Row],
    between: Callable[[Stream[Any]], Stream[Any]] = lambda rows: rows,
) -> Dataflow:
    settings = Settings()
    source = KafkaSource(settings.kafka, topics=[os.environ["BENCH_TOPIC"]])
    writer = PostgresWriter(settings.postgres, *discord.SOURCE.rows, *more)
    flow = Dataflow("kinds")
    raw = ls.kafka_source("kafka", flow, source)
    decoded = ls.decode("decode", raw, JsonDecoder(events))
    members = ls.normalize("normalize", decoded.oks, target)
    batches = ls.batch("batch", between(members.oks), settings.batch)
    written = ls.upsert("upsert", batches, writer, source)
    dead = ls.dead_letter("dead_letter", source, decoded.errs, members.errs, written.errs)
    settled = written.settled, dead.settled, decoded.skipped, members.skipped
    states = ls.progress("progress", source, settings.progress, *settled)
    ls.aggregate_progress("aggregate_progress", states, source)
    return flow
