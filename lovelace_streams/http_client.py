"""A client of HTTP for one address: what it raises has an owner, whatever the library under it raises (law 5).

    at construction   the deployment's: an address, a proxy, a certificate or a credential that can't be used. One line
                      names the setting
    in a request      the destination's: whatever happens instead of an answer is waited for

So both lists are closed by where an exception comes up, not by its class: httpx lets pass on what its parts raise
(`OSError` of ssl, `UnicodeError` of a host's name, `ImportError` of a proxy's protocol). What an answer means is the
caller's to say; `Response.decode` believes a body only if it is whole and of the type that is asked for.

The environment's proxies (`HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`) and certificates (`SSL_CERT_FILE`,
`SSL_CERT_DIR`) are read here: the client has one address, so one proxy. httpx raises for a network or an IPv6 address
in brackets in `NO_PROXY`, which other programs take.
"""

import ipaddress
import os
import re
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies

import httpx
import msgspec

from lovelace_streams.errors import DeploymentFault, DestinationFault

T = TypeVar("T")
"""The type that an answer's body has to be of."""

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
PORTS = {"http": 80, "https": 443}
_HEADER = re.compile(r"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?")
"""What the value of a header may be: ASCII that can be seen, no space at an end, no line's end."""
_WITH_PORT = re.compile(r"(\[[^]]*\]|[^:]*):(\d+)")


class Address(NamedTuple):
    """An address in its parts; `url` and `host` hold no credential."""

    scheme: str
    host: str
    """As it stands in an address: an IPv6 address is in brackets. With the port, if there is one."""
    name: str
    """The bare name, or the bare IP address."""
    port: int | None
    path: str
    credentials: tuple[str, str] | None
    """A user and a password."""

    @property
    def url(self) -> str:
        """The address without its credentials."""
        return f"{self.scheme}://{self.host}{self.path}"

    @classmethod
    def of(cls, url: str, setting: str) -> "Address":
        """Read an address; raises `DeploymentFault` that names the setting, and shows nothing of the address.

        >>> Address.of("https://u:p%40ss@host:8443/api/", "SCHEMA_REGISTRY_URL")
        Address(scheme='https', host='host:8443', name='host', port=8443, path='/api', credentials=('u', 'p@ss'))
        """
        try:
            parts = urlsplit(url)
            name = parts.hostname or ""
            name.encode("idna")  # what the resolver does; it raises for a label that is empty or too long
            port = parts.port
            host = (f"[{name}]" if ":" in name else name) + (f":{port}" if port is not None else "")
            httpx.URL(f"{parts.scheme}://{host}{parts.path}")
        except (ValueError, httpx.InvalidURL):
            name, parts = "", urlsplit("")
        if not name or parts.scheme not in PORTS:
            raise DeploymentFault(f"{setting} is invalid: it must be an address, http://host:port/path or https://…")
        credentials = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
        return cls(parts.scheme, host, name, port, parts.path.rstrip("/"), credentials)


class Response(NamedTuple):
    """An answer: its status, and its body as it was sent, without any compression."""

    status: int
    body: bytes

    @property
    def is_success(self) -> bool:
        """Whether the server accepted the request."""
        return 200 <= self.status < 300  # noqa: PLR2004 - HTTP's successes

    def decode(self, kind: type[T]) -> T:
        """Return the body as JSON of this type; raises `ValueError` for anything else.

        >>> Response(200, b'{"id": 7}').decode(dict[str, int])
        {'id': 7}
        """
        try:
            return msgspec.json.decode(self.body, type=kind, strict=False)
        except RecursionError:
            raise ValueError("nested too deeply") from None

    def json(self) -> Any:
        """Parse the body. Raises `ValueError`."""
        return self.decode(object)


