"""A schema registry that goes away, comes back and refuses, while a worker reads what it has to ask for."""

import io
import json
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fastavro
import pytest

from lovelace_streams.avro import NoSchema, Registry
from lovelace_streams.local.registry import Registry as RegistryServer
from tests.faults.harness import Fleet, Group, ends, eventually, query, read_all, send
from tests.faults.orders import FIRST, SECOND

TABLE = "create table orders (id bigint primary key, note text, state text not null)"


def datum(schema: Any, value: Any) -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), value)
    return stream.getvalue()


def framed(schema_id: int, data: bytes) -> bytes:
    return struct.pack(">BI", 0, schema_id) + data


def first(number: int) -> bytes:
    return datum(FIRST, {"id": number, "memo": f"note {number}"})


def second(number: int) -> bytes:
    return datum(SECOND, {"id": number, "note": None, "state": "PAID"})


@pytest.fixture
def registered(registry_server: RegistryServer) -> Callable[[str, Any], int]:
    """Puts a schema under a subject, and gives its id."""
    registry = Registry(registry_server.url)

    def register(subject: str, schema: Any) -> int:
        status, body = registry.ask("POST", f"/subjects/{subject}/versions", {"schema": json.dumps(schema)})
        assert status == 200, body
        return int(body["id"])

    return register


@pytest.fixture
def fleet(
    brokers: str, database: str, registry_server: RegistryServer, make_topic: Callable[..., str], tmp_path: Path
) -> Iterator[Fleet]:
    topic = make_topic("orders", partitions=1)
    query(database, TABLE)
    environment = {
        "KAFKA_BROKERS": brokers,
        "POSTGRES_DSN": database,
        "SCHEMA_REGISTRY_URL": registry_server.url,
        "TOPIC": topic,
        "CONSUMER_GROUP_ID": topic,
        "POLL_SIZE": "20",
        "DRAIN_SECONDS": "1",
    }
    with Fleet("tests.faults.orders", environment, tmp_path) as started:
        yield started


@pytest.mark.slow
def test_a_registry_that_is_away_is_waited_for(
    fleet: Fleet, registry_server: RegistryServer, registered: Callable[[str, Any], int]
) -> None:
    brokers, topic, database = (fleet.environment[name] for name in ("KAFKA_BROKERS", "TOPIC", "POSTGRES_DSN"))
    old, new = registered(f"{topic}-value", FIRST), registered(f"{topic}-value", SECOND)
    other = registered("other-value", {"type": "record", "name": "shop.Customer", "fields": SECOND["fields"][:1]})
    dead = f"{topic}.dlq"

    def written() -> int:
        return query(database, "select count(*) from orders")[0][0]

    send(brokers, topic, [(b"", framed(old, first(n))) for n in range(50)])
    worker = fleet.start(LOG_LEVEL="DEBUG")  # which shows every try
    eventually(lambda: written() == 50)

    registry_server.stop()
    send(brokers, topic, [(b"", framed(old, first(n)) if n % 2 else framed(new, second(n))) for n in range(50, 100)])
    eventually(lambda: len(worker.events("waiting for the schema registry")) >= 3)
    assert worker.terminate(60)[0] == 0
    successor = fleet.start(LOG_LEVEL="DEBUG")
    eventually(lambda: len(successor.events("waiting for the schema registry")) >= 3)
    assert read_all(brokers, dead) == []

    registry_server.start()
    eventually(lambda: written() == 100)
    assert query(database, "select note, state, count(*) from orders where id >= 48 group by 1, 2 order by 3 desc")[
        0
    ] == (None, "PAID", 25)
    assert query(database, "select note, state from orders where id = 51") == [("note 51", "OPEN")]
    eventually(lambda: Group(brokers, topic).committed(topic, 1) == ends(brokers, topic, 1))
    assert read_all(brokers, dead) == []

    bad = {
        "not_avro": [
            b"",
            b"\1" + framed(old, first(1))[1:],
            framed(new, second(1)[:-1]),
            framed(new, second(1) + b"x"),
        ],
        "unknown_schema": [framed(2**31, first(1)), framed(other, b"\2")],
    }
    send(brokers, topic, [(b"", value) for values in bad.values() for value in values])
    send(brokers, topic, [(b"", framed(new, second(1)))])
    eventually(lambda: Group(brokers, topic).committed(topic, 1) == ends(brokers, topic, 1))
    reasons = [dict(message.headers())["lovelace-reason"].decode() for message in read_all(brokers, dead)]
    assert sorted(reasons) == sorted(reason for reason, values in bad.items() for _ in values)
    assert written() == 100


