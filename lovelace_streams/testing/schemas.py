"""Avro in a test: write messages as a producer would, and know their schemas in a registry in memory."""

import io
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fastavro
import msgspec

from lovelace_streams.formats.avro import Confluent, Registry, Schema, load

AnySchema = str | Path | Mapping[str, Any] | Schema


def avro(schema: AnySchema, datum: Any, schema_id: int | None = None) -> bytes:
    """Write a datum in Avro; with the id that a registry has for the schema, in Confluent's frame.

    >>> avro({"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}]}, {"id": 7}, schema_id=1)
    b'\\x00\\x00\\x00\\x00\\x01\\x0e'
    """
    written = io.BytesIO()
    if schema_id is not None:
        written.write(struct.pack(">BI", 0, schema_id))
    fastavro.schemaless_writer(written, fastavro.parse_schema(load(schema).usable_text), datum)
    return written.getvalue()


class MemoryRegistry(Registry):
    """A schema registry that knows these schemas, by their ids."""

    def __init__(self, schemas: Mapping[int, AnySchema]) -> None:
        super().__init__("http://registry.memory")
        self._texts = {number: msgspec.json.encode(load(schema).text).decode() for number, schema in schemas.items()}

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:  # noqa: ARG002
        """Answer `/schemas/ids/{id}`; any other request with 404, no such schema."""
        kind, _, number = path.strip("/").rpartition("/")
        text = self._texts.get(int(number)) if kind == "schemas/ids" else None
        return (404, {"error_code": 40403}) if text is None else (200, {"schema": text})


def framings(decoder: Any) -> Iterator[Confluent]:
    """Find the decoder's framings that ask a registry; `JsonOrAvro` has its decoder in `avro`."""
    for part in (decoder, getattr(decoder, "avro", None)):
        if isinstance(framing := getattr(part, "framing", None), Confluent):
            yield framing
