"""`lovelace init` looks at the topic: what is not there is said, Avro is read, kinds of messages are told apart."""

import io
import json
import struct
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import pytest

from lovelace_streams.avro import parse
from lovelace_streams.formats.avro.registry import Registry
from tests.faults.harness import Group, Worker, eventually, query, send
from tests.servers.command import lovelace
from tests.servers.test_init import formatted

ORDER_V1 = {
    "type": "record",
    "name": "shop.Order",
    "fields": [{"name": "id", "type": "long"}, {"name": "buyer", "type": "string"}],
}
ORDER = {
    "type": "record",
    "name": "shop.Order",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "buyer", "type": "string"},
        {"name": "total", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}]},
        {"name": "placed", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["NEW", "PAID"]}},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "extra", "type": {"type": "map", "values": "int"}},
        {"name": "odd", "type": ["int", "string"]},
        {"name": "clock", "type": {"type": "int", "logicalType": "time-millis"}},
        {"name": "class", "type": "int"},
    ],
}
DATUM = {
    "id": 7, "buyer": "ada", "total": Decimal("12.50"), "placed": 0, "state": "PAID", "tags": ["a"], "extra": {"n": 1},
    "odd": 1, "clock": 0, "class": 1,
}  # fmt: skip
FIELDS = {
    "id: int", "buyer: str", "total: Decimal | None", "placed: datetime | None", "state: str | None",
    "tags: list[str] | None", "extra: dict[str, Any] | None", "# odd: int or string: say which",
}  # fmt: skip

Init = Callable[..., Any]


def datum(schema: Any, value: Any) -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), value)
    return stream.getvalue()


def single(schema: Any, value: Any) -> bytes:
    return b"\xc3\x01" + parse(schema).fingerprint() + datum(schema, value)


@pytest.fixture
def environment(brokers: str, database: str) -> dict[str, str]:
    return {
        "KAFKA_BROKERS": brokers, "POSTGRES_DSN": database, "LOG_FORMAT": "json", "PROGRESS_API_URL": "",
        "SCHEMA_REGISTRY_URL": "", "CONSUMER_GROUP_ID": "", "METRICS_PORT": "0",
    }  # fmt: skip


@pytest.fixture
def init(environment: dict[str, str], tmp_path: Path) -> Init:
    def init(topic: str, *options: str, table: str = "orders", **settings: str) -> Any:
        return lovelace(
            tmp_path, environment | settings, "init", "orders", "--topic", topic, "--table", table, *options
        )

    return init


def module(tmp_path: Path) -> str:
    path = tmp_path / "dataflows" / "orders.py"
    assert formatted(path)
    return path.read_text()


def lines_of(text: str) -> set[str]:
    return {line.strip() for line in text.splitlines()}


# What is not there.


def test_a_topic_that_is_not_there_is_said_with_the_nearest_name(
    init: Init, database: str, make_topic, tmp_path
) -> None:
    query(database, "create table orders (id bigint primary key)")
    topic = make_topic("orders.raw", partitions=1)

    mistyped = init(topic[:-1])
    unlike = init("quite-another")

    assert (mistyped.returncode, unlike.returncode) == (78, 78)
    assert (
        f"has no topic {topic[:-1]!r} (there is {topic!r}): create it, correct --topic, or add --new" in mistyped.stderr
    )
    assert "has no topic 'quite-another': create it" in unlike.stderr
    assert len(mistyped.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "dataflows").exists()
    assert init("quite-another", "--new").returncode == 0


def test_a_table_that_is_not_there_is_said_with_the_nearest_name(
    init: Init, database: str, make_topic, tmp_path
) -> None:
    query(
        database,
        "create table orders (id bigint primary key); create schema sales; create view sales.lines as select 1",
    )
    topic = make_topic(partitions=1)

    for table, likely in (("order", " (there is 'orders')"), ("sales.line", " (there is 'sales.lines')"), ("q", "")):
        refused = init(topic, table=table)
        assert refused.returncode == 78
        assert f"has no table {table!r}{likely}: create it, correct --table, or add --new" in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "dataflows").exists()
    assert init(topic, "--new", table="order").returncode == 0