def test_schemas_refer_to_others(registry_server: RegistryServer) -> None:
    registry = Registry(registry_server.url)
    customer = {"type": "record", "name": "shop.Customer", "fields": [{"name": "id", "type": "long"}]}
    order = {"type": "record", "name": "shop.Order", "fields": [{"name": "buyer", "type": "shop.Customer"}]}
    references = [{"name": "shop.Customer", "subject": "customer/1", "version": 1}]
    registry.ask("POST", "/subjects/customer%2F1/versions", {"schema": json.dumps(customer)})
    body = {"schema": json.dumps(order), "references": references}
    status, answer = registry.ask("POST", "/subjects/referring-value/versions", body)
    assert status == 200

    root = registry.schema(answer["id"]).root
    assert [field.type.name for field in root.fields] == ["shop.Customer"]
    with pytest.raises(NoSchema, match="no schema 4242"):
        registry.schema(4242)


class _Refuses(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def test_a_registry_that_refuses_us_stops_the_worker(fleet: Fleet) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Refuses)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        url = f"http://worker:hunter2@127.0.0.1:{server.server_address[1]}"
        send(fleet.environment["KAFKA_BROKERS"], fleet.environment["TOPIC"], [(b"", framed(1, first(1)))])
        worker = fleet.start(SCHEMA_REGISTRY_URL=url)
        assert worker.process.wait(60) == 78
    finally:
        server.shutdown()
        server.server_close()
    log = worker.log.read_text()
    assert "refuses the credentials of SCHEMA_REGISTRY_URL" in log.splitlines()[-1]
    assert "hunter2" not in log


class _GivesTheFirst(BaseHTTPRequestHandler):
    """A registry that has the first schema as id 1, and fails for every other id."""

    def do_GET(self) -> None:
        number = int(self.path.rpartition("/")[2])
        status, body = (200, {"schema": json.dumps(FIRST)}) if number == 1 else (500, {"error_code": 50001})
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        pass


def test_a_schema_that_the_registry_never_gives_stops_its_partition_for_the_grace_alone(fleet: Fleet) -> None:
    brokers, topic, database = (fleet.environment[name] for name in ("KAFKA_BROKERS", "TOPIC", "POSTGRES_DSN"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _GivesTheFirst)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        send(brokers, topic, [(b"", framed(number, first(number))) for number in (1, 9, 1)])
        url = f"http://127.0.0.1:{server.server_address[1]}"
        worker = fleet.start(SCHEMA_REGISTRY_URL=url, UNKNOWN_SCHEMA_GRACE="3", LOG_LEVEL="DEBUG")
        eventually(lambda: Group(brokers, topic).committed(topic, 1) == ends(brokers, topic, 1))
    finally:
        server.shutdown()
        server.server_close()
    letters = read_all(brokers, f"{topic}.dlq")
    assert [dict(letter.headers())["lovelace-reason"] for letter in letters] == [b"unknown_schema"]
    assert query(database, "select id from orders") == [(1,)]
    waits = worker.events("waiting for the schema registry")
    assert waits
    assert all("schema 9: " in wait["fault"] and wait["record"] == f"{topic}-0:1" for wait in waits)
