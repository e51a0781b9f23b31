"""Avro messages to raw items, by a local schema or with Confluent's framing and a schema registry.

    AvroDecoder("schemas/avro/shop/order.avsc", Items("lines", OrderLine))
    AvroDecoder("http://registry:8081", Order)

The decoder of Confluent's frame (a zero byte, four bytes of schema id, the datum) asks the registry once for each id.
Items are interpreted from plain values; logical types (timestamps, dates, decimals, UUIDs) arrive as what they are.
"""

import io
import json
import struct
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fastavro
import httpx

from lovelace_streams.errors import DeploymentFault, DestinationFault, RecordFault
from lovelace_streams.json import Items, fail_whole, hand_on, items_at
from lovelace_streams.kinds import got
from lovelace_streams.mapping import MapFunction, RawItem, Target
from lovelace_streams.records import DeadLetter, Envelope, Reason, Record, SkipReason
from lovelace_streams.rows import Row

UNKNOWN_SECONDS = 60.0
"""How long an id that the registry does not know is not asked for again."""

_FRAME = struct.Struct(">bI")


class AvroDecoder:
    """Decodes one record at a time. `source` is a schema (a dict, a path to an .avsc) or a registry's http address."""

    def __init__(
        self, source: str | Path | dict[str, Any], what: type[Row] | Items | MapFunction, *, timeout: float = 10.0
    ) -> None:
        items = what if isinstance(what, Items) else Items("$", what)
        self._target = Target(items.row, items.path)
        self._registry: Registry | None = None
        self._schema: Any = None
        if isinstance(source, str) and source.startswith(("http://", "https://")):
            self._registry = Registry(source, timeout)
        else:
            self._schema = _local(source)

    def decode(
        self,
        record: Record,
        oks: list[Envelope[RawItem]],
        errs: list[DeadLetter],
        skipped: list[tuple[SkipReason, Envelope[Any]]],
        step: str = "decode",
    ) -> None:
        """Append the record's items to the three lists, and set `record.items`, as `JsonDecoder.decode` does.

        Raises `DestinationFault` where the registry does not answer, `DeploymentFault` where it refuses us; nothing
        was appended then: decode the record again.
        """
        try:
            found = self._read(record.value)
        except RecordFault as fault:
            fail_whole(record, errs, step, fault)
            return
        hand_on(record, [found] if isinstance(found, RawItem) else found, oks, errs, skipped, step)

    def _read(self, value: bytes | None) -> RawItem | list[RawItem] | SkipReason:
        if value is None:
            return SkipReason.TOMBSTONE
        root = self._datum(value)
        if not isinstance(root, dict):
            raise RecordFault(Reason.WRONG_TYPE, f"expected record, got {got(root)} at $")
        return items_at(self._target, root, value)

    def _datum(self, value: bytes) -> Any:
        stream = io.BytesIO(value)
        schema = self._schema
        if self._registry is not None:
            schema = self._registry.schema(_schema_id(stream.read(_FRAME.size)))
        try:
            datum = fastavro.schemaless_reader(stream, schema, None)
        except RecursionError:
            raise RecordFault(Reason.TOO_DEEP) from None
        except Exception as error:  # noqa: BLE001 - at least five classes on corrupt bytes (IndexError, EOFError, …)
            raise RecordFault(Reason.NOT_AVRO, type(error).__name__) from None
        if stream.read(1):  # fastavro takes what follows for somebody else's
            raise RecordFault(Reason.NOT_AVRO, "bytes after the datum")
        return datum


class Registry:
    """Schemas by id from a registry that speaks Confluent's API; an id never changes its meaning, so each is kept."""

    def __init__(self, url: str, timeout: float = 10.0) -> None:
        self._url = url.rstrip("/")
        self.name = urlsplit(url).hostname or "schema registry"
        self._timeout = timeout
        self._client: httpx.Client | None = None
        self._schemas: dict[int, Any] = {}
        self._unknown: dict[int, float] = {}

    def schema(self, schema_id: int) -> Any:
        """The schema of an id; raises `RecordFault` (unknown_schema), `DestinationFault`, `DeploymentFault`."""
        known = self._schemas.get(schema_id)
        if known is None:
            if time.monotonic() < self._unknown.get(schema_id, 0):
                raise _unknown(schema_id)
            try:
                known = self._schemas[schema_id] = self._ask(schema_id)
            except RecordFault:
                self._unknown[schema_id] = time.monotonic() + UNKNOWN_SECONDS
                raise
        return known

    def _ask(self, schema_id: int) -> Any:
        if self._client is None:  # not at build: building a flow opens nothing
            self._client = httpx.Client(timeout=self._timeout)
        where = f"schema registry {self.name}"
        try:
            answer = self._client.get(f"{self._url}/schemas/ids/{schema_id}")
        except httpx.TimeoutException:
            raise DestinationFault("timeout", where) from None
        except httpx.HTTPError as error:
            raise DestinationFault(type(error).__name__, where) from None
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise _unknown(schema_id)
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise DeploymentFault(f"{where} refuses the credentials of SCHEMA_REGISTRY_URL", str(answer.status_code))
        if answer.status_code != httpx.codes.OK:
            raise DestinationFault(str(answer.status_code), where)
        try:
            body = answer.json()
            text = body["schema"]
        except (ValueError, KeyError, TypeError):
            raise DestinationFault("200", f"{where} answers something else") from None
        if body.get("schemaType", "AVRO") != "AVRO":
            raise RecordFault(Reason.UNKNOWN_SCHEMA, f"schema {schema_id} is not Avro")
        try:
            return fastavro.parse_schema(json.loads(text))
        except Exception as error:  # noqa: BLE001 - references to other subjects end here too
            raise RecordFault(Reason.UNKNOWN_SCHEMA, f"schema {schema_id}: {type(error).__name__}") from None


def _unknown(schema_id: int) -> RecordFault:
    return RecordFault(Reason.UNKNOWN_SCHEMA, f"the registry knows no schema {schema_id}")


def _schema_id(frame: bytes) -> int:
    if len(frame) < _FRAME.size or frame[0] != 0:
        raise RecordFault(Reason.NOT_AVRO, "no Confluent frame: a zero byte and the schema's id")
    schema_id: int = _FRAME.unpack(frame)[1]
    return schema_id


def _local(source: str | Path | dict[str, Any]) -> Any:
    if isinstance(source, dict):
        return fastavro.parse_schema(source)
    try:
        return fastavro.parse_schema(json.loads(Path(source).read_text()))
    except (OSError, ValueError) as error:
        raise DeploymentFault(f"schema {source} can't be read: {type(error).__name__}") from None
