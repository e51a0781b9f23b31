"""Avro messages to items: what decodes, by type or plainly, and what does not."""

import math
import struct
from pathlib import Path
from typing import Annotated, Any

import pytest
from bytewax.dataflow import Dataflow
from hypothesis import given
from hypothesis import strategies as st

import lovelace_streams as ls
from lovelace_streams import KafkaSettings, KafkaSource
from lovelace_streams.avro import AvroDecoder, JsonOrAvro, SingleObject, parse
from lovelace_streams.errors import DeploymentFault, RecordFault
from lovelace_streams.formats.events import Items
from lovelace_streams.formats.json import JsonDecoder
from lovelace_streams.records import Record
from lovelace_streams.rows import From, Row
from lovelace_streams.rows.normalizer import normalizer
from tests.unit.formats.avro.messages import (
    ANN,
    MILLIS,
    MOMENT,
    NEW,
    PATH,
    SCHEMA,
    Member,
    Order,
    encoded,
    ends,
    letters,
    record_of,
)

LOCAL = AvroDecoder(PATH, Items("member", Member))


def test_a_local_schema() -> None:
    assert ends(LOCAL, encoded()) == [ANN]
    assert ends(AvroDecoder(SCHEMA, Items("member", Member)), encoded(), declared=1) == [ANN]


@pytest.mark.parametrize("value", [b"", b"\xff" * 20, encoded()[:-1], encoded() + b"\0", b"{}", encoded()[3:]])
def test_what_is_not_avro(value: bytes) -> None:
    assert ends(LOCAL, value, declared=7) == [("not_avro", 7)]


def test_tombstones_are_skipped() -> None:
    assert ends(LOCAL, None, declared=3) == [("tombstone", 3)]


@given(st.binary(max_size=60))
def test_any_bytes_end_somewhere(value: bytes) -> None:
    record = Record("topic", 0, 0, 0, 0, None, value, [], 0)
    oks: list[Any] = []
    errs: list[Any] = []
    LOCAL.decode(record, oks, errs, [])

    assert len(oks) + len(errs) == record.items == 1


def test_a_schema_that_is_not_there_is_the_deployments_fault(tmp_path: Path) -> None:
    with pytest.raises(DeploymentFault, match=r"gone\.avsc"):
        AvroDecoder(tmp_path / "gone.avsc", Member)


def test_a_decoder_that_may_have_to_wait_wants_the_source() -> None:
    source = KafkaSource(KafkaSettings("127.0.0.1:9092"), topics=["raw"])
    flow = Dataflow("flow")
    raw = ls.kafka_source("kafka", flow, source)
    decoder = AvroDecoder("http://127.0.0.1:1", Member)
    with pytest.raises(DeploymentFault, match="hand it the source"):
        ls.decode("without", raw, decoder)

    assert ls.decode("with", raw, decoder, source).oks
    assert ls.decode("local", raw, LOCAL).oks


class Whole(Row, table="wholes", primary_key="id"):
    id: int
    all: Annotated[dict[str, Any], From("$")]


class WholeItem(Row, table="wholes", primary_key="id"):
    id: int
    all: Annotated[dict[str, Any], From(".")]


@pytest.mark.parametrize("row", [Whole, WholeItem])
def test_a_column_of_the_whole_message_has_all_of_it(row: type[Row]) -> None:
    schema = {
        "type": "record",
        "name": "Both",
        "fields": [{"name": "id", "type": "long"}, {"name": "text", "type": "string"}],
    }
    both = {"id": 1, "text": "x"}
    oks: list[Any] = []
    AvroDecoder(schema, row).decode(Record("t", 0, 0, 0, 0, None, encoded(both, schema), [], 0), oks, [], [])

    assert normalizer(row).normalize(oks[0], 0) == row(id=1, all=both)


