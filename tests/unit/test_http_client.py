"""A client of HTTP: which proxy and which certificates it takes, and what it says of those that it can't use."""

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lovelace_streams.avro import Registry
from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.reporting.client import ProgressClient, open_job
from lovelace_streams.settings import ClickHouseSettings, ProgressSettings
from lovelace_streams.writers.clickhouse.client import connect

CERTIFICATES = Path(__file__).parent / "certificates"
AUTHORITY = CERTIFICATES / "authority.pem"
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (*VARIABLES, *map(str.lower, VARIABLES)):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


class Server(ThreadingHTTPServer):
    """Answers every request with one body; as a proxy, too."""

    daemon_threads = True

    def __init__(self, *, tls: bool = False) -> None:
        self.body = b"[]"
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Answers)
        if tls:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(CERTIFICATES / "server.pem")
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that does not trust us hangs up


class Answers(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("content-length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as started:
        yield started
        started.shutdown()


@pytest.fixture
def tls() -> Iterator[Server]:
    with Server(tls=True) as started:
        yield started
        started.shutdown()


@pytest.mark.parametrize("entry", ["fd00::/8", "[::1]", "[fd00::1]:80", "[", "a/b/c", "é"])
def test_an_entry_of_no_proxy_that_is_for_others_changes_nothing(environment, server: Server, entry: str) -> None:
    environment.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.port}")
    environment.setenv("NO_PROXY", entry)

    assert Registry("http://registry.invalid:8081").check().endswith("answers")
    assert server.asked == ["http://registry.invalid:8081/subjects"]  # by the proxy


@pytest.mark.parametrize("entry", ["127.0.0.2", "127.0.0.0/24", "127.0.0.2:{port}", "x, *", "http://127.0.0.2"])
def test_an_entry_of_no_proxy_that_names_the_host_is_obeyed(environment, server: Server, entry: str) -> None:
    environment.setenv("ALL_PROXY", "socks5://u:hunter2@127.0.0.1:1")
    with pytest.raises(DeploymentFault, match=r"httpx\[socks\]"):
        Registry(f"http://127.0.0.2:{server.port}")

    environment.setenv("NO_PROXY", entry.format(port=server.port))
    with pytest.raises(DestinationFault, match="refused"):  # it listens on 127.0.0.1 alone
        Registry(f"http://127.0.0.2:{server.port}").check()


@pytest.mark.parametrize("value", ["http://[::1", "h:p", "http://", "ftp://u:hunter2@h:1", "http://u:hunter2@h:port"])
def test_a_proxy_that_can_not_be_is_named_and_not_shown(environment, value: str) -> None:
    environment.setenv("HTTPS_PROXY", value)
    with pytest.raises(DeploymentFault, match="HTTPS_PROXY is no address of a proxy") as caught:
        Registry("https://registry.invalid")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "path"),
    [
        ("SSL_CERT_FILE", "/nowhere.pem"),
        ("SSL_CERT_FILE", __file__),
        ("SSL_CERT_FILE", "/"),
        ("SSL_CERT_DIR", "/nowhere"),
    ],
)
def test_certificates_that_can_not_be_read_are_named(environment, variable: str, path: str) -> None:
    environment.setenv(variable, path)

    for make in (
        lambda: Registry("https://registry.invalid"),
        lambda: ProgressClient(ProgressSettings("https://progress.invalid", "token")),
    ):
        with pytest.raises(DeploymentFault, match=variable):
            make()
    Registry("http://registry.invalid")  # which shows no certificate


def test_an_authority_of_ones_own_is_trusted_where_it_is_named(environment, tls: Server) -> None:
    url = f"https://127.0.0.1:{tls.port}"
    with pytest.raises(DestinationFault, match="not trusted .SSL_CERT_FILE"):
        ProgressClient(ProgressSettings(url, "token")).get("/jobs")

    environment.setenv("SSL_CERT_FILE", str(AUTHORITY))
    assert ProgressClient(ProgressSettings(url, "token")).get("/jobs") == []
    assert Registry(url).check().endswith("answers")


@pytest.mark.parametrize("token", ["hunter2\n", "hunter\r\n2", " hunter2", "hünter2", "hunter2\0"])
def test_a_token_that_no_header_can_carry_is_named_and_not_shown(token: str) -> None:
    with pytest.raises(DeploymentFault, match="PROGRESS_API_TOKEN") as caught:
        ProgressClient(ProgressSettings("http://127.0.0.1:1", token))
    assert token not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://a..b", "http://[::1", "http://h:port", "ftp://h", "http://", "http://u:hunter2@h"]
)
def test_an_address_that_can_not_be_is_named_and_not_shown(url: str) -> None:
    with pytest.raises(DeploymentFault, match="PROGRESS_API_URL") as caught:
        open_job(ProgressSettings(url, "token"), {"job_id": "a"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "body", [b"<html>", b"[1]", b'{"job_id": "a"}', b'{"job_id": "a", "attempt": "x"}', b"[" * 5000]
)
def test_what_opens_a_job_is_believed_only_if_it_is_the_services(server: Server, body: bytes) -> None:
    server.body = body
    with pytest.raises(DeploymentFault, match="is not the progress service"):
        open_job(ProgressSettings(f"http://127.0.0.1:{server.port}", "token"), {"job_id": "a"})


@pytest.mark.parametrize(
    ("dsn", "said"),
    [
        ("http://u:hunter2@[::1/d", "CLICKHOUSE_DSN is neither"),
        ("http://u:hunter2@h:port/d", "CLICKHOUSE_DSN is neither"),
        ("http://u:hunter2@a..b/d", "CLICKHOUSE_DSN is neither"),
        ("https://u:hunter2@127.0.0.1:1/d?ca_cert=/nowhere.pem", "ca_cert of CLICKHOUSE_DSN"),
        (f"https://u:hunter2@127.0.0.1:1/d?client_cert={__file__}", "client_cert of CLICKHOUSE_DSN"),
    ],
)
def test_a_dsn_of_clickhouse_that_can_not_be_is_named_and_not_shown(dsn: str, said: str) -> None:
    with pytest.raises(DeploymentFault, match=said) as caught:
        connect(ClickHouseSettings(dsn))
    assert "hunter2" not in str(caught.value)
