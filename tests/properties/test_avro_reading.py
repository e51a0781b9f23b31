"""Avro: value for value what fastavro reads, what the specification says of two schemas, and bytes raise nothing."""

import io
from typing import Any

import fastavro
from hypothesis import given
from hypothesis import strategies as st

from lovelace_streams.errors import RecordFault
from lovelace_streams.formats.avro.reading import Read, reading
from lovelace_streams.formats.avro.schema import parse
from tests.properties.avro_schemas import Data, NoMatch, Oracle, Reader, schemas, write


def outcome(read: Read, message: bytes) -> str:
    try:
        read(message, 0)
    except RecordFault as fault:
        return str(fault.reason)
    return "read"


@given(schema=schemas(), data=st.data(), sizes=st.booleans())
def test_values_are_those_that_fastavro_reads(schema: dict[str, Any], data: st.DataObject, sizes: bool) -> None:
    message = write(Data(schema).draw(data.draw, schema), sizes)
    parsed = parse(schema)
    read, mismatches = reading(parsed.root, parsed.root)

    assert mismatches == []
    expected = fastavro.schemaless_reader(io.BytesIO(message), fastavro.parse_schema(schema), None)
    assert repr(read(message, 0)) == repr(expected)


@given(schema=schemas(), data=st.data())
def test_any_bytes_are_a_value_or_a_records_fault(schema: dict[str, Any], data: st.DataObject) -> None:
    parsed = parse(schema)
    read, _ = reading(parsed.root, parsed.root)
    message = bytearray(write(Data(schema).draw(data.draw, schema)))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(message)))
        message[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=11))

    assert outcome(read, bytes(message)) in {"read", "not_avro", "not_utf8", "out_of_range", "too_deep", "too_large"}


@given(schema=schemas(), data=st.data())
def test_every_byte_counts(schema: dict[str, Any], data: st.DataObject) -> None:
    parsed = parse(schema)
    read, _ = reading(parsed.root, parsed.root)
    message = write(Data(schema).draw(data.draw, schema))
    for wrong in (message + b"\0", message[:-1]):
        assert wrong == message or outcome(read, wrong) == "not_avro"


@given(schema=schemas(), data=st.data(), sizes=st.booleans())
def test_a_reader_gets_what_the_specification_says(schema: dict[str, Any], data: st.DataObject, sizes: bool) -> None:
    drawn = Data(schema).draw(data.draw, schema)
    mine = Reader(data.draw, schema).schema
    read, mismatches = reading(parse(schema).root, parse(mine).root)
    try:
        expected = repr(Oracle(mine).value(drawn))
    except NoMatch:
        assert outcome(read, write(drawn, sizes)) in SPECIFIED
    else:
        assert repr(read(write(drawn, sizes), 0)) == expected


@given(schema=schemas(), data=st.data(), sizes=st.booleans())
def test_what_is_wanted_is_as_in_the_whole(schema: dict[str, Any], data: st.DataObject, sizes: bool) -> None:
    root = parse(schema).root
    message = write(Data(schema).draw(data.draw, schema), sizes)
    wanted = {field.name: None for field in root.fields if data.draw(st.booleans())}
    whole, part = reading(root, root)[0], reading(root, root, wanted)[0]

    assert repr(part(message, 0)) == repr({name: v for name, v in whole(message, 0).items() if name in wanted})
    assert message == b"" or outcome(part, message[:-1]) == "not_avro"
    assert outcome(part, message + b"\0") == "not_avro"


SPECIFIED = {"wrong_type", "null", "missing", "bad_value", "out_of_range", "not_utf8"}
