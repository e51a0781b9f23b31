"""A connection to ClickHouse, a server over HTTP or chDB, the engine in the process; another thread can abort it.

    http://user:password@host:8123/database?insert_quorum=2        a server; https as well
    chdb:///var/lib/lovelace/clickhouse                            the engine in this process, its data in that folder

The parameters after the question mark are ClickHouse's settings, except `verify`, `ca_cert`, `client_cert`,
`client_cert_key` and `compress`, which are the client's, and chDB's `database`.
"""

import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, ProtocolError

from lovelace_streams.errors import DeploymentFault
from lovelace_streams.http_client import Address, check_certificates
from lovelace_streams.settings import ClickHouseSettings

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

CONNECT_SECONDS = 3
CLIENT_OPTIONS = frozenset({"verify", "ca_cert", "client_cert", "client_cert_key", "compress"})
FORBIDDEN_SETTINGS = frozenset({"insert_deduplication_token", "async_insert", "wait_for_async_insert"})
"""A token that is used again drops other rows silently; an insert that is not waited for is not durable."""
HTTP_PORT, HTTPS_PORT = 8123, 8443
INVALID_DSN = "CLICKHOUSE_DSN is neither http[s]://user:password@host:port/database nor chdb:///path"


class Connection:
    """ClickHouse's client, the status of its last HTTP answer, and `abort` for another thread."""

    def __init__(self, client: "Client", pool: "AbortablePool | None" = None) -> None:
        self.client = client
        self.pool = pool

    @property
    def status(self) -> int:
        """The last HTTP status; 0 without an answer."""
        return self.pool.status if self.pool is not None else 0

    def insert(self, table: str, columns: Sequence[str], native: bytes, settings: dict[str, Any]) -> None:
        """Insert one block into a table, given by its quoted name; raises what the client raises."""
        if self.pool is None:
            self.client.raw_insert(table, columns, native, settings, "Native")
            return
        from clickhouse_connect.driver.binding import quote_identifier
        from clickhouse_connect.driver.compression import get_compressor

        # the statement goes in the body, as a proxy may reject a long URL: so the client is given no table
        statement = f"INSERT INTO {table} ({', '.join(map(quote_identifier, columns))}) FORMAT Native\n".encode()
        compressor: Any = get_compressor(self.client.write_compression)
        body = compressor.compress_block(statement + native) + (compressor.flush() or b"")
        self.client.raw_insert("", None, bytes(body), settings, "Native", self.client.write_compression)

    def abort(self) -> None:
        """Shut the sockets under a call; a call of the engine in the process can't be aborted and is left alone."""
        if self.pool is not None:
            self.pool.abort()

    def close(self) -> None:
        """Close the client and its sockets; raises nothing."""
        with suppress(Exception):
            self.client.close()
        if self.pool is not None:
            self.pool.clear()


class AbortablePool(PoolManager):
    """A pool that knows its open sockets and its last answer's status. One thread uses it, another may abort it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.status = 0
        self._aborted = False
        self._open: list[HTTPConnection] = []
        self.pool_classes_by_scheme = {
            "http": self._tracked(HTTPConnectionPool),
            "https": self._tracked(HTTPSConnectionPool),
        }

    def request(self, *args: Any, **kwargs: Any) -> BaseHTTPResponse:
        """Make a request and note its status; raises nothing but `urllib3.exceptions.HTTPError`.

        Raises `ProtocolError` after an abort: the client would try again; and for what urllib3 lets pass (of a
        redirection that leads nowhere, a `ValueError`), since the client knows urllib3's own errors only.
        """
        if self._aborted:
            raise ProtocolError("aborted")
        self.status = 0
        try:
            response = super().request(*args, **kwargs)
        except HTTPError:
            raise
        except Exception as error:
            raise ProtocolError(type(error).__name__) from error
        self.status = response.status
        return response

    def abort(self) -> None:
        """Shut every socket, for good: a thread that waits for one of them gets an error at once."""
        self._aborted = True
        for connection in list(self._open):
            if connection.sock is not None:
                with suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)

    def _tracked(self, pool_class: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
        """Return the class with connections that are in `_open` while they are open."""
        opened = self._open
        base: type[Any] = HTTPSConnection if pool_class is HTTPSConnectionPool else HTTPConnection

        class TrackedConnection(base):  # type: ignore[misc]
            def connect(self) -> None:
                opened.append(self)
                super().connect()

            def close(self) -> None:
                super().close()
                with suppress(ValueError):
                    opened.remove(self)

        return type("TrackedPool", (pool_class,), {"ConnectionCls": TrackedConnection})


def connect(settings: ClickHouseSettings) -> Connection:
    """Open a connection; raises `DeploymentFault` for an invalid DSN, and what the driver raises."""
    if not settings.dsn:
        raise DeploymentFault("no ClickHouse: set CLICKHOUSE_DSN (http://user:password@host:8123/database)")
    try:
        parts = urlsplit(settings.dsn)
    except ValueError:
        raise DeploymentFault(INVALID_DSN) from None
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    forbidden = sorted(FORBIDDEN_SETTINGS & set(options))
    if forbidden:
        raise DeploymentFault(f"CLICKHOUSE_DSN may not set {', '.join(forbidden)}: rows would be lost without a word")
    if parts.scheme == "chdb":
        return _connect_to_engine(parts.netloc + parts.path, options)
    try:
        address = Address.of(settings.dsn, "CLICKHOUSE_DSN")
    except DeploymentFault:
        raise DeploymentFault(INVALID_DSN) from None
    return _connect_to_server(settings, address, options)


def _connect_to_engine(path: str, options: dict[str, str]) -> Connection:
    import clickhouse_connect

    database = options.pop("database", None)
    try:
        client = clickhouse_connect.get_client(dsn=f"chdb://{path}", database=database, settings=options)
    except ImportError:
        raise DeploymentFault(
            "CLICKHOUSE_DSN names chdb, which is not installed: pip install 'lovelace_streams[clickhouse-local]'"
        ) from None
    return Connection(client)


def _connect_to_server(settings: ClickHouseSettings, address: Address, options: dict[str, str]) -> Connection:
    import clickhouse_connect
    from clickhouse_connect.driver.httputil import get_pool_manager_options

    client_options: dict[str, Any] = {name: options.pop(name) for name in CLIENT_OPTIONS & set(options)}
    compress = _is_true(client_options.pop("compress", "true"))
    verify = _is_true(client_options.pop("verify", "true"))
    check_certificates(
        "CLICKHOUSE_DSN",
        **{
            name: client_options[name]
            for name in ("ca_cert", "client_cert", "client_cert_key")
            if name in client_options
        },
    )
    user, password = address.credentials or ("", "")
    pool = AbortablePool(**get_pool_manager_options(verify=verify, maxsize=1, retries=0, **client_options))
    client = clickhouse_connect.get_client(
        interface=address.scheme,
        host=address.name,
        port=address.port or (HTTPS_PORT if address.scheme == "https" else HTTP_PORT),
        username=user or None,
        password=password,
        database=unquote(address.path.strip("/")) or None,
        settings=options,
        compress=compress,
        verify=verify,
        pool_mgr=pool,
        connect_timeout=CONNECT_SECONDS,
        send_receive_timeout=int(settings.write_seconds) + 1,
        query_retries=0,
        autogenerate_session_id=False,
        client_name="lovelace_streams",
        show_clickhouse_errors="scrub",
    )
    return Connection(client, pool)


def _is_true(text: str) -> bool:
    return text.lower() not in ("0", "false", "no", "off")
