"""The members job written in several ways: `BENCH_WAY=… python -m bytewax.run benchmarks.ways_flow`.

Each makes the same rows of the same messages. What differs is how a row is made, and what lies between our own steps.
"""

import os
from collections.abc import Callable
from datetime import datetime
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow, Stream

import lovelace_streams as ls
from dataflows import discord
from lovelace_streams import Envelope, Events, Items, JsonDecoder, KafkaSource, RecordContext, Settings, Skip
from lovelace_streams.writers.postgres import PostgresWriter

Step = Callable[[Stream[Any]], Stream[Any]]


def member(item: dict[str, Any], message: dict[str, Any], of: RecordContext) -> discord.MemberJoined:
    """Make the row as the row class says, in Python."""
    user = item["user"]
    joined = item.get("joined_at")
    assert of.timestamp is not None
    return discord.MemberJoined(
        guild_id=int(message["d"]["guild_id"]),
        user_id=int(user["id"]),
        username=user["username"].lower(),
        display_name=item.get("nick") or user.get("global_name") or user["username"],
        roles=[int(role) for role in item["roles"]],
        joined_at=None if joined is None else datetime.fromisoformat(joined),
        avatar=user.get("avatar"),
        seen_at=of.timestamp,
    )


def seen(envelope: Envelope[Any]) -> Envelope[Any]:
    """Stand for what a step of one's own does with a row; it only looks at it."""
    assert envelope.payload.user_id
    return envelope


def looked_at(rows: Stream[Any]) -> Stream[Any]:
    """A step of the flow's own between ours."""
    return op.map("seen", rows, seen)


def untouched(rows: Stream[Any]) -> Stream[Any]:
    """No step."""
    return rows


WAYS: dict[str, tuple[Any, Step]] = {
    "row class": (discord.MemberJoined, untouched),
    "function": (member, untouched),
    "own step": (discord.MemberJoined, looked_at),
}
"""Way → what an item becomes, and what lies between `normalize` and `batch`."""


def members(settings: Settings, way: str) -> Dataflow:
    """The flow, written in one of the ways."""
    becomes, between = WAYS[way]
    source = KafkaSource(settings.kafka, topics=[os.environ.get("BENCH_TOPIC", discord.TOPIC)])
    events = Events("t", {"GUILD_MEMBER_ADD": Items("d", becomes)}, otherwise=Skip("unknown_event"))
    writer = PostgresWriter(settings.postgres, discord.Member, discord.MemberJoined)

    made = Dataflow("members")
    decoded = ls.decode("decode", ls.kafka_source("kafka", made, source), JsonDecoder(events))
    rows = ls.normalize("normalize", decoded.oks, discord.MemberJoined)
    written = ls.upsert("upsert", ls.batch("batch", between(rows.oks), settings.batch), writer, source)
    dead = ls.dead_letter("dead_letter", source, decoded.errs, rows.errs, written.errs)
    ls.progress("progress", source, settings.progress, written.settled, dead.settled, decoded.skipped, rows.skipped)
    return made


def flow() -> Dataflow:
    """The flow, written as `BENCH_WAY` says."""
    return members(Settings(), os.environ["BENCH_WAY"])
