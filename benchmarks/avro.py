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
from lovelace_streams.columns import Chunk, Run
from lovelace_streams.formats.avro.columns import columns_are_known
from lovelace_streams.formats.avro.reading import reading
from lovelace_streams.formats.avro.schema import load
from lovelace_streams.formats.decoder import sort
from lovelace_streams.operators.normalize import sort as map_all
from lovelace_streams.rows.interpreter import latest
from lovelace_streams.rows.normalizer import normalizer

WINDOW = 500
"""Messages of a window: the default of POLL_SIZE."""
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
    calls: dict[str, tuple[Callable[[], Any], int]] = {
        "fastavro, the writer's schema": (lambda: fastavro.schemaless_reader(io.BytesIO(avro), parsed, None), 1),
        "read whole": (lambda: whole(avro, 0), 1),
    }
    if columns_are_known():
        import pyruhvro

        plain, window = SCHEMA.read_text(), [avro] * WINDOW
        batch = pyruhvro.deserialize_array(window, plain)
        calls["pyruhvro, into Arrow"] = (lambda: pyruhvro.deserialize_array(window, plain), WINDOW)
        calls["pyruhvro, written again"] = (lambda: pyruhvro.serialize_record_batch(batch, plain, 1), WINDOW)
    for row in (Wide, Narrow):
        name, items = row.__name__, Items("d", row)
        ways = {"one by one": AvroDecoder(SCHEMA, items, at_once=False), "at once": AvroDecoder(SCHEMA, items)}
        for way, decoder in ways.items():
            calls[f"decoded for {name}, {way}"] = (_decoding(decoder, avro), WINDOW)
            calls[f"decoded and mapped to {name}, {way}"] = (_mapping(decoder, row, avro), WINDOW)
        if columns_are_known():
            calls[f"into columns of {name}"] = (_columns(ways["at once"], row, avro), WINDOW)
        calls[f"the same as JSON, {name}"] = (_mapping(_Json(items), row, text), WINDOW)
    return {what: lambda call=call, each=each: timed(call, records, each) for what, (call, each) in calls.items()}


class _Json(JsonDecoder):
    """JSON whose one event is this one."""

    def __init__(self, items: Items) -> None:
        from lovelace_streams import Events, Skip

        super().__init__(Events("t", {DATUM["t"]: items}, Skip("unknown_event")))


def _decoding(decoder: Any, message: bytes) -> Callable[[], list[Envelope[Any]]]:
    """Of a window, by the operator's own function."""
    window = [
        Envelope(Record("messages", 0, at, at, 0, None, message, [], 1_700_000_000_000), 0, message)
        for at in range(WINDOW)
    ]
    return lambda: sort(decoder, window).oks


def _mapping(decoder: Any, row: type[Row], message: bytes) -> Callable[[], Any]:
    decode, mapper = _decoding(decoder, message), normalizer(row)
    return lambda: map_all(mapper, decode())


def _columns(decoder: AvroDecoder, row: type[Row], message: bytes) -> Callable[[], Any]:
    count = WINDOW
    stamps = [1_700_000_000_000] * count
    chunk = Chunk("messages", 0, 0, range(count), [None] * count, [message] * count, stamps, [Run(0, count, 0, 0, [])])
    loop, newest = decoder.column_loop(normalizer(row)), latest(stamps[0])
    return lambda: loop(chunk, newest)


def timed(call: Callable[[], Any], records: int, each: int) -> dict[str, Any]:
    """The same record so often, `each` of them a call."""
    began, cpu = time.perf_counter(), time.process_time()
    for _ in range(records // each):
        call()
    return speed(records, time.perf_counter() - began, time.process_time() - cpu)


def main() -> int:
    """Run it; prints its JSON lines."""
    options = arguments("avro", __doc__, rows=20_000, runs=5).parse_args()
    results = alternate("avro", measurements(options.rows), options.runs, options.minutes)
    pairs = [
        (f"decoded and mapped to {name}, {way}", f"the same as JSON, {name}")
        for name in ("Wide", "Narrow")
        for way in ("one by one", "at once")
    ]
    if columns_are_known():
        pairs += [(f"into columns of {name}", f"decoded and mapped to {name}, at once") for name in ("Wide", "Narrow")]
    print(json.dumps(summary("avro", results, pairs, rows=options.rows)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
