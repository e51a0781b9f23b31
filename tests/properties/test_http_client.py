"""Whatever the environment says and whatever answers, the clients of HTTP end in an answer or a fault with an owner."""

import gzip
import inspect
import json
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from unittest.mock import patch

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lovelace_streams.avro import NoSchema, Registry
from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.formats.avro.schema import Schema
from lovelace_streams.reporting.client import ProgressClient
from lovelace_streams.rows import Row
from lovelace_streams.settings import ClickHouseSettings, ProgressSettings
from lovelace_streams.writers.clickhouse import ClickHouseWriter
from lovelace_streams.writers.clickhouse.client import connect
from tests.examples import examples

SECRET = "hunter2"  # noqa: S105 - it stands for one
PROGRESS = ProgressSettings("http://127.0.0.1:1", "token")


class Order(Row, table="orders", primary_key="id"):
    id: int


def fault_of(call: Callable[[], object]) -> DeploymentFault | DestinationFault | None:
    """What a call raises, if it is a fault with an owner: one line, without the secret; anything else passes."""
    try:
        call()
    except (DeploymentFault, DestinationFault) as error:
        fault = error
    else:
        return None
    assert SECRET not in str(fault)
    assert "\n" not in str(fault)
    return fault


# -- the environment ---------------------------------------------------------------------------------------------------

HOSTS = st.sampled_from(["127.0.0.2:1", "[::1]:1", "[::1", "h:p", "", ":", "u:hunter2@127.0.0.2:1", "a b", "é..x:1"])
PROXIES = st.builds(str.__add__, st.sampled_from(["http://", "https://", "socks5://", "ftp://", "", "://"]), HOSTS)
NO_PROXY = st.lists(
    st.sampled_from(["fd00::/8", "[::1]", "::1", "10.0.0.0/8", "127.0.0.2", "127.0.0.2:1", "*.internal", "[", "/", "é"])
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6)
).map(",".join)
FILES = st.sampled_from(["", "/nowhere.pem", "/", __file__])


@given(st.fixed_dictionaries({}, optional={"HTTP_PROXY": PROXIES, "HTTPS_PROXY": PROXIES, "ALL_PROXY": PROXIES,
                                           "NO_PROXY": NO_PROXY, "SSL_CERT_FILE": FILES, "SSL_CERT_DIR": FILES}),
       st.sampled_from(["http", "https"]))  # fmt: skip
@settings(max_examples=examples(300), deadline=None)
def test_any_environment_gives_an_answer_or_a_fault(environment: dict[str, str], scheme: str) -> None:
    with patch.dict(os.environ, environment, clear=True):
        assert fault_of(lambda: Registry(f"{scheme}://u:{SECRET}@127.0.0.2:1/x", 1.0).schema(1)) is not None
        url = f"{scheme}://127.0.0.2:1"
        assert fault_of(lambda: ProgressClient(ProgressSettings(url, "t"), timeout=1.0).get("/jobs")) is not None


@given(st.text(max_size=12) | st.sampled_from(["a..b", "[::1", "h:99999", "h:-1", "é.x-", f"u:{SECRET}@[", "h\0"]),
       st.sampled_from(["http://", "https://", "ftp://", ""]),
       st.text(max_size=5))  # fmt: skip
@settings(max_examples=examples(300), deadline=None)
def test_any_address_and_any_token_are_taken_or_named(host: str, scheme: str, token: str) -> None:
    for make, setting in (
        (lambda: Registry(f"{scheme}{host}"), "SCHEMA_REGISTRY_URL"),
        (lambda: ProgressClient(ProgressSettings(f"{scheme}{host}", token)), "PROGRESS_API_"),
        (lambda: connect(ClickHouseSettings(f"{scheme}[{host}")), "CLICKHOUSE_DSN"),
    ):
        fault = fault_of(make)
        assert fault is None or (isinstance(fault, DeploymentFault) and setting in str(fault))


# -- what the library raises -------------------------------------------------------------------------------------------

