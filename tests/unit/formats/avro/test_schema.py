"""Which logical types a schema has: one that its type can't have is ignored, as Avro's specification says."""

from typing import Any

import pytest

from lovelace_streams.avro import AvroDecoder, SingleObject, parse
from lovelace_streams.rows import Row
from lovelace_streams.testing import avro, mapped
from tests.unit.formats.avro.messages import letters, record_of

INVALID = [
    ({"type": "bytes", "logicalType": "decimal", "precision": 2, "scale": 3}, b"\1"),
    ({"type": "bytes", "logicalType": "decimal", "precision": 2, "scale": -1}, b"\1"),
    ({"type": "bytes", "logicalType": "decimal", "precision": 0}, b"\1"),
    ({"type": "bytes", "logicalType": "decimal"}, b"\1"),
    ({"type": "bytes", "logicalType": "decimal", "precision": "9", "scale": 2}, b"\1"),
    ({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2.5}, b"\1"),
    ({"type": "bytes", "logicalType": "decimal", "precision": True}, b"\1"),
    ({"type": "fixed", "name": "F", "size": 2, "logicalType": "decimal", "precision": 5}, b"\1\2"),
    ({"type": "fixed", "name": "F", "size": 2, "logicalType": "uuid"}, b"\1\2"),
    ({"type": "fixed", "name": "F", "size": 2, "logicalType": "duration"}, b"\1\2"),
    ({"type": "string", "logicalType": "decimal", "precision": 9, "scale": 2}, "x"),
    ({"type": "string", "logicalType": "date"}, "x"),
    ({"type": "string", "logicalType": "timestamp-millis"}, "x"),
    ({"type": "int", "logicalType": "timestamp-millis"}, 7),
    ({"type": "long", "logicalType": "date"}, 7),
    ({"type": "long", "logicalType": "uuid"}, 7),
    ({"type": "long", "logicalType": "nobody-knows"}, 7),
    ({"type": "long", "logicalType": 7}, 7),
    ({"type": "long", "logicalType": ["date"]}, 7),
    ({"type": "array", "items": "long", "logicalType": "decimal", "precision": 1, "scale": 2}, [7]),
    ({"type": "enum", "name": "E", "symbols": ["A"], "logicalType": "date"}, "A"),
]


@pytest.mark.parametrize(("kind", "value"), INVALID)
def test_an_invalid_logical_type_is_ignored(kind: Any, value: Any) -> None:
    places: list[tuple[Any, Any]] = [
        (kind, value),
        (["null", kind], value),
        ({"type": "array", "items": kind}, [value]),
        ({"type": "map", "values": kind}, {"k": value}),
        (record_of(kind, name="Inner"), {"f0": value}),
    ]
    for declared, datum in places:
        assert read(record_of(declared), {"f0": datum}) == {"f0": datum}


def read(schema: Any, datum: Any, **options: Any) -> Any:
    """What is read of a message."""
    return letters(AvroDecoder(schema, lambda item: item, **options), avro(schema, datum))[0]


def test_a_valid_one_beside_it_is_read() -> None:
    class Paid(Row, table="paid", primary_key="f0"):
        f0: int
        f1: Any

    invalid = {"type": "bytes", "logicalType": "decimal", "precision": 1, "scale": 2}
    valid = {"type": "fixed", "name": "Money", "size": 2, "logicalType": "decimal", "precision": 4, "scale": 2}
    schema = record_of("int", record_of(invalid, valid, name="In"))
    message = b"\x02" + b"\x02\x07" + b"\x04\xd2"
    row = mapped(AvroDecoder(schema, Paid), message, to=Paid).row
    assert repr(row) == "Paid(f0=1, f1={'f0': 'Bw==', 'f1': 12.34})"


def test_the_text_of_a_schema_stays_what_it_was() -> None:
    schema = record_of({"type": "bytes", "logicalType": "decimal", "precision": 2, "scale": 3})
    parsed = parse(schema)
    assert parsed.text == schema
    assert parsed.fingerprint() == parse(record_of("bytes")).fingerprint()
    SingleObject(schema, record_of("bytes"))


def test_a_default_of_a_type_with_an_invalid_logical_type_is_of_its_base() -> None:
    reader = record_of("int")
    invalid = {"type": "bytes", "logicalType": "decimal", "precision": 1, "scale": 2}
    reader["fields"].append({"name": "f1", "type": invalid, "default": "\u0007"})
    assert read(record_of("int"), {"f0": 1}, reader=reader) == {"f0": 1, "f1": b"\7"}


def test_what_is_no_schema_is_refused_as_before() -> None:
    for text in ('{"type": "bytes", "logicalType": "decimal", "precision": 2', {"type": "nobody"}, {"type": "fixed"}):
        with pytest.raises(ValueError, match="no Avro schema"):
            parse(text)