class HttpClient:
    """Sends requests to one address; threads may share it.

    `service` says for messages what answers there, `setting` which setting has the address. `headers` go with every
    request. `proxies`: whether the environment's are used; never for this machine. `keep_open`: whether connections are
    kept for the next request. Opens nothing before the first request. Raises `DeploymentFault`.
    """

    def __init__(
        self,
        address: Address,
        *,
        service: str,
        setting: str,
        timeout: float,
        headers: Mapping[str, str] | None = None,
        proxies: bool = False,
        keep_open: bool = True,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.address = address
        self.service = service
        self.setting = setting
        proxy = _proxy_for(address) if proxies and address.name not in LOOPBACK else None
        verify = _certificates() if address.scheme == "https" else False
        try:
            self._client = httpx.Client(
                headers=headers,
                auth=address.credentials,
                timeout=timeout,
                proxy=proxy,
                verify=verify,
                trust_env=False,
                limits=httpx.Limits() if keep_open else httpx.Limits(max_keepalive_connections=0),
                transport=transport,
            )
        except ImportError:
            raise DeploymentFault(
                f"the environment names a SOCKS proxy for the {service}, which needs a package: pip install"
                " 'httpx[socks]', or name another proxy in HTTPS_PROXY or ALL_PROXY, or exempt the host in NO_PROXY"
            ) from None
        except Exception as error:  # noqa: BLE001 - see the module: whatever it is, no restart mends it
            raise DeploymentFault(
                f"no client for the {service} can be made ({type(error).__name__}): compare {setting} and the"
                " environment's proxies and certificates"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. A request after that raises `DestinationFault`."""
        with suppress(Exception):
            self._client.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a request, and return any answer. Raises `DestinationFault` if there is none, whatever happened instead.

        A redirection is an answer: it is not followed, as it may lead elsewhere with the credentials.
        """
        try:
            answer = self._client.request(
                method, f"{self.address.url}{path}", content=body, params=query, headers=headers
            )
        except Exception as error:  # noqa: BLE001 - see the module: no answer, whatever its class
            code = "timeout" if isinstance(error, httpx.TimeoutException) else type(error).__name__
            raise DestinationFault(code, f"the {self.service} does not answer: {cause_of(error)}") from None
        return Response(answer.status_code, answer.content)


def cause_of(error: BaseException) -> str:
    """Return what lies at the bottom of an error of a request, in words that hold no credential.

    >>> cause_of(ConnectionRefusedError("http://u:secret@h"))
    'the connection is refused'
    """
    chain = [error]
    while (below := chain[-1].__cause__ or chain[-1].__context__) is not None and below not in chain:
        chain.append(below)
    for kind, words in _CAUSES.items():
        if any(isinstance(each, kind) for each in chain):
            return words
    return type(error).__name__


_CAUSES: dict[type[BaseException], str] = {
    httpx.ProxyError: "the environment's proxy refuses to connect to it",
    httpx.ConnectTimeout: "no connection in time",
    httpx.TimeoutException: "no answer in time",
    ssl.SSLCertVerificationError: "its certificate is not trusted (SSL_CERT_FILE names the authorities that are)",
    ssl.SSLError: "no TLS with it",
    ConnectionRefusedError: "the connection is refused",
    socket.gaierror: "its name is not known",
    OSError: "the connection is cut, or none can be made",
    httpx.ProtocolError: "what it sends is no HTTP, or is cut off",
    httpx.DecodingError: "its answer can't be unpacked",
}
"""What lies at the bottom of an error → the words for it. The first that fits counts."""


def check_header(value: str, setting: str) -> str:
    """Return a credential that a header can carry; raises `DeploymentFault` for another one, without showing it.

    The end of a line is the usual case: a secret that was read from a file.
    """
    if value and not _HEADER.fullmatch(value):
        raise DeploymentFault(
            f"{setting} holds characters that a header of HTTP can't carry: look for a space or a line's end in it"
        )
    return value


def check_certificates(setting: str, ca_cert: str = "", client_cert: str = "", client_cert_key: str = "") -> None:
    """Check that the files of certificates that another client will load can be; raises `DeploymentFault`.

    The client that is given them says of a bad file what it says of a server that is away.
    """
    part = "ca_cert"
    try:
        if ca_cert and ca_cert != "certifi":  # which the client knows itself
            ssl.create_default_context(cafile=ca_cert)
        if client_cert:
            part = "client_cert"
            ssl.create_default_context().load_cert_chain(client_cert, client_cert_key or None, password="")
    except (OSError, ValueError) as error:
        raise DeploymentFault(
            f"{part} of {setting} names no certificates that can be read ({type(error).__name__}): it must be the path"
            " of a PEM file"
        ) from None


def _certificates() -> ssl.SSLContext:
    """Trust the authorities of `SSL_CERT_FILE` or `SSL_CERT_DIR`, else those that the web trusts."""
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if not file and not folder:
        return httpx.create_ssl_context(trust_env=False)
    try:
        if file:
            return ssl.create_default_context(cafile=file)
        next(Path(str(folder)).iterdir())  # ssl takes a folder that is not there
        return ssl.create_default_context(capath=folder)
    except (OSError, ValueError, StopIteration) as error:
        setting, what = ("SSL_CERT_FILE", "a PEM file") if file else ("SSL_CERT_DIR", "a folder that OpenSSL hashed")
        raise DeploymentFault(
            f"{setting} names no certificates that can be read ({type(error).__name__}): it must be the path of"
            f" {what}, or not be set"
        ) from None


def _proxy_for(address: Address) -> httpx.Proxy | None:
    """Return the environment's proxy for an address; raises `DeploymentFault` for one that is no address."""
    proxies = getproxies()
    kind = next((kind for kind in (address.scheme, "all") if proxies.get(kind)), None)
    if kind is None or any(_exempts(entry, address) for entry in proxies.get("no", "").split(",")):
        return None
    url = proxies[kind] if "://" in proxies[kind] else f"http://{proxies[kind]}"
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0  # reading the port raises for one that is no number
        proxy = httpx.Proxy(url)
    except (ValueError, httpx.InvalidURL):
        usable = False
    if not usable:
        raise DeploymentFault(
            f"{kind.upper()}_PROXY is no address of a proxy: it must be http://host:port, or NO_PROXY must name"
            f" {address.name}"
        )
    return httpx.Proxy(url, ssl_context=_certificates()) if proxy.url.scheme == "https" else proxy


def _exempts(entry: str, address: Address) -> bool:
    """Whether an entry of `NO_PROXY` is for this address: `*`, a name and those below it, an IP address, a network.

    >>> address = Address.of("http://[fd00::7]:8081", "SCHEMA_REGISTRY_URL")
    >>> [_exempts(entry, address) for entry in ("fd00::/8", "[fd00::7]", "[fd00::7]:80", "::7", "what?")]
    [True, True, False, False, False]
    >>> address = Address.of("http://registry.internal", "SCHEMA_REGISTRY_URL")
    >>> [_exempts(entry, address) for entry in ("internal", ".internal", "registry.internal:80", "ry.internal", "")]
    [True, True, True, False, False]
    """
    entry = entry.strip().lower().rpartition("://")[2]
    if entry == "*":
        return True
    if with_port := _WITH_PORT.fullmatch(entry):
        entry = with_port[1]
        if int(with_port[2]) != (address.port or PORTS[address.scheme]):
            return False
    with suppress(ValueError):
        return ipaddress.ip_address(address.name) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    domain = entry.removeprefix("*")
    below = domain if domain.startswith(".") else f".{domain}"
    return bool(domain.strip(".")) and (address.name == domain or address.name.endswith(below))
