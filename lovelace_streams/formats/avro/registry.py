"""A schema registry that speaks Confluent's API, asked over HTTP: what each answer means, and whose fault it is.

    4xx with an error code of the API      the record's: `NoSchema`, which the decoder turns into `unknown_schema`
    401, 403, 404 without such a code      the deployment's: credentials, or an address that is not the API's
    anything else, or no answer            the destination's: wait, ask again

An answer is believed if it is whole and of the API's shape; "anything else" is one that is not: a page, JSON of another
shape, a reference without a version. The address may hold a user and a password. No message shows more of it than its
host.
"""

from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import msgspec

from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.formats.avro.schema import Schema, parse
from lovelace_streams.http_client import Address, HttpClient

REFERENCES_MAX = 100
"""The most schemas that one may refer to, directly and through others."""
SETTING = "SCHEMA_REGISTRY_URL"


class Reference(msgspec.Struct):
    """A schema that another one names, as the API has it."""

    subject: str
    version: int


class SchemaAnswer(msgspec.Struct):
    """A schema with what it refers to, as the API has it."""

    schema: str
    schemaType: str | None = None  # noqa: N815 - the API's own name
    references: list[Reference] | None = None


class NoSchema(Exception):  # noqa: N818 - a public name, and an answer rather than an error
    """There is no such schema, or one that can't be used. The text says which, and nothing that is in it."""


class Registry:
    """Asks a registry for schemas by id, and for versions by subject.

    `url` is the address of the API, `http://user:password@host:port/path`; `timeout` is in seconds, for each request.
    Nothing is opened before the first request. Raises `DeploymentFault` for an address that is none, and for a proxy or
    a certificate of the environment that can't be used.
    """

    def __init__(self, url: str, timeout: float = 10.0) -> None:
        address = Address.of(url, SETTING)
        self.name = f"schema registry {address.host}"
        # with a connection of its own for each request: a schema is asked for once
        self._client = HttpClient(
            address, service=self.name, setting=SETTING, timeout=timeout, proxies=True, keep_open=False
        )

    def check(self) -> str:
        """Check that it answers, and accepts the credentials; raises `DestinationFault` or `DeploymentFault`."""
        status, _ = self.ask("GET", "/subjects")
        if status != HTTPStatus.OK:
            raise DeploymentFault(f"{self.name} answers {status} to /subjects: is it a schema registry?", str(status))
        return f"{self.name} answers"

    def schema(self, schema_id: int) -> Schema:
        """Ask for the schema of an id, and for those that it refers to.

        Raises `NoSchema`, `DestinationFault` (no answer; it names the id), `DeploymentFault` (the credentials or the
        address are refused).
        """
        try:
            return self._schema(schema_id)
        except DestinationFault as fault:
            raise DestinationFault(fault.code, f"schema {schema_id}: {fault.detail}") from None

    def _schema(self, schema_id: int) -> Schema:
        answer = self._answer(f"/schemas/ids/{schema_id}", f"no schema {schema_id}")
        if answer.schemaType not in (None, "AVRO"):
            raise NoSchema(f"schema {schema_id} is not Avro")
        try:
            return parse(answer.schema, self._references(answer, []))
        except ValueError as error:
            raise NoSchema(f"schema {schema_id} can't be used: {error}") from None

    def _references(self, schema: SchemaAnswer, known: list[tuple[str, int]]) -> list[str]:
        """Return the texts that a schema refers to, each after those that it refers to itself."""
        texts: list[str] = []
        for reference in schema.references or ():
            place = (reference.subject, reference.version)
            if place in known:
                continue
            known.append(place)
            if len(known) > REFERENCES_MAX:
                raise NoSchema(f"it refers to more than {REFERENCES_MAX} others")
            path = f"/subjects/{quote(reference.subject, safe='')}/versions/{reference.version}"
            answer = self._answer(path, "a reference that is not there")
            texts += [*self._references(answer, known), answer.schema]
        return texts

    def _answer(self, path: str, otherwise: str) -> SchemaAnswer:
        """Return the answer for a path, which has a schema; `otherwise` says what the registry has if there is none."""
        status, body = self.ask("GET", path)
        if status == HTTPStatus.OK:
            try:
                return msgspec.convert(body, SchemaAnswer, strict=False)
            except ValueError:
                raise DestinationFault(str(status), f"{self.name} answers something else") from None
        if 400 <= status < 500 and isinstance(body, dict) and "error_code" in body:  # noqa: PLR2004 - HTTP's refusals
            raise NoSchema(f"the registry has {otherwise}")
        if status == HTTPStatus.NOT_FOUND:
            message = (
                f"{self.name} has no schemas where SCHEMA_REGISTRY_URL leads: the address takes the API's path, too"
            )
            raise DeploymentFault(message, str(status))
        raise DestinationFault(str(status), f"{self.name} answers something else")

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Send a request, and return status (below 500) and JSON; raises `DestinationFault` or `DeploymentFault`."""
        sent = None if body is None else msgspec.json.encode(body)
        kind = {} if body is None else {"content-type": "application/vnd.schemaregistry.v1+json"}
        answer = self._client.request(method, path, body=sent, headers=kind)
        status = answer.status
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            message = (
                f"{self.name} refuses the credentials of SCHEMA_REGISTRY_URL, http://user:password@host ({status})"
            )
            raise DeploymentFault(message, str(status))
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in (
            HTTPStatus.REQUEST_TIMEOUT,
            HTTPStatus.TOO_MANY_REQUESTS,
        ):
            raise DestinationFault(str(status), self.name)
        try:
            return status, answer.json()
        except ValueError:
            return status, None
