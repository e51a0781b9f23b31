"""Good messages go as columns. What falls through to the items' way ends the same, so that no other test sees it."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import pytest
from bytewax.dataflow import Dataflow
from prometheus_client import REGISTRY

import lovelace_streams as ls
from dataflows import discord, discord_sample
from lovelace_streams.testing import MemoryWriter, Message, run

GUILD = "41771983423143937"


class Order(ls.Row, table="orders", primary_key="id", version="seen"):
    id: int
    note: Annotated[str, str.strip]
    paid: bool = False
    tags: list[str] | None
    seen: Annotated[int, ls.FromKafka("offset")]


def orders(settings: ls.Settings) -> Dataflow:
    source = ls.KafkaSource(settings.kafka, topics=["orders"])
    flow = Dataflow("orders")
    decoded = ls.decode("decode", ls.kafka_source("kafka", flow, source), ls.JsonDecoder(ls.Items("$", Order)))
    items = ls.normalize("normalize", decoded.oks, Order)
    written = ls.upsert("upsert", ls.batch("batch", items.oks, settings.batch), MemoryWriter(Order), source)
    dead = ls.dead_letter("dead_letter", source, decoded.errs, items.errs, written.errs)
    ls.commit("commit", source, written.settled, dead.settled, decoded.skipped, items.skipped)
    return flow


def order(number: int) -> dict[str, Any]:
    return {"id": number, "note": f" no. {number} é ", "tags": ["a", "b"]}


def dispatch(event: str, **data: Any) -> Message:
    return Message(discord_sample.dispatch(event, {"guild_id": GUILD, **data}))


def of_members() -> list[Message]:
    members = [discord_sample.member(user) for user in range(1, 40)]
    return [
        *(dispatch("GUILD_MEMBER_ADD", **member) for member in members),
        dispatch("GUILD_MEMBERS_CHUNK", members=members, chunk_index=0, chunk_count=1),
        *(dispatch("GUILD_MEMBER_UPDATE", **{**member, "roles": ["7"]}) for member in members),
        *(dispatch("GUILD_MEMBER_REMOVE", user=member["user"]) for member in members[:5]),
    ]


def counted(pipeline: str, way: str) -> float:
    labels = {"pipeline": pipeline, "way": way}
    return REGISTRY.get_sample_value("lovelace_decoded_items_total", labels) or 0.0


def ways_of(flow: Callable[..., Dataflow], pipeline: str, messages: Sequence[Any], **settings: Any) -> tuple[int, int]:
    """How many items went as columns, and how many one by one."""
    before = [counted(pipeline, way) for way in ("columns", "items")]
    run(flow, messages, **settings)
    columns, items = (counted(pipeline, way) - was for way, was in zip(("columns", "items"), before, strict=True))
    return int(columns), int(items)


@pytest.mark.parametrize(
    ("flow", "pipeline", "messages", "items"),
    [
        (orders, "orders", [order(number) for number in range(50)], 50),
        (orders, "orders", [[order(7 * n + k) for k in range(7)] for n in range(10)], 70),
        (orders, "orders", [Message(order(number), job="a", items=1) for number in range(20)], 20),
        (discord.flow, "discord", of_members(), 39 + 39 + 39 + 5),
    ],
    ids=["one a message", "many a message", "of a job", "members"],
)
def test_good_messages_go_as_columns(
    flow: Callable[..., Dataflow], pipeline: str, messages: Sequence[Any], items: int
) -> None:
    assert ways_of(flow, pipeline, messages, columnar=True) == (items, 0)


def test_what_goes_one_by_one_is_counted_so() -> None:
    bad = [b"not json", {"id": "x", "note": ""}, {"id": 1, "note": "a\0b"}]
    messages = [order(1), *bad, order(2), None, [order(3), {"id": 4}, order(5)], *map(order, range(10, 20))]

    assert ways_of(orders, "orders", messages, columnar=True) == (14, 5)
    assert ways_of(orders, "orders", messages, columnar=False) == (0, 19)


def test_a_few_messages_are_no_chunk() -> None:
    assert ways_of(orders, "orders", [order(1), order(2)], columnar=True) == (0, 2)
