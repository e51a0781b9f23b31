"""A schema registry that speaks Confluent's API, asked over HTTP: what each answer means, and whose fault it is.

    4xx with an error code of the API      the record's: `NoSchema`, which the decoder turns into `unknown_schema`
    401, 403, 404 without such a code      the deployment's: credentials, or an address that is not the API's
    anything else, or no answer            the destination's: wait, ask again

The address may hold a user and a password. No message shows more of it than its host.
"""

from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import httpx

from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.formats.avro.schema import Schema, parse

REFERENCES_MAX = 100
"""The most schemas that one may refer to, directly and through others."""


class NoSchema(Exception):  # noqa: N818 - a public name, and an answer rather than an error
    """There is no such schema, or one that can't be used. The text says which, and nothing that is in it."""


class Registry:
    """Asks a registry for schemas by id, and for versions by subject.

    `url` is the address of the API, `http://user:password@host:port/path`; `timeout` is in seconds, for each request.
    Nothing is opened before the first request. Raises `DeploymentFault` for an address that is none.
    """

    def __init__(self, url: str, timeout: float = 10.0) -> None:
        try:
            parts = urlsplit(url)
            port = f":{parts.port}" if parts.port else ""
        except ValueError:
            raise DeploymentFault("SCHEMA_REGISTRY_URL is no address of a schema registry") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DeploymentFault("SCHEMA_REGISTRY_URL is no address of a schema registry: http://host:port/path")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self._url = urlunsplit((parts.scheme, host + port, parts.path.rstrip("/"), "", ""))
        self._auth = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
        self.name = f"schema registry {host}{port}"
        self._remote = parts.hostname not in ("127.0.0.1", "::1", "localhost")
        """Whether proxies and certificates of the environment are used: not for this machine."""
        self._timeout = timeout

    def check(self) -> str:
        """Check that it answers, and accepts the credentials; raises `DestinationFault` or `DeploymentFault`."""
        status, _ = self.ask("GET", "/subjects")
        if status != httpx.codes.OK:
            raise DeploymentFault(f"{self.name} answers {status} to /subjects: is it a schema registry?", str(status))
        return f"{self.name} answers"

    def schema(self, schema_id: int) -> Schema:
        """Ask for the schema of an id, and for those that it refers to.

        Raises `NoSchema`, `DestinationFault` (no answer), `DeploymentFault` (the credentials or address are refused).
        """
        answer = self._answer(f"/schemas/ids/{schema_id}", f"no schema {schema_id}")
        if answer.get("schemaType", "AVRO") != "AVRO":
            raise NoSchema(f"schema {schema_id} is not Avro")
        try:
            return parse(str(answer["schema"]), self._references(answer, []))
        except ValueError as error:
            raise NoSchema(f"schema {schema_id} can't be used: {error}") from None

    def _references(self, schema: dict[str, Any], known: list[tuple[str, int]]) -> list[str]:
        """Return the texts that a schema refers to, each after those that it refers to itself."""
        texts: list[str] = []
        for reference in schema.get("references") or ():
            subject, version = str(reference["subject"]), int(reference["version"])
            if (subject, version) in known:
                continue
            known.append((subject, version))
            if len(known) > REFERENCES_MAX:
                raise NoSchema(f"it refers to more than {REFERENCES_MAX} others")
            path = f"/subjects/{quote(subject, safe='')}/versions/{version}"
            answer = self._answer(path, "a reference that is not there")
            texts += [*self._references(answer, known), str(answer["schema"])]
        return texts

    def _answer(self, path: str, otherwise: str) -> dict[str, Any]:
        """Return the answer for a path, which has a schema; `otherwise` says what the registry has if there is none."""
        status, body = self.ask("GET", path)
        has_code = isinstance(body, dict) and "error_code" in body
        if httpx.codes.is_client_error(status) and has_code:
            raise NoSchema(f"the registry has {otherwise}")
        if status == httpx.codes.NOT_FOUND:
            message = (
                f"{self.name} has no schemas where SCHEMA_REGISTRY_URL leads: the address takes the API's path, too"
            )
            raise DeploymentFault(message, str(status))
        if status != httpx.codes.OK or not isinstance(body, dict) or "schema" not in body:
            raise DestinationFault(str(status), f"{self.name} answers something else")
        return body

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Send a request, and return status (below 500) and JSON; raises `DestinationFault` or `DeploymentFault`."""
        kind = {"content-type": "application/vnd.schemaregistry.v1+json"} if body is not None else {}
        try:
            answer = httpx.request(  # with a connection of its own: a schema is asked for once
                method,
                f"{self._url}{path}",
                json=body,
                headers=kind,
                auth=self._auth,
                timeout=self._timeout,
                trust_env=self._remote,
            )
        except httpx.TimeoutException:
            raise DestinationFault("timeout", self.name) from None
        except httpx.HTTPError as error:
            raise DestinationFault(type(error).__name__, self.name) from None
        status = answer.status_code
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            message = (
                f"{self.name} refuses the credentials of SCHEMA_REGISTRY_URL, http://user:password@host ({status})"
            )
            raise DeploymentFault(message, str(status))
        if status >= httpx.codes.INTERNAL_SERVER_ERROR or status in (
            httpx.codes.REQUEST_TIMEOUT,
            httpx.codes.TOO_MANY_REQUESTS,
        ):
            raise DestinationFault(str(status), self.name)
        try:
            return status, answer.json()
        except ValueError:
            return status, None
