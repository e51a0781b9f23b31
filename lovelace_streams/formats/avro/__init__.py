"""Avro messages to raw items: bare, as single objects, or with Confluent's frame and a schema registry.

    AvroDecoder("schemas/avro/shop/order.avsc", Items("lines", OrderLine))        bare data of one schema
    AvroDecoder(settings.registry, Order, reader="schemas/avro/shop/order.avsc")  Confluent's frame, resolved
    AvroDecoder(SingleObject(*versions), Order, reader=versions[-1])              single objects, resolved

Each module imports only from those above it:

    logical     logical types → Python's values
    schema      an Avro schema as a graph of nodes
    resolution  which of a reader's types a writer's type becomes
    reading     a generated function for each pair of schemas: bytes → one value
    arrow       the values of Arrow's columns
    row_columns Arrow's columns → columns of a row class
    columns     many messages of one schema at once
    column_loop messages of a chunk → columns of row classes
    registry    a schema registry, asked over HTTP
    framing     which schema wrote a message
    decoder     `AvroDecoder`, `JsonOrAvro`

The path for users' code is `lovelace_streams.avro`.
"""

from lovelace_streams.formats.avro.decoder import AvroDecoder, JsonOrAvro
from lovelace_streams.formats.avro.framing import Bare, Confluent, Framing, SingleObject
from lovelace_streams.formats.avro.registry import NoSchema, Registry
from lovelace_streams.formats.avro.schema import Schema, load, parse

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
