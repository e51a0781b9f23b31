"""Avro messages to raw items: bare, as single objects, or with Confluent's frame and a schema registry.

    AvroDecoder("schemas/avro/shop/order.avsc", Items("lines", OrderLine))        bare data of one schema
    AvroDecoder(settings.registry, Order, reader="schemas/avro/shop/order.avsc")  Confluent's frame, resolved
    AvroDecoder(SingleObject(*versions), Order, reader=versions[-1])              single objects, resolved

`schema` parses, `resolution` says what of the reader's a writer's type becomes, `reading` generates the function that
reads bytes, `columns` reads many at once, `registry` asks for schemas, `decoder` puts them together. Logical types
arrive as what they are.
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
