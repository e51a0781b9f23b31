"""Avro messages to raw items: the public names of `formats.avro`, where users' flows import them from."""

from lovelace_streams.formats.avro import (
    AvroDecoder,
    Bare,
    Confluent,
    Framing,
    JsonOrAvro,
    NoSchema,
    Registry,
    Schema,
    SingleObject,
    load,
    parse,
)

__all__ = [
    "AvroDecoder",
    "Bare",
    "Confluent",
    "Framing",
    "JsonOrAvro",
    "NoSchema",
    "Registry",
    "Schema",
    "SingleObject",
    "load",
    "parse",
]
