"""A schema registry: what it is asked, and whose fault an answer is."""

import json
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from lovelace_streams import Settings
from lovelace_streams.avro import AvroDecoder, Confluent
from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.formats.events import Items
from lovelace_streams.formats.waiting import WaitingDecoder
from lovelace_streams.records import Envelope, Record
from tests.unit.formats.avro.messages import (
    ANN,
    SCHEMA,
    Member,
    encoded,
    ends,
)


class Registry:
    """A small server that answers as a schema registry does, and counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.status = 200
        self.more: dict[str, Any] = {}
        """Path → what else it answers: JSON, or bytes as they are; with its status, or without."""
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.asked.append(self.path)
                answers = {
                    "/schemas/ids/1": {"schema": json.dumps(SCHEMA)},
                    "/schemas/ids/2": {"schema": "syntax = 3", "schemaType": "PROTOBUF"},
                    "/schemas/ids/3": {"schema": json.dumps({"type": "array", "items": "Elsewhere"})},
                }
                answers |= registry.more
                status = registry.status if self.path in answers or registry.status != 200 else 404
                unknown = {"error_code": 40403} if self.path.startswith("/schemas/") else {}
                answer = answers.get(self.path, unknown)
                if isinstance(answer, tuple):
                    status, answer = max(status, answer[0]), answer[1]
                body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
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


@pytest.mark.parametrize(
    "answer",
    [
        {"schema": json.dumps(SCHEMA), "references": [{"subject": "other"}]},
        {"schema": json.dumps(SCHEMA), "references": [{"subject": "other", "version": "latest"}]},
        {"schema": json.dumps(SCHEMA), "references": [{"version": 1}]},
        {"schema": json.dumps(SCHEMA), "references": "other"},
        {"schema": json.dumps(SCHEMA), "references": [7]},
        {"schema": SCHEMA},
        [1],
        b"<html>a page</html>",
        b'{"schema": "cut o',
        b"[" * 5000,
    ],
)
def test_an_answer_of_another_shape_is_waited_for(registry: Registry, answer: Any) -> None:
    decoder = decoder_of(registry)
    registry.more["/schemas/ids/9"] = answer
    with pytest.raises(DestinationFault, match="answers something else"):
        ends(decoder, framed(9, encoded()))

    registry.more["/schemas/ids/9"] = {"schema": json.dumps(SCHEMA), "references": None}
    assert ends(decoder, framed(9, encoded())) == [ANN]


class Waiting:
    """A worker that decodes one message for as long as it takes, on a clock of the test's own."""

    def __init__(self, registry: Registry, monkeypatch: pytest.MonkeyPatch, grace: float = 3600.0) -> None:
        self.now = 1000.0
        self.ending = False
        self.told: list[str] = []
        self.each_wait: Callable[[float], None] = lambda _waited: None
        self.waited = 0.0
        self.decoder = AvroDecoder(registry.url, Items("member", Member), timeout=60)
        monkeypatch.setattr("lovelace_streams.formats.avro.decoder.time.monotonic", lambda: self.now)
        self.waiting = WaitingDecoder(self.decoder, self, self.tell, lambda: self.now, grace)  # type: ignore[arg-type]

    def tell(self, _record: Record, fault: DestinationFault | None, _failures: int) -> None:
        self.told.append(str(fault or "goes on"))

    def keep_alive(self, seconds: float, _records: Any = ()) -> bool:
        self.now += max(seconds, 1.0)
        self.waited += max(seconds, 1.0)
        self.each_wait(self.waited)
        self.ending = self.waited > 9_000
        return not self.ending

    def note(self, fault: DeploymentFault) -> None:
        raise fault

    def ends(self, schema_id: int) -> list[str]:
        """How a message ends: as items, or by the reasons of its letter; nothing if the worker ends before."""
        self.waited, self.told = 0.0, []
        record = Record("topic", 0, 0, 0, 0, None, framed(schema_id, encoded()), [], 0)
        ports = self.waiting.sort([Envelope(record, 0, record.value or b"")])
        return ["ok" for _ in ports.oks] + [str(letter.reason) for letter in ports.errs]


@pytest.mark.parametrize(
    "answer", [(500, {}), (503, {"error_code": 50001}), (200, b"<html>"), (200, {"schema": 1}), (302, {})]
)
@pytest.mark.parametrize("known", [True, False], ids=["others_known", "none_known"])
def test_an_id_that_is_never_answered_is_unknown_after_the_grace(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, answer: Any, known: bool
) -> None:
    worker = Waiting(registry, monkeypatch)
    registry.more["/schemas/ids/9"] = answer
    if known:
        assert worker.ends(1) == ["ok"]

    assert worker.ends(9) == ["unknown_schema"]
    assert 3600 <= worker.waited < 3700
    assert all("schema 9: " in line for line in worker.told[:-1])
    assert worker.told[-1] == "goes on"
    assert worker.ends(1) == ["ok"]

    assert (worker.ends(9), worker.waited) == (["unknown_schema"], 0)  # not asked for again for a minute
    worker.now += 61
    assert (worker.ends(9), worker.waited) == (["unknown_schema"], 0)  # asked once: an hour is enough
    worker.now += 61
    registry.more["/schemas/ids/9"] = {"schema": json.dumps(SCHEMA)}
    assert worker.ends(9) == ["ok"]


def test_an_outage_makes_no_schema_unknown(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Waiting(registry, monkeypatch)
    assert worker.ends(1) == ["ok"]
    registry.status = 500  # for every id

    assert worker.ends(2) == []
    assert worker.waited > 9_000


def test_the_grace_begins_anew_after_an_outage(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Waiting(registry, monkeypatch)
    registry.more["/schemas/ids/9"] = (500, {})

    def outage(waited: float) -> None:
        registry.status = 500 if 3000 < waited < 3100 else 200

    worker.each_wait = outage
    assert worker.ends(9) == ["unknown_schema"]
    assert worker.waited > 3100 + 3600


def test_an_id_that_is_answered_within_the_grace_is_read(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Waiting(registry, monkeypatch)
    registry.more["/schemas/ids/9"] = (500, {})
    worker.each_wait = lambda waited: registry.more.update(
        {"/schemas/ids/9": {"schema": json.dumps(SCHEMA)}} if waited > 3000 else {}
    )

    assert worker.ends(9) == ["ok"]


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