def test_with_a_table_a_flow_is_written_while_the_broker_is_away(init: Init, database: str, tmp_path: Path) -> None:
    query(database, "create table orders (id bigint primary key)")

    written = init("t", KAFKA_BROKERS="127.0.0.1:1")

    assert written.returncode == 0
    assert "The topic was not looked at: the flow decodes JSON" in written.stderr
    assert "    id: int\n" in module(tmp_path)


# Avro.


@pytest.mark.slow
def test_a_topic_in_avro_of_a_registry_is_read(
    init: Init, environment: dict[str, str], registry_server, make_topic, tmp_path: Path
) -> None:
    topic, brokers = make_topic(partitions=1), environment["KAFKA_BROKERS"]
    ids = []
    for schema in (ORDER_V1, ORDER):
        body = {"schema": json.dumps(schema)}
        _, answer = Registry(registry_server.url).ask("POST", f"/subjects/{topic}-value/versions", body)
        ids.append(answer["id"])
    old = struct.pack(">BI", 0, ids[0]) + datum(ORDER_V1, {"id": 6, "buyer": "bob"})
    new = struct.pack(">BI", 0, ids[1]) + datum(ORDER, DATUM)
    send(brokers, topic, [(b"6", old), (b"7", new)])

    unset = init(topic, "--new")
    assert (unset.returncode, "set SCHEMA_REGISTRY_URL" in unset.stderr) == (78, True)
    environment["SCHEMA_REGISTRY_URL"] = registry_server.url
    written = init(topic, "--new", SCHEMA_REGISTRY_URL=registry_server.url)

    assert written.returncode == 0, written.stderr
    text = module(tmp_path)
    assert lines_of(text) >= FIELDS
    assert "decoder = AvroDecoder(settings.registry, Orders)" in text
    assert "SOURCE" not in text, "`lovelace submit` sends JSON"
    assert lovelace(tmp_path, environment, "ddl", "orders", "--apply").returncode == 0
    checked = lovelace(tmp_path, environment, "check", "orders")
    assert (checked.returncode, "2 written; 0 would fail" in checked.stdout) == (0, True), (
        checked.stdout + checked.stderr
    )
    worker = Worker("dataflows.orders", environment, tmp_path / "worker.log", folder=tmp_path)
    try:
        eventually(lambda: Group(brokers, "orders").committed(topic, 1) == [2])
    finally:
        worker.terminate()
        print(worker.log.read_text())
    rows = query(environment["POSTGRES_DSN"], "select id, buyer, total::text, state from orders order by id")
    assert rows == [(6, "bob", None, None), (7, "ada", "12.50", "PAID")]


@pytest.mark.parametrize("mixed", [False, True])
def test_a_topic_of_single_objects_is_read_with_the_schemas_that_are_given(
    init: Init, environment: dict[str, str], make_topic, tmp_path: Path, mixed: bool
) -> None:
    topic = make_topic(partitions=1)
    for name, schema in (("v1", ORDER_V1), ("v2", ORDER)):
        (tmp_path / f"order.{name}.avsc").write_text(json.dumps(schema))
    values = [single(ORDER_V1, {"id": 6, "buyer": "bob"}), single(ORDER, DATUM)]
    values += [json.dumps({"id": 8, "buyer": "cy"}).encode()] * mixed
    send(environment["KAFKA_BROKERS"], topic, [(b"", value) for value in values])

    refused = init(topic, "--new")
    assert (refused.returncode, "add --schema FILE.avsc" in refused.stderr) == (78, True)
    written = init(topic, "--new", "--schema", "order.v1.avsc", "--schema", "order.v2.avsc")

    assert written.returncode == 0, written.stderr
    text = module(tmp_path)
    assert lines_of(text) >= FIELDS
    assert "AvroDecoder(SingleObject(*SCHEMAS), Orders)" in text
    assert ("JsonOrAvro(JsonDecoder(Orders), avro)" in text) is mixed
    assert ("some messages are JSON (1) and some Avro (2)" in written.stderr) is mixed
    assert lovelace(tmp_path, environment, "ddl", "orders", "--apply").returncode == 0
    checked = lovelace(tmp_path, environment, "check", "orders")
    assert f"{len(values)} written; 0 would fail" in checked.stdout, checked.stdout + checked.stderr