RAISED = sorted(
    {
        *(each for _, each in inspect.getmembers(httpx, inspect.isclass) if issubclass(each, Exception)),
        *(ssl.SSLError, ssl.SSLCertVerificationError, OSError, TimeoutError, socket.gaierror, UnicodeError, ValueError),
        *(RuntimeError, TypeError, AttributeError, KeyError, IndexError, ImportError, RecursionError, MemoryError),
    },
    key=lambda kind: kind.__name__,
)


class Raising(httpx.BaseTransport):
    """A connection that fails in this way."""

    def __init__(self, kind: type[Exception]) -> None:
        self.kind = kind

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        error = self.kind.__new__(self.kind)
        error.args = (f"http://u:{SECRET}@h\n",)
        raise error


@pytest.mark.parametrize("kind", RAISED, ids=lambda kind: kind.__name__)
def test_whatever_is_raised_in_a_request_is_waited_for(kind: type[Exception]) -> None:
    client = ProgressClient(PROGRESS, transport=Raising(kind))

    assert isinstance(fault_of(lambda: client.get("/jobs")), DestinationFault)


# -- what answers ------------------------------------------------------------------------------------------------------

TEXTS = st.text(max_size=4)
SCHEMA = '{"type": "record", "name": "R", "fields": [{"name": "id", "type": "long"}]}'
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS | st.just(SCHEMA) | st.just("AVRO"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["schema", "schemaType", "references", "subject", "version", "error_code", "detail", "jobs"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
BODIES = (
    JSON.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=20)
    | st.sampled_from([b"<html>", b'"\xff"', b"[" * 100_000, b"1e999", b'{"schema": "{}", "references": [{}]}'])
)
HEADERS = st.lists(
    st.sampled_from(
        [
            b"Content-Encoding: gzip",
            b"Content-Encoding: deflate",
            b"Content-Encoding: what",
            b"Transfer-Encoding: chunked",
            b"Location: http://[",
            b"Location: /jobs",
            b"Content-Type: text/plain; charset=what",
            b"Set-Cookie: a=b; c",
            b"X: \xff",
            b"no colon",
        ]
    ),
    max_size=3,
)
STATUSES = st.sampled_from(
    [b"200 OK", b"201", b"204 ", b"302 x", b"401 x", b"404 x", b"413 x", b"500 x", b"99 x", b"x"]
)


@st.composite
def answers(draw: Any) -> bytes:
    """An answer of HTTP, whole or cut off, or no HTTP at all."""
    body = draw(BODIES)
    if draw(st.booleans()):
        body = gzip.compress(body)
    lines = [
        b"HTTP/1.1 " + draw(STATUSES),
        *draw(HEADERS),
        b"Content-Length: %d" % (len(body) + draw(st.integers(0, 1))),
    ]
    whole = b"\r\n".join(lines) + b"\r\n\r\n" + body
    return draw(st.just(whole) | st.integers(0, len(whole)).map(lambda end: whole[:end]))


class Answering:
    """A server that answers each connection with these bytes, and closes it."""

    def __init__(self) -> None:
        self.answer = b""
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self.run, daemon=True).start()

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.converse, args=(connection,), daemon=True).start()

    def converse(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            connection.sendall(self.answer)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):  # else what was not read would cut the answer off
                pass


@contextmanager
def answering() -> Iterator[Answering]:
    server = Answering()
    try:
        yield server
    finally:
        server.socket.shutdown(socket.SHUT_RDWR)
        server.socket.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Answering]:
    with answering() as started:
        yield started


@given(answer=answers())
@settings(max_examples=examples(300), deadline=None)
def test_any_answer_is_believed_or_has_an_owner(server: Answering, answer: bytes) -> None:
    server.answer = answer
    clickhouse = ClickHouseWriter(ClickHouseSettings(f"{server.url}/default", write_seconds=4), Order)
    progress = ProgressClient(ProgressSettings(server.url, "token"), timeout=5.0)
    registry = Registry(server.url, 5.0)

    def schema() -> None:
        try:
            assert isinstance(registry.schema(1), Schema)
        except NoSchema:
            assert SECRET not in answer.decode("latin-1")

    def opened() -> None:
        progress.open_job({"job_id": "j"})

    for call in (schema, registry.check, lambda: progress.get("/jobs"), opened, clickhouse.open):
        fault_of(call)
    progress.close()
    clickhouse.close()
