"""Which schema wrote a message: by the bytes before its datum (`Confluent`, `SingleObject`), or as agreed (`Bare`)."""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from lovelace_streams.errors import DeploymentFault, DestinationFault, RecordFault
from lovelace_streams.formats.avro.registry import NoSchema, Registry
from lovelace_streams.formats.avro.schema import Schema, load, read_differently
from lovelace_streams.records import Reason

SchemaSource = str | Path | Mapping[str, Any] | Schema
"""A schema: the path of an .avsc, its JSON, or a parsed one."""


class Framing(Protocol):
    """Tells which schema wrote a message."""

    @property
    def schemas(self) -> tuple[Schema, ...]:
        """The schemas that are known without asking a server."""

    waits: bool
    """Whether `schema` may raise a `DestinationFault`."""

    size: int
    """The number of bytes before the datum: messages in which they are equal have the same schema."""

    def named(self, message: bytes) -> tuple[Any, int]:
        """Return the key of the writer's schema, and where the datum begins; raises `RecordFault`."""

    def schema(self, key: Any) -> Schema:
        """Return the schema of a key; raises `NoSchema`, `DestinationFault`, `DeploymentFault`."""


class Bare:
    """No frame: every message is a datum of one schema. Raises `DeploymentFault` for one that can't be used."""

    waits = False
    size = 0

    def __init__(self, source: SchemaSource) -> None:
        self._schema = load(source)
        self.schemas: tuple[Schema, ...] = (self._schema,)

    def named(self, message: bytes) -> tuple[Any, int]:  # noqa: ARG002
        """Return no key: the datum is the whole message."""
        return None, 0

    def schema(self, key: Any) -> Schema:  # noqa: ARG002
        """Return the one schema."""
        return self._schema


class SingleObject:
    """Avro's single-object encoding: C3 01, and eight bytes of fingerprint of one of these schemas.

    The schemas are the versions of a record. Raises `DeploymentFault` for one that can't be used, and for two that have
    one fingerprint, which does not see logical types, but are read differently: no message says which of them wrote it.
    Source: https://avro.apache.org/docs/1.12.0/specification/#single-object-encoding

    >>> from lovelace_streams.avro import AvroDecoder, SingleObject
    >>> order = {"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}]}
    >>> decoder = AvroDecoder(SingleObject(order), lambda order: None, reader=order)
    """

    waits = False
    _MARK, size = b"\xc3\x01", 10

    def __init__(self, *sources: SchemaSource) -> None:
        self.schemas: tuple[Schema, ...] = tuple(map(load, sources))
        self._by_fingerprint: dict[bytes, Schema] = {}
        for schema in self.schemas:
            known = self._by_fingerprint.setdefault(schema.fingerprint(), schema)
            path = read_differently(known.root, schema.root)
            if path is not None:
                raise DeploymentFault(
                    f"{self._named_schema(known)} and {self._named_schema(schema)} have one fingerprint, but another "
                    f"logical type at {path}: a single object does not say which of them wrote it. Leave out the one "
                    "that wrote no messages; a new version with another logical type needs another name for the field"
                )

    def _named_schema(self, schema: Schema) -> str:
        if schema.path is not None:
            return f"schema {schema.path}"
        number = next(number for number, each in enumerate(self.schemas, 1) if each is schema)
        return f"schema {number} ({schema.name})"

    def named(self, message: bytes) -> tuple[Any, int]:
        """Return the fingerprint, and 10; raises `RecordFault` for another encoding."""
        if not message.startswith(self._MARK) or len(message) < self.size:
            raise RecordFault(Reason.NOT_AVRO, "no single-object encoding: C3 01 and the schema's fingerprint")
        return message[2 : self.size], self.size

    def schema(self, key: Any) -> Schema:
        """Return the schema with this fingerprint; raises `NoSchema`."""
        if key not in self._by_fingerprint:
            raise NoSchema("none of the schemas has this fingerprint")
        return self._by_fingerprint[key]


class Confluent:
    """Confluent's frame: a zero byte, and four bytes of the schema's id in a registry.

    `registry` is a `Registry` or its http address; `timeout` is in seconds. Nothing is asked before the first message.
    Raises `DeploymentFault` for an address that is none.
    """

    waits = True
    schemas: tuple[Schema, ...] = ()
    size = 5
    _FRAME = struct.Struct(">BI")

    def __init__(self, registry: Registry | str, timeout: float = 10.0) -> None:
        self.registry = registry if isinstance(registry, Registry) else Registry(registry, timeout)
        self._answered: int | None = None
        """The id that was answered last."""

    def named(self, message: bytes) -> tuple[Any, int]:
        """Return the id, and 5; raises `RecordFault` for another frame."""
        if len(message) < self._FRAME.size or message[0] != 0:
            raise RecordFault(Reason.NOT_AVRO, "no Confluent frame: a zero byte and the schema's id")
        return self._FRAME.unpack_from(message)[1], self._FRAME.size

    def check(self) -> str:
        """Check that the registry answers; raises `DestinationFault` or `DeploymentFault`."""
        return self.registry.check()

    def schema(self, key: Any) -> Schema:
        """Ask the registry for a schema; raises `NoSchema`, `DestinationFault` or `DeploymentFault`."""
        schema = self.registry.schema(key)
        self._answered = key
        return schema

    def answers_another(self, key: Any) -> bool:
        """Whether the registry answers for another id now: the one that it answered last, or the ids beside this one.

        To have no such schema is an answer, too.
        """
        others = [self._answered] if self._answered not in (None, key) else [key - 1, key + 1]
        for other in others:
            try:
                self.registry.schema(int(other or 0))
            except NoSchema:
                return True
            except (DestinationFault, DeploymentFault):
                continue
            return True
        return False


def framing_of(source: SchemaSource | Framing, timeout: float) -> Framing:
    """Return the framing of a decoder's `source`: a registry's http address, a schema, or a framing as it is."""
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        return Confluent(source, timeout)
    if isinstance(source, str | Path | Mapping | Schema):
        return Bare(source)
    return source
