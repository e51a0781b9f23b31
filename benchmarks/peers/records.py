"""The messages of the contest: who is good, who is bad, and the formats that contenders read.

Every contender reads the same rows in the same order in the same partitions; only Kafka Connect gets them flat.
"""

import io
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import fastavro
import httpx
import msgspec
from confluent_kafka import KafkaError, Message, Producer

from benchmarks.common import PARTITIONS, payload
from dataflows import discord_sample
from lovelace_streams.settings import Settings

SCHEMA = Path(__file__).parent / "avro" / "member.avsc"
FIRST = 10**17
"""User ids begin above it."""
NAME_LENGTH = 32
"""The table's rule in contests with bad rows: a longer name is refused."""
MARKS = 200
"""About how many rows are looked for."""

encode = msgspec.json.encode


@dataclass(frozen=True)
class Load:
    """How many messages, how many of them only warm up, and which share is bad, in which way."""

    rows: int
    warm: int
    bad: float = 0.0
    badness: str = ""

    @property
    def total(self) -> int:
        """All messages of a topic."""
        return self.warm + self.rows

    def is_bad(self, number: int) -> bool:
        """By chance, the same for everybody; never the messages that are looked for."""
        return number in _bad(self.total, self.bad) and number not in self.marks

    def bad_ones(self) -> int:
        """How many are bad."""
        return sum(map(self.is_bad, _bad(self.total, self.bad)))

    @cached_property
    def marks(self) -> frozenset[int]:
        """The messages by which it is told how far somebody is: one in so many, and the last of each partition."""
        return frozenset(range(1, self.total + 1, max(self.total // MARKS, 1))) | set(self.last)

    @property
    def last(self) -> range:
        """The last message of each partition."""
        return range(self.total - PARTITIONS + 1, self.total + 1)


@cache
def _bad(total: int, share: float) -> frozenset[int]:
    chance = random.Random(7)
    return frozenset(number for number in range(1, total + 1) if chance.random() < share) if share else frozenset()


def user(number: int) -> int:
    """The user id of a message."""
    return FIRST + number


def values(load: Load, form: Callable[[dict[str, Any]], bytes]) -> Iterator[bytes]:
    """The values of a topic, in order."""
    for number in range(1, load.total + 1):
        member = payload(number)
        if load.is_bad(number):
            yield BADNESS[load.badness](member, form)
        else:
            yield form(member)


def _long(member: dict[str, Any], form: Callable[[dict[str, Any]], bytes]) -> bytes:
    member["user"]["username"] = "x" * (NAME_LENGTH + 1)
    return form(member)


def _impostor(member: dict[str, Any], form: Callable[[dict[str, Any]], bytes]) -> bytes:
    member["user"]["username"] = "everyone"
    return form(member)


def _misfit(member: dict[str, Any], form: Callable[[dict[str, Any]], bytes]) -> bytes:
    member["joined_at"] = "2023-02-30T00:00:00+00:00"  # no such day
    return form(member)


def _cut(member: dict[str, Any], form: Callable[[dict[str, Any]], bytes]) -> bytes:
    return form(member)[:-20]


BADNESS = {"undecodable": _cut, "does not fit": _misfit, "check": _long, "trigger": _impostor}
"""What can be wrong: the bytes, a value, a row that a constraint refuses, a row that a trigger refuses."""


def nested(member: dict[str, Any]) -> bytes:
    """The gateway's dispatch, as it comes: what everybody but Kafka Connect reads."""
    return encode(discord_sample.dispatch("GUILD_MEMBER_ADD", member, int(member["user"]["id"]) - FIRST))


def flat(member: dict[str, Any]) -> bytes:
    """The row already, in the envelope that Kafka Connect's JSON converter asks for: schema and payload."""
    person = member["user"]
    row = {
        "guild_id": int(member["guild_id"]),
        "user_id": int(person["id"]),
        "username": person["username"].lower(),
        "display_name": member["nick"] or person["global_name"] or person["username"],
        "roles": "{" + ",".join(member["roles"]) + "}",
        "joined_at": member["joined_at"],
        "avatar": person["avatar"],
    }
    return encode({"schema": FLAT, "payload": row})


def avro(member: dict[str, Any]) -> bytes:
    """The same dispatch as Avro in Confluent's frame, by a schema that the registry knows."""
    person = member["user"]
    data = member | {
        "guild_id": int(member["guild_id"]),
        "joined_at": datetime.fromisoformat(member["joined_at"]),
        "roles": [int(role) for role in member["roles"]],
        "user": person | {"id": int(person["id"])},
    }
    stream = io.BytesIO()
    stream.write(_frame())
    dispatch = discord_sample.dispatch("GUILD_MEMBER_ADD", data, data["user"]["id"] - FIRST)
    fastavro.schemaless_writer(stream, _schema(), dispatch)
    return stream.getvalue()


@cache
def _schema() -> Any:
    return fastavro.parse_schema(msgspec.json.decode(SCHEMA.read_bytes()))


@cache
def _frame() -> bytes:
    url = f"{Settings().registry}/subjects/peers-members-value/versions"
    answer = httpx.post(url, json={"schema": SCHEMA.read_text()}, trust_env=False, timeout=30)
    return struct.pack(">bI", 0, int(answer.raise_for_status().json()["id"]))


def _field(name: str, kind: str, logical: str | None = None) -> dict[str, Any]:
    return {"field": name, "type": kind, "optional": True} | ({"name": logical} if logical else {})


FLAT = msgspec.Raw(
    encode(
        {
            "type": "struct",
            "optional": False,
            "fields": [
                {"field": "guild_id", "type": "int64", "optional": False},
                {"field": "user_id", "type": "int64", "optional": False},
                _field("username", "string"),
                _field("display_name", "string"),
                _field("roles", "string"),
                _field("joined_at", "string", "io.debezium.time.ZonedTimestamp"),
                _field("avatar", "string"),
            ],
        }
    )
)
"""What a flat row is made of, in Kafka Connect's terms."""


def fill(brokers: str, topic: str, contents: Sequence[bytes], headers: Sequence[tuple[str, bytes]]) -> None:
    """Send all of it: one partition after the other in turn, so that it is known what is in which."""
    failed: list[str] = []
    producer = Producer(
        {
            "bootstrap.servers": brokers,
            "enable.idempotence": True,
            "linger.ms": 5,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    sent: list[tuple[str, str | bytes | None]] = [*headers]

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failed.append(error.str())

    for number, value in enumerate(contents):
        while True:
            try:
                producer.produce(
                    topic,
                    value,
                    key=b"%d" % (number + 1),
                    partition=number % PARTITIONS,
                    headers=sent,
                    on_delivery=delivered,
                )
                break
            except BufferError:
                producer.poll(0.1)
        if number % 1000 == 0:
            producer.poll(0)
    producer.flush()
    if failed:
        raise RuntimeError(f"{len(failed)} messages were not delivered: {failed[0]}")
