"""What an Avro record costs to decode and to map, beside fastavro and JSON, without any server.

    make bench ARGS="avro"

A row is a record; CPU is this process's, which does nothing else.
"""

import io
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import fastavro
import msgspec

from benchmarks.common import alternate, arguments, speed, summary
from lovelace_streams import Envelope, From, Items, JsonDecoder, Record, Row
from lovelace_streams.avro import AvroDecoder
from lovelace_streams.avro.reading import reading
from lovelace_streams.avro.schema import load
from lovelace_streams.mapping import normalizer

SCHEMA = Path(__file__).parents[1] / "schemas/avro/discord/message.avsc"
DATUM = {
    "op": 0,
    "t": "MESSAGE_CREATE",
    "s": 1234,
    "d": {
        "id": 1_234_567_890_123_456_789,
        "channel_id": 1_134_567_890_123_456_789,
        "guild_id": 1_034_567_890_123_456_789,
        "author": {
            "id": 934_567_890_123_456_789,
            "username": "ann",
            "discriminator": "0",
            "global_name": "Ann",
            "avatar": "0123456789abcdef0123456789abcdef",
            "bot": False,
        },
        "webhook_id": None,
        "type": 0,
        "content": "a line of text that somebody wrote to the others, neither short nor long",
        "timestamp": datetime(2024, 5, 1, 12, 30, 15, 123456, tzinfo=UTC),
        "edited_timestamp": None,
        "pinned": False,
        "mention_everyone": False,
        "tts": False,
        "flags": 0,
        "mention_roles": [1, 2],
    },
}


class Wide(Row, table="wide", primary_key="id"):
    id: int
    channel_id: int
    guild_id: int | None
    author_id: Annotated[int | None, From("author.id")]
    username: Annotated[str | None, From("author.username")]
    content: str | None
    timestamp: datetime | None
    edited_timestamp: datetime | None
    pinned: bool | None
    flags: int | None


class Narrow(Row, table="narrow", primary_key="id"):
    id: int
    content: str | None


def measurements(records: int) -> dict[str, Callable[[], dict[str, Any]]]:
    """By name, in the order of a run."""
    schema = load(SCHEMA)
    parsed = fastavro.parse_schema(json.loads(SCHEMA.read_text()))
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, parsed, DATUM)
    avro, text = stream.getvalue(), msgspec.json.encode(DATUM)
    whole, _ = reading(schema.root, schema.root)
    calls: dict[str, Callable[[], Any]] = {
        "fastavro, the writer's schema": lambda: fastavro.schemaless_reader(io.BytesIO(avro), parsed, None),
        "read whole": lambda: whole(avro, 0),
    }
    for row in (Wide, Narrow):
        name, items, mapper = row.__name__, Items("d", row), normalizer(row)
        calls[f"decoded for {name}"] = _decoding(AvroDecoder(SCHEMA, items), avro)
        calls[f"decoded and mapped to {name}"] = _mapping(AvroDecoder(SCHEMA, items), mapper, avro)
        calls[f"the same as JSON, {name}"] = _mapping(_Json(items), mapper, text)
    return {what: lambda call=call: timed(call, records) for what, call in calls.items()}  # type: ignore[misc]


class _Json(JsonDecoder):
    """JSON whose one event is this one."""

    def __init__(self, items: Items) -> None:
        from lovelace_streams import Events, Skip

        super().__init__(Events("t", {DATUM["t"]: items}, Skip("unknown_event")))


def _decoding(decoder: Any, message: bytes) -> Callable[[], Envelope[Any]]:
    record = Record("messages", 0, 0, 0, 0, None, message, [], 1_700_000_000_000)

    def call() -> Envelope[Any]:
        oks: list[Any] = []
        decoder.decode(record, oks, [], [])
        return oks[0]

    return call


def _mapping(decoder: Any, mapper: Any, message: bytes) -> Callable[[], Any]:
    decode = _decoding(decoder, message)
    return lambda: mapper.normalize(decode(), 1_700_000_000_000)


def timed(call: Callable[[], Any], records: int) -> dict[str, Any]:
    """The same record so often."""
    began, cpu = time.perf_counter(), time.process_time()
    for _ in range(records):
        call()
    return speed(records, time.perf_counter() - began, time.process_time() - cpu)


def main() -> int:
    """Run it; prints its JSON lines."""
    options = arguments("avro", __doc__, rows=20_000, runs=5).parse_args()
    results = alternate("avro", measurements(options.rows), options.runs)
    pairs = [(f"decoded and mapped to {name}", f"the same as JSON, {name}") for name in ("Wide", "Narrow")]
    print(json.dumps(summary("avro", results, pairs, rows=options.rows)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
