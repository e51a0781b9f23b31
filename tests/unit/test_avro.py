"""Avro by a local schema and by a registry: what decodes, what does not, and whose fault it is."""

import io
import json
import struct
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any

import fastavro
import pytest
from bytewax.dataflow import Dataflow
from hypothesis import given
from hypothesis import strategies as st

import lovelace_streams as ls
from lovelace_streams import KafkaSettings, KafkaSource
from lovelace_streams.avro import AvroDecoder
from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.json import Items
from lovelace_streams.mapping import normalizer
from lovelace_streams.records import Record
from lovelace_streams.rows import From, Row

PATH = Path(__file__).parents[2] / "schemas/avro/discord/member.avsc"
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
                body = json.dumps(answers.get(self.path, {"error_code": 40403})).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def registry() -> Iterator[Registry]:
    server = Registry()
    yield server
    server.server.shutdown()
    server.server.server_close()


def framed(schema_id: int, datum: bytes) -> bytes:
    return struct.pack(">bI", 0, schema_id) + datum


def decoder_of(registry: Registry) -> AvroDecoder:
    return AvroDecoder(registry.url, Items("member", Member), timeout=5)


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


def test_a_registry_that_refuses_us_is_the_deployments_fault(registry: Registry) -> None:
    registry.status = 401
    with pytest.raises(DeploymentFault, match="credentials"):
        ends(decoder_of(registry), framed(1, encoded()))
