"""Rows of Avro data: the generated mapping gives what the interpreted one does, whatever the types are."""

from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from hypothesis import example, given
from hypothesis import strategies as st

from lovelace_streams.avro import AvroDecoder, JsonOrAvro
from lovelace_streams.errors import RecordFault
from lovelace_streams.formats.events import Items
from lovelace_streams.formats.json import JsonDecoder
from lovelace_streams.records import Envelope, Record
from lovelace_streams.rows import From, Row, Skip
from lovelace_streams.rows.interpreter import interpret
from lovelace_streams.rows.normalizer import normalizer
from tests.properties.avro_schemas import LOGICALS, PRIMITIVES, Data, write

NOW = 1_700_000_000_000
COLUMNS = {
    "int": int,
    "text": str,
    "flag": bool,
    "ratio": float,
    "at": datetime,
    "day": date,
    "id": UUID,
    "amount": Decimal,
    "ints": list[int],
    "words": list[str],
    "choice": Literal["A", "B"],
}
TYPES: list[Any] = [
    *PRIMITIVES,
    *LOGICALS,
    {"type": "array", "items": "long"},
    {"type": "array", "items": "string"},
    {"type": "array", "items": "double"},
    {"type": "map", "values": "int"},
]
FITTING = {
    "int": ["int", "long"],
    "text": ["string"],
    "flag": ["boolean"],
    "ratio": ["float", "double", "long"],
    "at": [each for each in LOGICALS if "timestamp" in each["logicalType"]],
    "ints": [{"type": "array", "items": "long"}],
    "words": [{"type": "array", "items": "string"}],
    "day": [{"type": "int", "logicalType": "date"}],
    "id": [{"type": "string", "logicalType": "uuid"}],
    "choice": ["string", {"type": "enum", "name": "Choice", "symbols": ["A", "B", "C"]}],
}


class Plain(Row, table="plain", primary_key="key"):
    key: Annotated[int, From("$.key")]


def row_of(names: list[str]) -> type[Row]:
    hints: dict[str, Any] = {"key": Annotated[int, From("$.key")]}
    hints |= {name: Annotated[COLUMNS[name] | None, From(f"inner.{name}")] for name in names}
    return type(Row)("Made", (Row,), {"__annotations__": hints, "__module__": __name__}, table="t", primary_key="key")


@st.composite
def typed(draw: st.DrawFn, name: str) -> Any:
    fitting = draw(st.integers(0, 9)) and name in FITTING  # one column that does not fit makes all be interpreted
    kind = draw(st.sampled_from(FITTING[name] if fitting else TYPES))
    return kind if kind == "null" or draw(st.booleans()) else ["null", kind]


def ended(make: Any) -> str:
    try:
        return repr(make())
    except RecordFault as fault:
        return str(fault)


@given(data=st.data(), names=st.lists(st.sampled_from(sorted(COLUMNS)), unique=True, max_size=5))
def test_both_ways_of_mapping_agree(data: st.DataObject, names: list[str]) -> None:
    row = row_of(names)
    inner = [{"name": name, "type": data.draw(typed(name))} for name in names]
    fields = [{"name": "inner", "type": {"type": "record", "name": "Inner", "fields": inner}}]
    item = {"type": "record", "name": "Item", "fields": fields}
    schema = {
        "type": "record",
        "name": "Message",
        "fields": [{"name": "key", "type": "long"}, {"name": "d", "type": item}],
    }
    many = data.draw(st.booleans())
    if many:
        schema["fields"][1]["type"] = {
            "type": "record",
            "name": "Chunk",
            "fields": [{"name": "items", "type": {"type": "array", "items": item}}],
        }
    path, base = ("d.items", "$.d.items[]") if many else ("d", "$.d")
    message = write(Data(schema).draw(data.draw, schema))
    oks: list[Envelope[Any]] = []
    AvroDecoder(schema, Items(path, row)).decode(Record("t", 0, 0, 0, 0, None, message, [], NOW), oks, [], [])
    for envelope in oks:
        plain_item, plain_root = envelope.payload.plain()
        expected = ended(lambda: interpret(row, plain_item, envelope.record, plain_root, NOW, base))  # noqa: B023
        assert ended(lambda: normalizer(row).normalize(envelope, NOW)) == expected  # noqa: B023


SCHEMA = {"type": "record", "name": "Message", "fields": [{"name": "key", "type": "long"}]}
NORMALIZER = normalizer(Plain)


@example(value=b"{}", declared=None)
@given(value=st.one_of(st.none(), st.binary(max_size=12)), declared=st.sampled_from([None, 0, 1, 3]))
def test_any_bytes_end_somewhere(value: bytes | None, declared: int | None) -> None:
    record = Record("topic", 0, 0, 0, 0, None, value, [], NOW, declared=declared)
    oks: list[Any] = []
    errs: list[Any] = []
    skipped: list[Any] = []
    JsonOrAvro(JsonDecoder(Plain), AvroDecoder(SCHEMA, Plain)).decode(record, oks, errs, skipped)

    assert record.items == sum(each.count for each in [*oks, *errs, *(envelope for _, envelope in skipped)]) > 0
    for envelope in oks:
        with suppress(RecordFault):  # as of JSON without the key
            assert not isinstance(NORMALIZER.normalize(envelope, NOW), Skip)