def test_bare_data_is_read_with_the_schema_that_is_given(
    init: Init, environment: dict[str, str], make_topic, tmp_path: Path
) -> None:
    topic = make_topic(partitions=1)
    (tmp_path / "order.avsc").write_text(json.dumps(ORDER_V1))
    send(environment["KAFKA_BROKERS"], topic, [(b"", datum(ORDER_V1, {"id": n, "buyer": "b"})) for n in range(3)])

    assert "3 of 3 messages are neither JSON objects nor Avro" in init(topic, "--new").stderr
    (tmp_path / "dataflows" / "orders.py").unlink()
    assert init(topic, "--new", "--schema", "order.avsc").returncode == 0

    assert "AvroDecoder(SCHEMA, Orders)" in module(tmp_path)
    assert lovelace(tmp_path, environment, "ddl", "orders", "--apply").returncode == 0
    checked = lovelace(tmp_path, environment, "check", "orders")
    assert "3 written; 0 would fail" in checked.stdout, checked.stdout + checked.stderr


# Several kinds.


@pytest.mark.parametrize("field", ["type", "event_name"])
@pytest.mark.parametrize("nested", [False, True])
def test_kinds_of_messages_are_named_and_told_apart(
    init: Init, environment: dict[str, str], make_topic, tmp_path: Path, field: str, nested: bool
) -> None:
    def message(kind: str, **values: Any) -> bytes:
        return json.dumps({field: kind, **({"data": values} if nested else values)}).encode()

    topic = make_topic(partitions=1)
    created = [message("created", id=n, buyer="ada") for n in range(4)]
    paid = [message("paid", id=n, total=n) for n in range(3)]
    beats = [message("heartbeat", uptime=1)] * 2
    send(environment["KAFKA_BROKERS"], topic, [(b"", value) for value in created + paid + beats])
    query(environment["POSTGRES_DSN"], "create table orders (id bigint primary key, buyer text, total bigint)")

    written = init(topic)

    assert written.returncode == 0, written.stderr
    assert f"3 kinds of messages, told apart by {field!r}: created (4), paid (3), heartbeat (2)" in written.stderr
    assert "the flow reads created, paid (EVENTS) and skips all others" in written.stderr
    assert "Events(…)" in written.stderr
    text = module(tmp_path)
    assert f'"created": Items("{"data" if nested else "$"}", Orders),' in text
    checked = lovelace(tmp_path, environment, "check", "orders")
    assert "9 items: 3 superseded, 2 unknown_event, 4 written; 0 would fail" in checked.stdout, (
        checked.stdout + checked.stderr
    )


def test_kinds_without_a_table_make_one_row(
    init: Init, environment: dict[str, str], make_topic, tmp_path: Path
) -> None:
    topic = make_topic(partitions=1)
    messages = [{"t": "JOIN", "d": {"id": n, "name": "ada"}} for n in range(3)]
    messages += [{"t": "LEAVE", "d": {"id": n, "why": "x"}} for n in range(3)]
    send(environment["KAFKA_BROKERS"], topic, [(b"", json.dumps(each).encode()) for each in messages])

    assert init(topic, "--new").returncode == 0

    text = module(tmp_path)
    assert {"id: int", "name: str | None", "why: str | None", '"LEAVE": Items("d", Orders),'} <= lines_of(text)
    assert lovelace(tmp_path, environment, "ddl", "orders", "--apply").returncode == 0
    assert "6 items: 3 superseded, 3 written; 0 would fail" in lovelace(tmp_path, environment, "check", "orders").stdout


@pytest.mark.parametrize(
    "messages",
    [
        [{"id": n, "type": "gold" if n % 2 else "silver"} for n in range(6)],  # a column of the one shape that there is
        [
            {"id": n, "name": "Ada", "nick": 1} if n % 2 else {"id": n, "name": "Bob"} for n in range(6)
        ],  # a person's name
        [{"id": n, "type": f"k{n}", f"f{n}": 1} for n in range(6)],  # each its own
    ],
)
def test_what_are_no_kinds_is_not_named(init: Init, brokers: str, make_topic, tmp_path: Path, messages: Any) -> None:
    topic = make_topic(partitions=1)
    send(brokers, topic, [(b"", json.dumps(each).encode()) for each in messages])

    written = init(topic, "--new")

    assert (written.returncode, written.stderr) == (0, "")
    assert "JsonDecoder(Orders)" in module(tmp_path)
    assert not {"Ada", "gold"} & set(module(tmp_path).split('"'))