def test_what_no_row_reads_is_skipped() -> None:
    class Narrow(Row, table="narrow", primary_key="id"):
        id: Annotated[int, From("user.id")]

    user = record_of("long", MOMENT, name="U")
    user["fields"][0]["name"] = "id"
    schema = {"type": "record", "name": "R", "fields": [{"name": "user", "type": user}, {"name": "x", "type": MILLIS}]}
    oks: list[Any] = []
    AvroDecoder(schema, Narrow).decode(Record("t", 0, 0, 0, 0, None, b"\x0e\x02\x01", [], 0), oks, [], [])

    assert oks[0].payload.plain()[0] == {"user": {"id": 7}}


def test_items_are_decoded_by_type_where_their_values_are_as_json_has_them() -> None:
    class Named(Row, table="named", primary_key="f0"):
        f0: int
        f1: str | None
        f2: float

    decoder = AvroDecoder(record_of("long", ["null", "string"], "double"), Named)
    ends: list[Any] = []
    for text, number in ((b"\x02\x02a", 1.5), (b"\0", 1.5), (b"\x02\x02\0", 1.5), (b"\0", math.nan), (b"\0", math.inf)):
        value = b"\x0e" + text + struct.pack("<d", number)
        decoder.decode(Record("t", 0, 0, 0, 0, None, value, [], 0), ends, [], [])

    assert [envelope.payload.item is not None for envelope in ends] == [True, True, False, False, False]
    assert normalizer(Named).normalize(ends[0], 0) == Named(f0=7, f1="a", f2=1.5)
    assert normalizer(Named).normalize(ends[1], 0) == Named(f0=7, f1=None, f2=1.5)
    with pytest.raises(RecordFault, match="NUL"):
        normalizer(Named).normalize(ends[2], 0)
    for envelope in ends[3:]:
        with pytest.raises(RecordFault, match="not finite"):
            normalizer(Named).normalize(envelope, 0)


def test_items_of_a_list_are_decoded_by_type_each_by_itself() -> None:
    class Line(Row, table="lines", primary_key=("order", "number")):
        order: Annotated[int, From("$.id")]
        number: int

    item = {"type": "record", "name": "Line", "fields": [{"name": "number", "type": ["long", "double"]}]}
    lines = {"name": "lines", "type": {"type": "array", "items": item}}
    schema = {"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}, lines]}
    value = b"\x0e" + b"\x06" + b"\0\x02" + b"\x02" + struct.pack("<d", 1.5) + b"\0\x04" + b"\0"
    ends: list[Any] = []
    AvroDecoder(schema, Items("lines", Line)).decode(Record("t", 0, 0, 0, 0, None, value, [], 0), ends, [], [])

    assert [envelope.payload.item is not None for envelope in ends] == [True, False, True]
    assert normalizer(Line).normalize(ends[0], 0) == Line(order=7, number=1)
    with pytest.raises(RecordFault, match="expected int, got float"):
        normalizer(Line).normalize(ends[1], 0)
    assert normalizer(Line).normalize(ends[2], 0) == Line(order=7, number=2)


def test_a_record_that_is_not_the_flows_own() -> None:
    other = record_of("long", name="shop.Customer")
    detail = "it is of shop.Customer, the flow reads shop.Order"
    assert letters(AvroDecoder(other, Order, reader=NEW), b"\x0e") == [("unknown_schema", detail)]
    assert letters(AvroDecoder(other, Order, reader={**NEW, "aliases": ["Customer"]}), b"\x0e") == [{"f0": 7}]


def test_json_and_avro_in_one_topic() -> None:
    both = JsonOrAvro(JsonDecoder(Order), AvroDecoder(SingleObject(NEW), Order))
    assert letters(both, b"\xc3\x01" + parse(NEW).fingerprint() + b"\x0e") == [{"f0": 7}]
    assert letters(both, b'{"f0": 7}') == [{"f0": 7}]
    assert letters(both, b"\0\0")[0][0] == "not_avro"
    assert letters(both, b"hello")[0][0] == "not_json"
    assert not both.waits
