"""JSON that is passed on is stored as it was sent: every digit, every kind of value, by every way and every writer."""

import base64
import io
import json
import math
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import clickhouse_connect
import fastavro
import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lovelace_streams.avro import AvroDecoder
from lovelace_streams.errors import RecordFault
from lovelace_streams.formats.json import JsonDecoder
from lovelace_streams.records import Envelope, Record
from lovelace_streams.rows import Before, From, Row
from lovelace_streams.rows.json_values import json_text
from lovelace_streams.rows.normalizer import normalizer
from lovelace_streams.rows.values import parse
from lovelace_streams.settings import ClickHouseSettings, PostgresSettings
from lovelace_streams.writers import Entry, RowOutcome, sequence_of
from lovelace_streams.writers.clickhouse import ClickHouseWriter
from lovelace_streams.writers.clickhouse import ddl as clickhouse_ddl
from lovelace_streams.writers.memory import MemoryWriter
from lovelace_streams.writers.postgres import PostgresWriter
from tests.examples import examples
from tests.properties.avro_schemas import Data, schemas, write

NOW = 1_700_000_000_000


class Held(msgspec.Struct):
    n: Any


class Amounts(msgspec.Struct):
    n: Decimal
    at: datetime | None = None


class Document(Row, table="documents", primary_key="id"):
    id: int
    data: dict
    whole: Annotated[Any, From("data")]
    part: Annotated[Any | None, From("data.n")]
    many: Annotated[list[dict], From("list")]
    loose: Annotated[list[Any], From("list")]
    held: Annotated[Held, From("data")]
    before: Annotated[dict, From("data"), Before(lambda value: value)]
    after: Annotated[dict, From("data"), lambda value: value]


COLUMNS = ("data", "whole", "part", "many", "loose", "held", "before", "after")


def by_function(item: dict[str, Any]) -> Document:
    data, many = item["data"], item["list"]
    return Document(
        id=item["id"], data=data, whole=data, part=data["n"], many=many, loose=many, held=Held(data["n"]), before=data,
        after=data,
    )  # fmt: skip


NUMBERS = st.one_of(
    st.sampled_from(
        [
            "1234567890.12345678901", "19.999999999999999999", "18446744073709551615", "1e400", "-0.0", "1E5", "1.10",
            "-0", "1e-7", "1e-16383", "1e-16384", "1e131071", "1e131072", "0e200000",
            "0e-20000", "0.1", "1e22", "123456789012345680.0", "-9223372036854775809", "9" * 400, "1e-400",
            "1e-99999999999999999999", "1e99999999999999999999", "5e-324", "0.10000000000000000555",
        ]
    ),
    st.from_regex(r"\A-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?\Z"),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
)  # fmt: skip
"""Numbers as texts: how a number is spelled is what may be lost."""
LETTERS = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=4)


def spelled(value: dict[str, str] | list[str]) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(value) + "]"
    return "{" + ",".join(f"{json.dumps(name)}: {inner}" for name, inner in value.items()) + "}"


