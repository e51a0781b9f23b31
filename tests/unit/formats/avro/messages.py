"""Avro messages of a member, and of small records made for one case; and what a decoder makes of them."""

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import fastavro

from lovelace_streams.avro import AvroDecoder
from lovelace_streams.records import Record
from lovelace_streams.rows import From, Row
from lovelace_streams.rows.normalizer import normalizer

PATH = Path(__file__).parents[4] / "schemas/avro/discord/member.avsc"
SCHEMA = json.loads(PATH.read_text())
JOINED = datetime(2015, 4, 26, 6, 26, 56, tzinfo=UTC)
DATUM = {
    "guild_id": 9,
    "member": {
        "user": {"id": 2**62, "username": "Ann", "global_name": None, "avatar": None, "bot": False},
        "nick": None,
        "roles": [1, 2],
        "joined_at": JOINED,
    },
}


class Member(Row, table="members", primary_key=("guild_id", "user_id")):
    guild_id: Annotated[int, From("$.guild_id")]
    user_id: Annotated[int, From("user.id")]
    name: Annotated[str | None, From("nick", "user.global_name", "user.username"), str.lower]
    roles: list[int]
    joined_at: datetime | None


ANN = Member(guild_id=9, user_id=2**62, name="ann", roles=[1, 2], joined_at=JOINED)


def encoded(datum: Any = DATUM, schema: Any = SCHEMA) -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), datum)
    return stream.getvalue()


def ends(decoder: AvroDecoder, value: bytes | None, **fields: Any) -> list[Any]:
    record = Record("topic", 0, 0, 0, 0, None, value, [], 0, **fields)
    oks: list[Any] = []
    errs: list[Any] = []
    skipped: list[Any] = []
    decoder.decode(record, oks, errs, skipped)
    assert record.items == sum(e.count for e in [*oks, *errs, *(envelope for _, envelope in skipped)])
    return (
        [normalizer(Member).normalize(envelope, 0) for envelope in oks]
        + [(str(letter.reason), letter.count) for letter in errs]
        + [(str(reason), envelope.count) for reason, envelope in skipped]
    )


def record_of(*fields: Any, name: str = "R") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": f"f{n}", "type": t} for n, t in enumerate(fields)]}


MILLIS = {"type": "int", "logicalType": "time-millis"}
MOMENT = {"type": "long", "logicalType": "timestamp-millis"}
OLD, NEW = record_of("int", name="shop.Order"), record_of("long", name="shop.Order")


class Order(Row, table="orders", primary_key="f0"):
    f0: int


def letters(decoder: Any, value: bytes) -> Any:
    oks: list[Any] = []
    errs: list[Any] = []
    decoder.decode(Record("topic", 0, 0, 0, 0, None, value, [], 0), oks, errs, [])
    return [envelope.payload.plain()[0] for envelope in oks] or [(str(e.reason), e.detail) for e in errs]
