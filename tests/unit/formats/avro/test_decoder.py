"""Avro by a local schema and by a registry: what decodes, what does not, and whose fault it is."""

import io
import json
import math
import struct
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import fastavro
import pytest
from bytewax.dataflow import Dataflow
from hypothesis import given
from hypothesis import strategies as st

import lovelace_streams as ls
from lovelace_streams import KafkaSettings, KafkaSource, Settings
from lovelace_streams.avro import AvroDecoder, Confluent, JsonOrAvro, SingleObject, parse
from lovelace_streams.errors import DeploymentFault, DestinationFault, RecordFault
from lovelace_streams.formats.avro.reading import reading
from lovelace_streams.formats.events import Items
from lovelace_streams.formats.json import JsonDecoder
from lovelace_streams.records import Record
from lovelace_streams.rows import From, Row
from lovelace_streams.rows.normalizer import normalizer
from tests.properties.avro_schemas import varint

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


LOCAL = AvroDecoder(PATH, Items("member", Member))
ANN = Member(guild_id=9, user_id=2**62, name="ann", roles=[1, 2], joined_at=JOINED)


def test_a_local_schema() -> None:
    assert ends(LOCAL, encoded()) == [ANN]
    assert ends(AvroDecoder(SCHEMA, Items("member", Member)), encoded(), declared=1) == [ANN]


@pytest.mark.parametrize("value", [b"", b"\xff" * 20, encoded()[:-1], encoded() + b"\0", b"{}", encoded()[3:]])
def test_what_is_not_avro(value: bytes) -> None:
    assert ends(LOCAL, value, declared=7) == [("not_avro", 7)]


def test_tombstones_are_skipped() -> None:
    assert ends(LOCAL, None, declared=3) == [("tombstone", 3)]


@given(st.binary(max_size=60))
def test_any_bytes_end_somewhere(value: bytes) -> None:
    record = Record("topic", 0, 0, 0, 0, None, value, [], 0)
    oks: list[Any] = []
    errs: list[Any] = []
    LOCAL.decode(record, oks, errs, [])

    assert len(oks) + len(errs) == record.items == 1


def test_a_schema_that_is_not_there_is_the_deployments_fault(tmp_path: Path) -> None:
    with pytest.raises(DeploymentFault, match=r"gone\.avsc"):
        AvroDecoder(tmp_path / "gone.avsc", Member)


def test_a_decoder_that_may_have_to_wait_wants_the_source() -> None:
    source = KafkaSource(KafkaSettings("127.0.0.1:9092"), topics=["raw"])
    flow = Dataflow("flow")
    raw = ls.kafka_source("kafka", flow, source)
    decoder = AvroDecoder("http://127.0.0.1:1", Member)
    with pytest.raises(DeploymentFault, match="hand it the source"):
        ls.decode("without", raw, decoder)

    assert ls.decode("with", raw, decoder, source).oks
    assert ls.decode("local", raw, LOCAL).oks


