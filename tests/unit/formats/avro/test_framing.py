"""Which schema wrote a message: single objects and their fingerprints."""

import json
from pathlib import Path
from typing import Any

import pytest

from lovelace_streams.avro import AvroDecoder, SingleObject, parse
from lovelace_streams.errors import DeploymentFault
from tests.unit.formats.avro.messages import MILLIS, MOMENT, NEW, OLD, Order, letters, record_of


def test_single_objects_are_told_apart_by_their_fingerprint() -> None:
    decoder = AvroDecoder(SingleObject(OLD, NEW), Order, reader=NEW)
    for schema in (OLD, NEW):
        assert letters(decoder, b"\xc3\x01" + parse(schema).fingerprint() + b"\x0e") == [{"f0": 7}]
    unknown = ("unknown_schema", "none of the schemas has this fingerprint")
    assert letters(decoder, b"\xc3\x01" + b"12345678" + b"\x0e") == [unknown]
    assert letters(decoder, b"\xc3\x02" + parse(NEW).fingerprint() + b"\x0e")[0][0] == "not_avro"
    assert letters(decoder, b"\xc3\x01")[0][0] == "not_avro"


def test_the_fingerprint_is_avros_own() -> None:
    assert parse('"int"').fingerprint()[::-1].hex() == "7275d51a3f395c8f"  # of the specification's test cases


def logical(kind: str, name: str, **more: int) -> dict[str, Any]:
    return {"type": kind, "logicalType": name, **more}


MICROS = logical("long", "timestamp-micros")
READ_DIFFERENTLY = [
    ("long", MOMENT, "$.f0"),
    (MOMENT, MICROS, "$.f0"),
    (logical("int", "date"), MILLIS, "$.f0"),
    (logical("bytes", "decimal", precision=9, scale=2), logical("bytes", "decimal", precision=9, scale=3), "$.f0"),
    (logical("bytes", "decimal", precision=9, scale=2), logical("bytes", "decimal", precision=8, scale=2), "$.f0"),
    (["null", MOMENT], ["null", MICROS], "$.f0"),
    ({"type": "array", "items": MOMENT}, {"type": "array", "items": MICROS}, "$.f0[]"),
    ({"type": "map", "values": "string"}, {"type": "map", "values": logical("string", "uuid")}, "$.f0{}"),
    (record_of("int", MOMENT, name="In"), record_of("int", MICROS, name="In"), "$.f0.f1"),
]


@pytest.mark.parametrize(("first", "second", "path"), READ_DIFFERENTLY)
def test_schemas_with_one_fingerprint_that_are_read_differently_are_refused(
    first: Any, second: Any, path: str, tmp_path: Path
) -> None:
    versions = [tmp_path / "order.v1.avsc", tmp_path / "order.v2.avsc"]
    for version, kind in zip(versions, (first, second), strict=True):
        version.write_text(json.dumps(record_of(kind, name="shop.Order")))
    assert parse(versions[0].read_text()).fingerprint() == parse(versions[1].read_text()).fingerprint()

    with pytest.raises(DeploymentFault) as refused:
        SingleObject(*versions)
    assert all(str(version) in str(refused.value) for version in versions)
    assert f"at {path}" in str(refused.value)


def test_schemas_that_have_no_file_are_named_by_their_places() -> None:
    first, second = record_of(MOMENT, name="shop.Order"), record_of(MICROS, name="shop.Order")
    with pytest.raises(DeploymentFault, match=r"schema 2 \(shop.Order\) and schema 3 \(shop.Order\)"):
        SingleObject(record_of("int", "int", name="shop.Order"), first, second)


def test_what_is_read_alike_may_have_one_fingerprint() -> None:
    plain = record_of("int", name="shop.Order")
    documented = {**plain, "doc": "of a shop", "aliases": ["Sale"]}
    documented["fields"] = [{**plain["fields"][0], "default": 5, "aliases": ["number"], "doc": "the number"}]
    unknown = record_of(logical("int", "nobody-knows"), name="shop.Order")
    invalid = record_of(logical("int", "uuid"), name="shop.Order")

    decoder = AvroDecoder(SingleObject(plain, plain, documented, unknown, invalid), Order, reader=NEW)
    assert letters(decoder, b"\xc3\x01" + parse(plain).fingerprint() + b"\x0e") == [{"f0": 7}]


def test_a_record_within_itself_is_compared_once() -> None:
    def node(kind: Any) -> Any:
        return {
            "type": "record",
            "name": "Node",
            "fields": [{"name": "next", "type": ["null", "Node"]}, {"name": "at", "type": kind}],
        }

    SingleObject(node(MOMENT), node(MOMENT))
    with pytest.raises(DeploymentFault, match=r"at \$\.at"):
        SingleObject(node(MOMENT), node(MICROS))
