"""Which schema wrote a message: single objects and their fingerprints."""

from lovelace_streams.avro import AvroDecoder, SingleObject, parse
from tests.unit.formats.avro.messages import NEW, OLD, Order, letters


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