SELECTED = ", ".join(f"{name}::jsonb::text" for name in COLUMNS)
JSON = st.recursive(
    st.one_of(NUMBERS, NUMBERS, LETTERS.map(json.dumps), st.sampled_from(["null", "true", "false"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(spelled), st.dictionaries(LETTERS, inner, max_size=3).map(spelled)
    ),
    max_leaves=5,
)
FEW = settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def rows_of(decoder: Any, value: bytes) -> list[Any]:
    """The row of a message by each way of mapping, or the fault."""
    oks: list[Envelope[Any]] = []
    decoder.decode(Record("t", 0, 0, 0, 0, None, value, [], NOW), oks, [], [])
    [envelope] = oks
    ends = [ended(make, envelope) for make in (normalizer(Document).normalize, normalizer(Document).interpret)]
    assert repr(ends[0]) == repr(ends[1])
    return ends


def ended(make: Any, envelope: Envelope[Any]) -> Any:
    try:
        return make(envelope, NOW)
    except RecordFault as fault:
        return fault


@pytest.fixture
def documents(database: str):
    with psycopg.connect(database, autocommit=True) as connection:
        types = ", ".join(f"{name} {'json' if name == 'before' else 'jsonb'}" for name in COLUMNS)
        connection.execute(f"create table documents (id bigint primary key, {types})")
        writer = PostgresWriter(PostgresSettings(database), Document)
        writer.open()
        yield connection, writer
        writer.close()


@FEW
@given(texts=st.lists(JSON, min_size=1, max_size=3))
def test_any_json_is_stored_as_postgres_itself_would_store_it(documents, texts: list[str]) -> None:
    connection, writer = documents
    connection.execute("truncate documents")
    for number, text in enumerate(texts):
        data = f'{{"n": {text}, "twice": 1, "twice": 2}}'
        try:
            (wanted,) = connection.execute("select %s::jsonb::text", [data]).fetchone()
        except psycopg.errors.DataError:
            wanted = None
        part = connection.execute("select %s::jsonb::text", [text]).fetchone()[0] if wanted else None
        held = connection.execute("select %s::jsonb::text", [f'{{"n": {text}}}']).fetchone()[0] if wanted else None
        message = f'{{"id": {number}, "data": {data}, "list": [{data}, {{}}]}}'.encode()
        for row in rows_of(JsonDecoder(Document), message) + rows_of(JsonDecoder(by_function), message):
            if wanted is None:
                assert str(row.reason) == "out_of_range"
                continue
            assert writer.write([Entry(row, sequence=sequence_of(number, 0))]) == [RowOutcome.WRITTEN]
            stored = connection.execute(f"select {SELECTED} from documents where id = %s", [number]).fetchone()
            many = f"[{wanted}, {{}}]"
            assert stored == (wanted, wanted, None if part == "null" else part, many, many, held, wanted, wanted)


# ---- without a server ------------------------------------------------------------------------------------------------


@given(text=JSON)
@settings(max_examples=examples(200))
def test_any_json_leaves_by_the_text_of_every_writer_as_it_came(text: str) -> None:
    data = f'{{"n": {text}}}'
    for row in rows_of(JsonDecoder(Document), f'{{"id": 1, "data": {data}, "list": [{data}]}}'.encode()):
        if isinstance(row, RecordFault):
            assert str(row.reason) == "out_of_range"
            continue
        for name in ("data", "whole", "held", "before", "after"):
            assert exact(json_text(getattr(row, name))) == exact(data)
        assert exact(json_text(row.many)) == exact(json_text(row.loose)) == exact(f"[{data}]")


def exact(text: str) -> Any:
    """JSON with its numbers exactly."""
    return parse(text)


@pytest.mark.parametrize("number", ["1.10", "100.000", "0.0000001", "18446744073709551615", "1E+5"])
def test_zeros_and_exponents_are_digits_too(number: str) -> None:
    for row in rows_of(JsonDecoder(Document), f'{{"id": 1, "data": {{"n": {number}}}, "list": []}}'.encode()):
        assert json_text(row.data) == f'{{"n":{Decimal(number)}}}'


def test_functions_get_floats_that_every_library_takes() -> None:
    class Price(msgspec.Struct):
        net: float

    class Priced(Row, table="priced", primary_key="id"):
        id: int
        amount: Decimal
        twice: float
        text: str
        data: Annotated[dict | None, From("data"), lambda value: msgspec.json.decode(msgspec.json.encode(value))]

    def priced(item: dict[str, Any]) -> Priced:
        net = msgspec.convert(item, Price).net
        return Priced(id=1, amount=item["net"], twice=net * 2, text=msgspec.json.encode(item).decode(), data=item)

    oks: list[Envelope[Any]] = []
    message = Record("t", 0, 0, 0, 0, None, b'{"net": 19.999999999999999999}', [], NOW)
    JsonDecoder(priced).decode(message, oks, [], [])
    row = normalizer(priced).normalize(oks[0], NOW)
    assert (row.amount, row.twice, row.text) == (Decimal("19.999999999999999999"), 40.0, '{"net":20.0}')
    assert json_text(row.data) == '{"net":19.999999999999999999}'
    encoded = Priced.from_raw({"id": 1, "amount": 1, "twice": 1, "text": "", "data": {"n": Decimal("1.50")}})
    assert json_text(encoded.data) == '{"n":1.5}'


# ---- ClickHouse, memory ----------------------------------------------------------------------------------------------


class Kept(Row, table="kept", primary_key="id", version="id"):
    id: int
    data: dict
    amounts: Annotated[Amounts | None, From("data")]
    nullable: Annotated[list[Decimal | None], From("data.list")]


TEXT = '{"n": 19.999999999999999999, "list": [1.10, null], "big": 18446744073709551615, "at": "2020-01-02T03:04:05Z"}'


def kept() -> Kept:
    oks: list[Envelope[Any]] = []
    decoded = Record("t", 0, 0, 0, 0, None, f'{{"id": 1, "data": {TEXT}}}'.encode(), [], NOW)
    JsonDecoder(Kept).decode(decoded, oks, [], [])
    return normalizer(Kept).normalize(oks[0], NOW)


AMOUNTS = '{"n": 19.999999999999999999, "at": "2020-01-02T03:04:05Z"}'


def test_clickhouse_gets_the_same_text(clickhouse: str) -> None:
    with clickhouse_connect.get_client(dsn=clickhouse) as client:
        client.command(clickhouse_ddl.create_table(Kept).rstrip(";"))
        writer = ClickHouseWriter(ClickHouseSettings(clickhouse), Kept)
        writer.open()
        assert writer.write([Entry(kept(), sequence=sequence_of(0, 0))]) == [RowOutcome.WRITTEN]
        writer.close()
        [row] = client.query("select data, amounts, nullable from kept").result_rows
    assert [exact(text) for text in row] == [exact(TEXT), exact(AMOUNTS), exact("[1.10, null]")]


def test_memory_keeps_the_same_text() -> None:
    writer = MemoryWriter(Kept)
    assert writer.write([Entry(kept())]) == [RowOutcome.WRITTEN]
    [row] = writer.table.values()
    texts = [json_text(row[name]) for name in ("data", "amounts", "nullable")]
    assert [exact(text) for text in texts] == [exact(TEXT), exact(AMOUNTS), exact("[1.10, null]")]


def test_postgres_gets_the_same_text(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("create table kept (id bigint primary key, data jsonb, amounts jsonb, nullable jsonb)")
        writer = PostgresWriter(PostgresSettings(database), Kept)
        writer.open()
        assert writer.write([Entry(kept())]) == [RowOutcome.WRITTEN]
        writer.close()
        found = connection.execute("select data::text, amounts::text, nullable::text from kept").fetchone()
        wanted = connection.execute("select %s::jsonb::text, %s::jsonb::text", [TEXT, AMOUNTS]).fetchone()
    assert found == (*wanted, "[1.10, null]")


# ---- Avro ------------------------------------------------------------------------------------------------------------


class FromAvro(Row, table="avro", primary_key="id"):
    id: int
    data: Any
    mapped: Annotated[dict | None, From("data.map")]
    listed: Annotated[list[Any] | None, From("data.list")]


def json_form(value: Any) -> Any:
    """What docs/rows.md says of each kind of value, fractions as Decimals; raises `ValueError` if it refuses it."""
    if isinstance(value, dict):
        return {json_form(name): json_form(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [json_form(inner) for inner in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        text = value.isoformat()
        return text.replace("+00:00", "Z")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError
        return Decimal(repr(value))
    if isinstance(value, str) and "\0" in value:
        raise ValueError
    return value


@given(data=st.data(), inner=schemas())
@settings(max_examples=examples(200))
def test_any_avro_value_has_the_json_form_of_the_documentation(data: st.DataObject, inner: dict[str, Any]) -> None:
    schema = {
        "type": "record",
        "name": "Message",
        "fields": [
            {"name": "id", "type": "long"},
            {
                "name": "data",
                "type": {
                    "type": "record",
                    "name": "Data",
                    "fields": [
                        {"name": "map", "type": {"type": "map", "values": inner}},
                        {"name": "list", "type": {"type": "array", "items": inner["name"]}},
                    ],
                },
            },
        ],
    }
    message = write(Data(schema).draw(data.draw, schema))
    for reader in (None, schema):
        oks: list[Envelope[Any]] = []
        AvroDecoder(schema, FromAvro, reader=reader).decode(
            Record("t", 0, 0, 0, 0, None, message, [], NOW), oks, [], []
        )
        for envelope in oks:
            plain, root = envelope.payload.plain()
            try:
                wanted = json_form(plain["data"])
            except ValueError:
                wanted = None
            for make in (normalizer(FromAvro).normalize, normalizer(FromAvro).interpret):
                row = ended(make, envelope)
                if wanted is None:
                    assert str(row.reason) in ("out_of_range", "bad_value")
                    continue
                read = [parse(json_text(value)) for value in (row.data, row.mapped, row.listed)]
                assert read == [wanted, wanted["map"], wanted["list"]]


AVRO = {
    "type": "record",
    "name": "Message",
    "fields": [
        {"name": "id", "type": "long"},
        {
            "name": "data",
            "type": {
                "type": "record",
                "name": "Data",
                "fields": [
                    {
                        "name": "amount",
                        "type": {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 12},
                    },
                    {"name": "day", "type": {"type": "int", "logicalType": "date"}},
                    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
                    {"name": "local", "type": {"type": "long", "logicalType": "local-timestamp-millis"}},
                    {"name": "time", "type": {"type": "int", "logicalType": "time-millis"}},
                    {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
                    {"name": "raw", "type": "bytes"},
                    {"name": "fixed", "type": {"type": "fixed", "name": "F", "size": 2}},
                    {
                        "name": "duration",
                        "type": {"type": "fixed", "name": "Duration", "size": 12, "logicalType": "duration"},
                    },
                    {"name": "enum", "type": {"type": "enum", "name": "E", "symbols": ["A", "B"]}},
                    {"name": "ratio", "type": "double"},
                    {"name": "map", "type": {"type": "map", "values": ["null", "double"]}},
                ],
            },
        },
    ],
}
DATUM = {
    "amount": Decimal("123456789012345678.100000000000"),
    "day": date(2020, 1, 2),
    "at": datetime(2020, 1, 2, 3, 4, 5, 600, tzinfo=UTC),
    "local": datetime(2020, 1, 2, 3, 4, 5),  # noqa: DTZ001 - it has none
    "time": time(3, 4, 5, 600_000),
    "id": UUID(int=7),
    "raw": b"\xff\0a",
    "fixed": b"\1\2",
    "duration": b"\1" * 12,
    "enum": "B",
    "ratio": 0.1,
    "map": {"x": 1.5, "y": None},
}


def test_the_documented_table_of_avros_values(database: str) -> None:
    class Stored(Row, table="stored", primary_key="id"):
        id: int
        data: dict

    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, AVRO, {"id": 1, "data": DATUM})
    oks: list[Envelope[Any]] = []
    AvroDecoder(AVRO, Stored).decode(Record("t", 0, 0, 0, 0, None, stream.getvalue(), [], NOW), oks, [], [])
    row = normalizer(Stored).normalize(oks[0], NOW)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("create table stored (id bigint primary key, data jsonb)")
        writer = PostgresWriter(PostgresSettings(database), Stored)
        writer.open()
        assert writer.write([Entry(row)]) == [RowOutcome.WRITTEN]
        writer.close()
        found = dict(connection.execute("select key, value::text from stored, jsonb_each(data)").fetchall())
    assert found == {
        "amount": "123456789012345678.100000000000",
        "day": '"2020-01-02"',
        "at": '"2020-01-02T03:04:05.000600Z"',
        "local": '"2020-01-02T03:04:05"',
        "time": '"03:04:05.600000"',
        "id": '"00000000-0000-0000-0000-000000000007"',
        "raw": '"/wBh"',
        "fixed": '"AQI="',
        "duration": '"AQEBAQEBAQEBAQEB"',
        "enum": '"B"',
        "ratio": "0.1",
        "map": '{"x": 1.5, "y": null}',
    }


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_has_no_word_for_is_refused(number: float) -> None:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, AVRO, {"id": 1, "data": {**DATUM, "map": {"x": number}}})
    oks: list[Envelope[Any]] = []
    AvroDecoder(AVRO, FromAvro).decode(Record("t", 0, 0, 0, 0, None, stream.getvalue(), [], NOW), oks, [], [])
    with pytest.raises(RecordFault, match="out_of_range"):
        normalizer(FromAvro).normalize(oks[0], NOW)


def test_a_struct_that_a_function_made_is_held_to_the_same() -> None:
    def made(item: Any) -> Any:
        return Document(
            id=1, data={}, whole={}, part=None, many=[], loose=[], held=Held(item["x"]), before={}, after={}
        )

    oks: list[Envelope[Any]] = []
    JsonDecoder(made).decode(Record("t", 0, 0, 0, 0, None, b'{"x": "a\\u0000"}', [], NOW), oks, [], [])
    with pytest.raises(RecordFault, match="bad_value"):
        normalizer(made).normalize(oks[0], NOW)