class Registry:
    """A small server that answers as a schema registry does, and counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.status = 200
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.asked.append(self.path)
                answers = {
                    "/schemas/ids/1": {"schema": json.dumps(SCHEMA)},
                    "/schemas/ids/2": {"schema": "syntax = 3", "schemaType": "PROTOBUF"},
                    "/schemas/ids/3": {"schema": json.dumps({"type": "array", "items": "Elsewhere"})},
                }
                status = registry.status if self.path in answers or registry.status != 200 else 404
                unknown = {"error_code": 40403} if self.path.startswith("/schemas/") else {}
                body = json.dumps(answers.get(self.path, unknown)).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def registry() -> Iterator[Registry]:
    server = Registry()
    yield server
    server.server.shutdown()
    server.server.server_close()


def framed(schema_id: int, datum: bytes) -> bytes:
    return struct.pack(">bI", 0, schema_id) + datum


def decoder_of(registry: Registry) -> AvroDecoder:
    return AvroDecoder(registry.url, Items("member", Member), timeout=60)


class Whole(Row, table="wholes", primary_key="id"):
    id: int
    all: Annotated[dict[str, Any], From("$")]


class WholeItem(Row, table="wholes", primary_key="id"):
    id: int
    all: Annotated[dict[str, Any], From(".")]


@pytest.mark.parametrize("row", [Whole, WholeItem])
def test_a_column_of_the_whole_message_has_all_of_it(row: type[Row]) -> None:
    schema = {
        "type": "record",
        "name": "Both",
        "fields": [{"name": "id", "type": "long"}, {"name": "text", "type": "string"}],
    }
    both = {"id": 1, "text": "x"}
    oks: list[Any] = []
    AvroDecoder(schema, row).decode(Record("t", 0, 0, 0, 0, None, encoded(both, schema), [], 0), oks, [], [])

    assert normalizer(row).normalize(oks[0], 0) == row(id=1, all=both)


def test_a_registry_is_asked_once_an_id(registry: Registry) -> None:
    decoder = decoder_of(registry)

    assert [ends(decoder, framed(1, encoded())) for _ in range(3)] == [[ANN]] * 3
    assert registry.asked == ["/schemas/ids/1"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (framed(77, encoded()), "unknown_schema"),
        (framed(2, encoded()), "unknown_schema"),
        (framed(3, encoded()), "unknown_schema"),
        (encoded(), "not_avro"),
        (b"", "not_avro"),
        (b"\0\0", "not_avro"),
        (framed(1, b""), "not_avro"),
        (framed(1, encoded() + b"x"), "not_avro"),
    ],
)
def test_what_the_frame_says(registry: Registry, value: bytes, reason: str) -> None:
    decoder = decoder_of(registry)

    assert [ends(decoder, value) for _ in range(2)] == [[(reason, 1)]] * 2
    assert len(registry.asked) <= 1


def test_a_registry_that_does_not_answer_is_the_destinations_fault(registry: Registry) -> None:
    decoder = decoder_of(registry)
    registry.status = 503
    with pytest.raises(DestinationFault, match="503"):
        ends(decoder, framed(1, encoded()))

    registry.status = 200
    assert ends(decoder, framed(1, encoded())) == [ANN]


def test_a_registry_that_is_down_is_the_destinations_fault() -> None:
    with pytest.raises(DestinationFault, match="127.0.0.1"):
        ends(AvroDecoder("http://user:secret@127.0.0.1:1", Member), framed(1, encoded()))


def test_an_address_that_is_not_the_apis_is_the_deployments_fault(registry: Registry) -> None:
    with pytest.raises(DeploymentFault, match="takes the API's path"):
        ends(AvroDecoder(f"{registry.url}/elsewhere", Member), framed(1, encoded()))


def test_a_registry_that_refuses_us_is_the_deployments_fault(registry: Registry) -> None:
    registry.status = 401
    with pytest.raises(DeploymentFault, match="credentials"):
        ends(decoder_of(registry), framed(1, encoded()))


# What the bytes say, by themselves and against a reader.


def record_of(*fields: Any, name: str = "R") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": f"f{n}", "type": t} for n, t in enumerate(fields)]}


def read(value: bytes, *fields: Any, reader: Any = None) -> Any:
    """The first field of a record, or the reason why there is none."""
    writer = parse(record_of(*fields)).root
    try:
        return reading(writer, parse(reader).root if reader else writer)[0](value, 0)["f0"]
    except RecordFault as fault:
        return str(fault.reason)


STATE = {"type": "enum", "name": "State", "symbols": ["A", "B"]}
MILLIS = {"type": "int", "logicalType": "time-millis"}
MOMENT = {"type": "long", "logicalType": "timestamp-millis"}
MONEY = {"type": "bytes", "logicalType": "decimal", "precision": 3, "scale": 1}
LONGS, NULLS = {"type": "array", "items": "long"}, {"type": "array", "items": "null"}
TWO_60 = b"\x80\x80\x80\x80\x80\x80\x80\x80\x20"
"""2**60, as a varint of 2**61."""


@pytest.mark.parametrize(
    ("value", "kind", "reason"),
    [
        (b"\x02", "boolean", "not_avro"),
        (b"\xff" * 10 + b"\x01", "long", "not_avro"),
        (b"\xff" * 9 + b"\x02", "long", "not_avro"),
        (b"\x80\x80\x80\x80\x80\x80\x40", "int", "not_avro"),
        (b"\x01abc", "string", "not_avro"),
        (TWO_60, "bytes", "not_avro"),
        (b"\x04\xff\xff", "string", "not_utf8"),
        (b"\x01", STATE, "not_avro"),
        (b"\x04", STATE, "not_avro"),
        (b"\x01", ["null", "string"], "not_avro"),
        (b"\x04", ["null", "string"], "not_avro"),
        (TWO_60 + b"\0", LONGS, "not_avro"),
        (TWO_60 + b"\0", NULLS, "too_large"),
        (b"\x01" + TWO_60 + b"\x02\0", LONGS, "not_avro"),
        (b"\x01\x04\x02\0", LONGS, "not_avro"),
        (b"\x01\x02\x02", LONGS, "not_avro"),
        (b"\x04\x02a\x02", {"type": "map", "values": "long"}, "not_avro"),
        (b"\x01", MILLIS, "out_of_range"),
        (varint(86_400_000)[:-1], MILLIS, "not_avro"),
        (varint(86_400_000), MILLIS, "out_of_range"),
        (b"\xff" * 9 + b"\x01", MOMENT, "out_of_range"),
        (b"\x06\x7f\xff\xff", MONEY, "out_of_range"),
        (b"\x02a", {"type": "string", "logicalType": "uuid"}, "out_of_range"),
        (b"", "long", "not_avro"),
        (b"\x02\x02", "long", "not_avro"),
    ],
)
def test_what_no_writer_makes(value: bytes, kind: Any, reason: str) -> None:
    assert read(value, kind) == reason


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (b"\xff" * 9 + b"\x01", "long", -(2**63)),
        (b"\xfe\xff\xff\xff\x0f", "int", 2**31 - 1),
        (b"\x01\x02\x02\0", LONGS, [1]),
        (b"\x02\x02\x02\x04\0", LONGS, [1, 2]),
        (b"\x06\0", NULLS, [None] * 3),
        (b"\x04\x03\xe7", MONEY, Decimal("99.9")),
        (b"\x02", MOMENT, datetime(1970, 1, 1, 0, 0, 0, 1000, tzinfo=UTC)),
        (
            b"0123456789abcdef",
            {"type": "fixed", "size": 16, "name": "Id", "logicalType": "uuid"},
            UUID(bytes=b"0123456789abcdef"),
        ),
    ],
)
def test_what_is_just_within(value: bytes, kind: Any, expected: Any) -> None:
    assert read(value, kind) == expected


@pytest.mark.parametrize(
    ("value", "writer", "reader", "expected"),
    [
        (b"\x02", "long", "double", 1.0),
        (b"\x02", "long", "int", "wrong_type"),
        (b"\0", ["null", "long"], "long", "null"),
        (b"\x02\x02", ["null", "long"], "long", 1),
        (b"\x02", "int", ["float", "int"], 1),
        (b"\x02", STATE, {**STATE, "symbols": ["A"]}, "bad_value"),
        (b"\x02", STATE, {**STATE, "symbols": ["A"], "default": "A"}, "A"),
        (b"\x02", MOMENT, "long", 1),
        (b"\x02", "long", MOMENT, datetime(1970, 1, 1, 0, 0, 0, 1000, tzinfo=UTC)),
        (b"\x02", MOMENT, {**MOMENT, "logicalType": "timestamp-micros"}, datetime(1970, 1, 1, 0, 0, 0, 1000, UTC)),
        (b"\x02\x03", MONEY, {**MONEY, "scale": 2}, "wrong_type"),
        (b"\x02\xff", "bytes", "string", "not_utf8"),
    ],
)
def test_what_a_reader_makes_of_it(value: bytes, writer: Any, reader: Any, expected: Any) -> None:
    assert repr(read(value, writer, reader=record_of(reader))) == repr(expected)


def test_what_only_the_reader_has() -> None:
    added = record_of("long")
    added["fields"] += [
        {"name": "at", "type": MOMENT, "default": 0},
        {"name": "raw", "type": "bytes", "default": "\u00ff"},
        {"name": "list", "type": LONGS, "default": []},
        {
            "name": "inner",
            "type": {**record_of("int", name="I"), "fields": [{"name": "x", "type": "int", "default": 5}]},
        },
    ]
    added["fields"][-1]["default"] = {}
    decode, _ = reading(parse(record_of("long")).root, parse(added).root)
    first, second = decode(b"\x02", 0), decode(b"\x02", 0)

    assert first["at"].year == 1970
    assert (first["raw"], first["inner"]) == (b"\xff", {"x": 5})
    assert first["list"] is not second["list"]
    missing = record_of("long", "long")
    assert read(b"\x02", "long", reader=missing) == "missing"


def test_depth_ends_as_a_letter() -> None:
    lists = {"type": "record", "name": "L", "fields": [{"name": "f0", "type": ["null", "L"]}]}
    root = parse(lists).root
    decode, _ = reading(root, root)
    assert decode(b"\x02" * 200 + b"\0", 0)["f0"] is not None
    for depth in (300, 1_000_000):
        with pytest.raises(RecordFault, match="too_deep"):
            decode(b"\x02" * depth + b"\0", 0)


def test_what_no_row_reads_is_skipped() -> None:
    class Narrow(Row, table="narrow", primary_key="id"):
        id: Annotated[int, From("user.id")]

    user = record_of("long", MOMENT, name="U")
    user["fields"][0]["name"] = "id"
    schema = {"type": "record", "name": "R", "fields": [{"name": "user", "type": user}, {"name": "x", "type": MILLIS}]}
    oks: list[Any] = []
    AvroDecoder(schema, Narrow).decode(Record("t", 0, 0, 0, 0, None, b"\x0e\x02\x01", [], 0), oks, [], [])

    assert oks[0].payload.plain()[0] == {"user": {"id": 7}}


def test_items_are_decoded_by_type_where_their_values_are_as_json_has_them() -> None:
    class Named(Row, table="named", primary_key="f0"):
        f0: int
        f1: str | None
        f2: float

    decoder = AvroDecoder(record_of("long", ["null", "string"], "double"), Named)
    ends: list[Any] = []
    for text, number in ((b"\x02\x02a", 1.5), (b"\0", 1.5), (b"\x02\x02\0", 1.5), (b"\0", math.nan), (b"\0", math.inf)):
        value = b"\x0e" + text + struct.pack("<d", number)
        decoder.decode(Record("t", 0, 0, 0, 0, None, value, [], 0), ends, [], [])

    assert [envelope.payload.item is not None for envelope in ends] == [True, True, False, False, False]
    assert normalizer(Named).normalize(ends[0], 0) == Named(f0=7, f1="a", f2=1.5)
    assert normalizer(Named).normalize(ends[1], 0) == Named(f0=7, f1=None, f2=1.5)
    with pytest.raises(RecordFault, match="NUL"):
        normalizer(Named).normalize(ends[2], 0)
    for envelope in ends[3:]:
        with pytest.raises(RecordFault, match="not finite"):
            normalizer(Named).normalize(envelope, 0)


def test_items_of_a_list_are_decoded_by_type_each_by_itself() -> None:
    class Line(Row, table="lines", primary_key=("order", "number")):
        order: Annotated[int, From("$.id")]
        number: int

    item = {"type": "record", "name": "Line", "fields": [{"name": "number", "type": ["long", "double"]}]}
    lines = {"name": "lines", "type": {"type": "array", "items": item}}
    schema = {"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}, lines]}
    value = b"\x0e" + b"\x06" + b"\0\x02" + b"\x02" + struct.pack("<d", 1.5) + b"\0\x04" + b"\0"
    ends: list[Any] = []
    AvroDecoder(schema, Items("lines", Line)).decode(Record("t", 0, 0, 0, 0, None, value, [], 0), ends, [], [])

    assert [envelope.payload.item is not None for envelope in ends] == [True, False, True]
    assert normalizer(Line).normalize(ends[0], 0) == Line(order=7, number=1)
    with pytest.raises(RecordFault, match="expected int, got float"):
        normalizer(Line).normalize(ends[1], 0)
    assert normalizer(Line).normalize(ends[2], 0) == Line(order=7, number=2)


# Frames.

OLD, NEW = record_of("int", name="shop.Order"), record_of("long", name="shop.Order")


class Order(Row, table="orders", primary_key="f0"):
    f0: int


def letters(decoder: Any, value: bytes) -> Any:
    oks: list[Any] = []
    errs: list[Any] = []
    decoder.decode(Record("topic", 0, 0, 0, 0, None, value, [], 0), oks, errs, [])
    return [envelope.payload.plain()[0] for envelope in oks] or [(str(e.reason), e.detail) for e in errs]


def test_single_objects_are_told_apart_by_their_fingerprint() -> None:
    decoder = AvroDecoder(SingleObject(OLD, NEW), Order, reader=NEW)
    for schema in (OLD, NEW):
        assert letters(decoder, b"\xc3\x01" + parse(schema).fingerprint() + b"\x0e") == [{"f0": 7}]
    unknown = ("unknown_schema", "none of the schemas has this fingerprint")
    assert letters(decoder, b"\xc3\x01" + b"12345678" + b"\x0e") == [unknown]
    assert letters(decoder, b"\xc3\x02" + parse(NEW).fingerprint() + b"\x0e")[0][0] == "not_avro"
    assert letters(decoder, b"\xc3\x01")[0][0] == "not_avro"


def test_the_fingerprint_is_avros_own() -> None:
    assert parse('"int"').fingerprint()[::-1].hex() == "7275d51a3f395c8f"  # of the specification's test cases


def test_a_record_that_is_not_the_flows_own() -> None:
    other = record_of("long", name="shop.Customer")
    detail = "it is of shop.Customer, the flow reads shop.Order"
    assert letters(AvroDecoder(other, Order, reader=NEW), b"\x0e") == [("unknown_schema", detail)]
    assert letters(AvroDecoder(other, Order, reader={**NEW, "aliases": ["Customer"]}), b"\x0e") == [{"f0": 7}]


def test_json_and_avro_in_one_topic() -> None:
    both = JsonOrAvro(JsonDecoder(Order), AvroDecoder(SingleObject(NEW), Order))
    assert letters(both, b"\xc3\x01" + parse(NEW).fingerprint() + b"\x0e") == [{"f0": 7}]
    assert letters(both, b'{"f0": 7}') == [{"f0": 7}]
    assert letters(both, b"\0\0")[0][0] == "not_avro"
    assert letters(both, b"hello")[0][0] == "not_json"
    assert not both.waits


@pytest.mark.parametrize("url", ["ftp://x", "registry:8081", "http://", "http://u:hunter2@host:port/"])
def test_an_address_that_can_not_be_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(DeploymentFault, match="SCHEMA_REGISTRY_URL") as caught:
        Confluent(url)
    assert "hunter2" not in str(caught.value)


def test_the_address_is_a_secret_of_the_settings() -> None:
    settings = Settings(schema_registry_url="http://u:hunter2@127.0.0.1:8081", _env_file=None)
    assert "hunter2" not in repr(settings)
    assert settings.registry.endswith("@127.0.0.1:8081")
    with pytest.raises(DeploymentFault, match="SCHEMA_REGISTRY_URL"):
        _ = Settings(schema_registry_url="", _env_file=None).registry
