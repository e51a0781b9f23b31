"""What the bytes say, by themselves and against a reader's schema."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from lovelace_streams.avro import parse
from lovelace_streams.errors import RecordFault
from lovelace_streams.formats.avro.reading import reading
from tests.properties.avro_schemas import varint
from tests.unit.formats.avro.messages import MILLIS, MOMENT, record_of


def read(value: bytes, *fields: Any, reader: Any = None) -> Any:
    """The first field of a record, or the reason why there is none."""
    writer = parse(record_of(*fields)).root
    try:
        return reading(writer, parse(reader).root if reader else writer)[0](value, 0)["f0"]
    except RecordFault as fault:
        return str(fault.reason)


STATE = {"type": "enum", "name": "State", "symbols": ["A", "B"]}
MONEY = {"type": "bytes", "logicalType": "decimal", "precision": 3, "scale": 1}
LONGS, NULLS = {"type": "array", "items": "long"}, {"type": "array", "items": "null"}
TWO_60 = b"\x80\x80\x80\x80\x80\x80\x80\x80\x20"
"""2**60, as a varint of 2**61."""


@pytest.mark.parametrize(
    ("value", "kind", "reason"),
    [
        (b"\x02", "boolean", "not_avro"),
        (b"\xff" * 10 + b"\x01", "long", "not_avro"),
        (b"\xff" * 9 + b"\x02", "long", "not_avro"),
        (b"\x80\x80\x80\x80\x80\x80\x40", "int", "not_avro"),
        (b"\x01abc", "string", "not_avro"),
        (TWO_60, "bytes", "not_avro"),
        (b"\x04\xff\xff", "string", "not_utf8"),
        (b"\x01", STATE, "not_avro"),
        (b"\x04", STATE, "not_avro"),
        (b"\x01", ["null", "string"], "not_avro"),
        (b"\x04", ["null", "string"], "not_avro"),
        (TWO_60 + b"\0", LONGS, "not_avro"),
        (TWO_60 + b"\0", NULLS, "too_large"),
        (b"\x01" + TWO_60 + b"\x02\0", LONGS, "not_avro"),
        (b"\x01\x04\x02\0", LONGS, "not_avro"),
        (b"\x01\x02\x02", LONGS, "not_avro"),
        (b"\x04\x02a\x02", {"type": "map", "values": "long"}, "not_avro"),
        (b"\x01", MILLIS, "out_of_range"),
        (varint(86_400_000)[:-1], MILLIS, "not_avro"),
        (varint(86_400_000), MILLIS, "out_of_range"),
        (b"\xff" * 9 + b"\x01", MOMENT, "out_of_range"),
        (b"\x06\x7f\xff\xff", MONEY, "out_of_range"),
        (b"\x02a", {"type": "string", "logicalType": "uuid"}, "out_of_range"),
        (b"", "long", "not_avro"),
        (b"\x02\x02", "long", "not_avro"),
    ],
)
def test_what_no_writer_makes(value: bytes, kind: Any, reason: str) -> None:
    assert read(value, kind) == reason


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (b"\xff" * 9 + b"\x01", "long", -(2**63)),
        (b"\xfe\xff\xff\xff\x0f", "int", 2**31 - 1),
        (b"\x01\x02\x02\0", LONGS, [1]),
        (b"\x02\x02\x02\x04\0", LONGS, [1, 2]),
        (b"\x06\0", NULLS, [None] * 3),
        (b"\x04\x03\xe7", MONEY, Decimal("99.9")),
        (b"\x02", MOMENT, datetime(1970, 1, 1, 0, 0, 0, 1000, tzinfo=UTC)),
        (
            b"0123456789abcdef",
            {"type": "fixed", "size": 16, "name": "Id", "logicalType": "uuid"},
            UUID(bytes=b"0123456789abcdef"),
        ),
    ],
)
def test_what_is_just_within(value: bytes, kind: Any, expected: Any) -> None:
    assert read(value, kind) == expected


@pytest.mark.parametrize(
    ("value", "writer", "reader", "expected"),
    [
        (b"\x02", "long", "double", 1.0),
        (b"\x02", "long", "int", "wrong_type"),
        (b"\0", ["null", "long"], "long", "null"),
        (b"\x02\x02", ["null", "long"], "long", 1),
        (b"\x02", "int", ["float", "int"], 1),
        (b"\x02", STATE, {**STATE, "symbols": ["A"]}, "bad_value"),
        (b"\x02", STATE, {**STATE, "symbols": ["A"], "default": "A"}, "A"),
        (b"\x02", MOMENT, "long", 1),
        (b"\x02", "long", MOMENT, datetime(1970, 1, 1, 0, 0, 0, 1000, tzinfo=UTC)),
        (b"\x02", MOMENT, {**MOMENT, "logicalType": "timestamp-micros"}, datetime(1970, 1, 1, 0, 0, 0, 1000, UTC)),
        (b"\x02\x03", MONEY, {**MONEY, "scale": 2}, "wrong_type"),
        (b"\x02\xff", "bytes", "string", "not_utf8"),
    ],
)
def test_what_a_reader_makes_of_it(value: bytes, writer: Any, reader: Any, expected: Any) -> None:
    assert repr(read(value, writer, reader=record_of(reader))) == repr(expected)


def test_what_only_the_reader_has() -> None:
    added = record_of("long")
    added["fields"] += [
        {"name": "at", "type": MOMENT, "default": 0},
        {"name": "raw", "type": "bytes", "default": "\u00ff"},
        {"name": "list", "type": LONGS, "default": []},
        {
            "name": "inner",
            "type": {**record_of("int", name="I"), "fields": [{"name": "x", "type": "int", "default": 5}]},
        },
    ]
    added["fields"][-1]["default"] = {}
    decode, _ = reading(parse(record_of("long")).root, parse(added).root)
    first, second = decode(b"\x02", 0), decode(b"\x02", 0)

    assert first["at"].year == 1970
    assert (first["raw"], first["inner"]) == (b"\xff", {"x": 5})
    assert first["list"] is not second["list"]
    missing = record_of("long", "long")
    assert read(b"\x02", "long", reader=missing) == "missing"


def test_depth_ends_as_a_letter() -> None:
    lists = {"type": "record", "name": "L", "fields": [{"name": "f0", "type": ["null", "L"]}]}
    root = parse(lists).root
    decode, _ = reading(root, root)
    assert decode(b"\x02" * 200 + b"\0", 0)["f0"] is not None
    for depth in (300, 1_000_000):
        with pytest.raises(RecordFault, match="too_deep"):
            decode(b"\x02" * depth + b"\0", 0)
