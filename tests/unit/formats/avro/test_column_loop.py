"""Which messages of a chunk become columns, and which are left to be read one by one; and why a flow has none."""

import struct
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Annotated, Any

import pytest

from lovelace_streams.avro import AvroDecoder, Confluent, JsonOrAvro, Schema, SingleObject, parse
from lovelace_streams.columns import AdaptiveLoop, Chunk, Run, Slice
from lovelace_streams.errors import DestinationFault
from lovelace_streams.formats.avro import chunk_reader
from lovelace_streams.formats.avro import columns as avro_columns
from lovelace_streams.formats.decoder import Ports, expecting, sort, sort_chunks
from lovelace_streams.formats.events import Events, Items
from lovelace_streams.formats.json import JsonDecoder
from lovelace_streams.records import Envelope, envelopes_of
from lovelace_streams.rows import From, FromKafka, Row, Skip, rule
from lovelace_streams.rows.interpreter import latest
from lovelace_streams.rows.normalizer import normalizer
from tests.unit.formats.avro.messages import ANN, Member, encoded, record_of
from tests.unit.formats.avro.messages import SCHEMA as MEMBER

NOW = latest(1_700_000_000_000)


class Order(Row, table="orders", primary_key="id"):
    id: int
    note: str | None = "none"
    at: Annotated[datetime | None, FromKafka("timestamp")]


FIRST: dict[str, Any] = {"type": "record", "name": "Order", "fields": [{"name": "id", "type": "int"}]}
NEWEST: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "fields": [{"name": "id", "type": "long"}, {"name": "note", "type": ["null", "string"], "default": None}],
}


class Asked(Confluent):
    """A registry whose answers the test knows."""

    def __init__(self, schemas: dict[int, Any]) -> None:
        super().__init__("http://127.0.0.1:1")
        self.answers = {number: parse(schema) for number, schema in schemas.items()}
        self.asked: list[int] = []

    def schema(self, key: Any) -> Schema:
        self.asked.append(key)
        if key not in self.answers:
            raise DestinationFault("down", f"schema {key}")
        return self.answers[key]


def framed(number: int, schema: Any, datum: Any) -> bytes:
    return struct.pack(">BI", 0, number) + encoded(datum, schema)


def chunk_of(values: list[bytes | None]) -> Chunk:
    count = len(values)
    stamps = [1_700_000_000_000] * count
    return Chunk("orders", 0, 0, range(count), [None] * count, values, stamps, [Run(0, count, 0, 0, [])])


def sorted_by(decoder: AvroDecoder, chunk: Chunk, row: type[Row] = Order) -> tuple[list[int], Ports]:
    """How many rows each slice of a chunk has, and what became of the chunk."""
    chunk.loop = decoder.column_loop(normalizer(row))
    ports = sort_chunks(partial(sort, decoder), [chunk])
    return [len(part) for part in ports.oks if isinstance(part, Slice)], ports


def test_a_schema_that_changes_in_turn_makes_one_slice() -> None:
    framing = Asked({1: FIRST, 2: NEWEST})
    decoder = AvroDecoder(framing, Order, reader=NEWEST)
    values: list[bytes | None] = []
    for number in range(20):
        values.append(framed(1, FIRST, {"id": 2 * number}))
        values.append(framed(2, NEWEST, {"id": 2 * number + 1, "note": "ab"}))
    assert sorted_by(decoder, chunk_of(values))[0] == []  # no schema is known: nothing is asked for by a loop
    sizes, ports = sorted_by(decoder, chunk_of(values))

    assert sizes == [40]
    rows = [each.payload for each in envelopes_of(ports.oks)]
    at = datetime.fromtimestamp(1_700_000_000, UTC)
    assert rows == [Order(id=number, note="ab" if number % 2 else None, at=at) for number in range(40)]
    assert framing.asked == [1, 2]


def windows(
    decoder: Any, values: list[list[bytes | None]], row: type[Row] = Order
) -> tuple[list[list[int]], list[Chunk]]:
    """The ids of the rows of each chunk of a window, and the chunks."""
    loop = decoder.column_loop(normalizer(row))
    chunks = [chunk_of(some) for some in values]
    decoder.expect(chunks)
    found = [[each for rows in loop(chunk, NOW).slices for each in rows.columns.values["id"]] for chunk in chunks]
    return found, chunks


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many messages each call of the library got."""
    found: list[int] = []
    batch = avro_columns.Columns._batch
    monkeypatch.setattr(
        avro_columns.Columns, "_batch", lambda self, data: (found.append(len(data)), batch(self, data))[1]
    )
    return found


def numbered(first: int, count: int) -> list[bytes | None]:
    return [encoded({"id": number, "note": "ab"}, NEWEST) for number in range(first, first + count)]


def test_the_chunks_of_a_window_are_read_together(reads: list[int]) -> None:
    found, chunks = windows(AvroDecoder(NEWEST, Order), [numbered(0, 30), numbered(30, 1), numbered(31, 20)])

    assert reads == [51]
    assert found == [[*range(30)], [30], [*range(31, 51)]]
    assert [[*chunk.items] for chunk in chunks] == [[1] * 30, [1], [1] * 20]


def test_chunks_of_several_schemas_are_read_together(reads: list[int]) -> None:
    decoder = AvroDecoder(SingleObject(FIRST, NEWEST), Order, reader=NEWEST)
    framed = [
        b"\xc3\x01" + parse(schema).fingerprint() + encoded({"id": number, "note": None}, schema)
        for number, schema in enumerate([FIRST, NEWEST] * 40)
    ]
    found, _ = windows(decoder, [framed[:30], framed[30:31], framed[31:]])

    assert sorted(reads) == [40, 40]
    assert found == [[*range(30)], [30], [*range(31, 80)]]


def test_a_large_window_is_read_in_parts(monkeypatch: pytest.MonkeyPatch, reads: list[int]) -> None:
    monkeypatch.setattr(chunk_reader, "MESSAGES_MAX", 50)
    assert windows(AvroDecoder(NEWEST, Order), [numbered(0, 20)] * 5)[0] == [[*range(20)]] * 5
    monkeypatch.setattr(chunk_reader, "BYTES_MAX", len(b"".join(map(bytes, numbered(0, 20)))) * 3)  # type: ignore[arg-type]
    monkeypatch.setattr(chunk_reader, "MESSAGES_MAX", 1000)
    assert windows(AvroDecoder(NEWEST, Order), [numbered(0, 20)] * 5)[0] == [[*range(20)]] * 5
    assert reads == [40, 40, 20, 60, 40]


def test_a_bad_message_costs_the_chunks_beside_it_nothing(reads: list[int]) -> None:
    values = [numbered(200 * chunk, 200) for chunk in range(3)]
    values[1][100] = b"\xff"
    found, chunks = windows(AvroDecoder(NEWEST, Order), values)

    assert found[0] == [*range(200)]
    assert found[2] == [*range(400, 600)]
    assert set(found[1]) >= {*range(200, 296), *range(304, 400)}
    assert 300 not in found[1]
    assert reads[:2] == [600, avro_columns.SOME]


def test_what_a_chunk_alone_would_leave_keeps_the_window_apart(reads: list[int]) -> None:
    with_tombstone = [None, *numbered(1, 19)]
    assert windows(AvroDecoder(NEWEST, Order), [numbered(0, 20), with_tombstone])[0] == [[*range(20)], [*range(1, 20)]]
    decoder = AvroDecoder(NEWEST, Order)
    chunks = [chunk_of(numbered(0, 20)), chunk_of(numbered(20, 20))]
    chunks[1].runs = [Run(0, 20, 0, 0, [], declared=2)]
    decoder.expect(chunks)
    loop = decoder.column_loop(normalizer(Order))
    assert [loop(chunk, NOW).left for chunk in chunks] == [[], [*range(20)]]
    assert reads == [20, 19, 20]


def test_a_chunk_that_nobody_expected_is_read_alone(reads: list[int]) -> None:
    decoder = AvroDecoder(NEWEST, Order)
    loop = decoder.column_loop(normalizer(Order))
    first, second, third = (chunk_of(numbered(20 * number, 20)) for number in range(3))
    decoder.expect([first, second])
    assert [len(loop(chunk, NOW).slices[0]) for chunk in (third, second, third)] == [20, 20, 20]
    decoder.expect([third])
    assert [len(loop(chunk, NOW).slices[0]) for chunk in (first, third, third)] == [20, 20, 20]
    assert reads == [20] * 6


def test_a_window_goes_on_when_its_schema_becomes_known() -> None:
    decoder = AvroDecoder(Asked({1: FIRST}), Order, reader=NEWEST)
    values: list[bytes | None] = [framed(1, FIRST, {"id": number}) for number in range(20)]
    chunks = [chunk_of(values) for _ in range(4)]
    for chunk in chunks:
        chunk.loop = decoder.column_loop(normalizer(Order))
    ports = expecting(decoder, partial(sort_chunks, partial(sort, decoder)))(chunks)

    assert [type(part) for part in ports.oks] == [Envelope] * 20 + [Slice] * 3
    assert [each.payload.id for each in envelopes_of(ports.oks[20:])] == [*range(20)] * 3


def test_what_a_registry_does_not_give_is_left_in_its_place() -> None:
    decoder = AvroDecoder(Asked({1: FIRST}), Order, reader=NEWEST)
    known, unknown = framed(1, FIRST, {"id": 1}), framed(9, FIRST, {"id": 1})
    sorted_by(decoder, chunk_of([known] * 20))
    chunk = chunk_of([known] * 20 + [unknown] * 20 + [known] * 20)
    mapped = decoder.column_loop(normalizer(Order))(chunk, NOW)

    assert (mapped.left, mapped.untried) == (list(range(20, 40)), 20)
    assert [len(rows) for rows in mapped.slices] == [40]


def test_a_loop_does_not_pause_for_a_schema_that_is_asked_for_now() -> None:
    decoder = AvroDecoder(Asked({1: FIRST, 2: NEWEST}), Order, reader=NEWEST)
    loop = AdaptiveLoop(decoder.column_loop(normalizer(Order)))
    values: list[bytes | None] = [framed(2, NEWEST, {"id": 1, "note": None})] * 20
    columns = []
    for _ in range(3):
        chunk = chunk_of(values)
        chunk.loop = loop
        columns.append(sum(isinstance(part, Slice) for part in sort_chunks(partial(sort, decoder), [chunk]).oks))

    assert columns == [0, 1, 1]


EVENTS = {
    "type": "record",
    "name": "Event",
    "fields": [{"name": "t", "type": "string"}, {"name": "id", "type": "long"}],
}


class Plain(Row, table="orders", primary_key="id"):
    id: int


class Judged(Row, table="orders", primary_key="id"):
    id: int

    def __post_init__(self) -> None:
        assert self.id


def test_messages_of_an_event_that_needs_items_are_left() -> None:
    events = Events("t", {"order": Items("$", Plain), "judged": Items("$", Judged)}, Skip("unknown_event"))
    values: list[bytes | None] = [encoded({"t": ("order", "judged")[n % 2], "id": n}, EVENTS) for n in range(40)]
    mapped = AvroDecoder(EVENTS, events).column_loop(normalizer([Plain, Judged]))(chunk_of(values), NOW)

    assert mapped.left == list(range(1, 40, 2))
    assert [row.id for rows in mapped.slices for _, _, row in rows.columns.rows(0, 20)] == list(range(0, 40, 2))


def test_a_topic_of_both_formats_makes_columns_of_either() -> None:
    avro = AvroDecoder(Asked({1: FIRST}), Order, reader=NEWEST)
    both = JsonOrAvro(JsonDecoder(Order), avro)
    sorted_by(avro, chunk_of([framed(1, FIRST, {"id": 0})] * 20))  # now the schema is known
    loop = both.column_loop(normalizer(Order))
    first: list[bytes | None] = [framed(1, FIRST, {"id": number}) for number in range(20)]
    second: list[bytes | None] = [b'{"id": %d}' % number for number in range(20)]

    for values, left in [
        (first, []),
        (second, []),
        (first + second, list(range(20, 40))),
        (second + first, list(range(20, 40))),
    ]:
        mapped = loop(chunk_of(values), NOW)
        assert mapped.left == left
        assert [list(rows.columns.values["id"]) for rows in mapped.slices] == [list(range(20))]


def test_the_avro_chunks_of_a_topic_of_both_formats_are_read_together(reads: list[int]) -> None:
    framing = SingleObject(NEWEST)
    values = [b"\xc3\x01" + framing.schemas[0].fingerprint() + (each or b"") for each in numbered(0, 40)]
    texts: list[bytes | None] = [b'{"id": %d}' % number for number in range(40, 60)]
    both = JsonOrAvro(JsonDecoder(Order), AvroDecoder(framing, Order))

    assert windows(both, [values[:20], texts, values[20:]])[0] == [[*range(20)], [*range(40, 60)], [*range(20, 40)]]
    assert reads == [40]


def test_a_topic_of_both_formats_of_which_one_makes_columns() -> None:
    both = JsonOrAvro(JsonDecoder(Order), AvroDecoder(Asked({1: FIRST}), Order, reader=NEWEST, at_once=False))
    loop = both.column_loop(normalizer(Order))

    assert loop(chunk_of([b'{"id": 1}'] * 20), NOW).left == []
    assert loop(chunk_of([framed(1, FIRST, {"id": 1})] * 20), NOW).left == list(range(20))
    assert both.needs_items(normalizer(Order)) == {"": ""}
    neither = JsonOrAvro(JsonDecoder(Judged), AvroDecoder(FIRST, Judged))
    assert neither.needs_items(normalizer(Judged)) == {"": "Judged has __post_init__, which looks at each row"}


GOOD = encoded({"id": 7, "note": "ab"}, NEWEST)


@pytest.mark.parametrize(
    ("odd", "ended"),
    [
        pytest.param(None, "tombstone", id="tombstone"),
        pytest.param(GOOD + b"\0", "not_avro", id="bytes left over"),
        pytest.param(GOOD[:-1], "not_avro", id="ends too early"),
        pytest.param(GOOD.replace(b"ab", b"\xff\xfe"), "not_utf8", id="not UTF-8"),
        pytest.param(b"", "not_avro", id="empty"),
    ],
)
def test_what_is_odd_leaves_alone(odd: bytes | None, ended: str) -> None:
    values: list[bytes | None] = [GOOD] * 300
    values[0] = values[150] = values[299] = odd
    sizes, ports = sorted_by(AvroDecoder(NEWEST, Order), chunk_of(values))

    assert sum(sizes) > 300 - 3 * 8  # halving leaves some beside each
    assert len(envelopes_of(ports.oks)) == 297
    assert [str(letter.reason) for letter in ports.errs] + [reason for reason, _ in ports.skipped] == [ended] * 3


def test_a_text_with_a_nul_is_left() -> None:
    values: list[bytes | None] = [GOOD] * 20
    values[7] = GOOD.replace(b"ab", b"a\0")
    mapped = AvroDecoder(NEWEST, Order).column_loop(normalizer(Order))(chunk_of(values), NOW)

    assert mapped.left == [7]


def test_what_was_read_in_vain_is_not_read_at_once_again(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = AvroDecoder(NEWEST, Order)
    reads: list[int] = []
    read = decoder._read_ahead  # noqa: SLF001 - what costs a second time
    monkeypatch.setattr(decoder, "_read_ahead", lambda *seen: (reads.append(len(seen[2])), read(*seen)))
    sizes, ports = sorted_by(decoder, chunk_of([GOOD + b"\0"] * 100))

    assert (sizes, len(ports.errs), reads) == ([], 100, [])


def test_a_class_with_a_rule_takes_structs() -> None:
    class Small(Row, table="small", primary_key="id"):
        id: int

        @rule("id")
        def is_small(self) -> bool:
            return self.id < 9

    values: list[bytes | None] = [encoded({"id": number, "note": None}, NEWEST) for number in range(20)]
    chunk = chunk_of(values)
    mapped = AvroDecoder(NEWEST, Small).column_loop(normalizer(Small))(chunk, NOW)

    assert [list(rows.columns.values["id"]) for rows in mapped.slices] == [list(range(9))]
    assert mapped.left == list(range(9, 20))


def test_a_member_is_all_columns() -> None:
    values: list[bytes | None] = [encoded()] * 40
    sizes, ports = sorted_by(AvroDecoder(MEMBER, Items("member", Member)), chunk_of(values), Member)

    assert sizes == [40]
    assert [each.payload for each in envelopes_of(ports.oks)] == [ANN] * 40


AMOUNT = {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}


class Paid(Row, table="paid", primary_key="f0"):
    f0: int
    f1: Decimal | None


class Many(Row, table="many", primary_key="f0"):
    f0: int


def in_record(name: str) -> Any:
    return record_of("int", {"type": "array", "items": record_of("int", name=name)})


@pytest.mark.parametrize(
    ("decoder", "row", "reason"),
    [
        (lambda: AvroDecoder(record_of("int", AMOUNT), Paid), Paid, "decimal"),
        (lambda: AvroDecoder(record_of("int", ["int", "string"]), Many), Many, "a union of int or string"),
        (lambda: AvroDecoder(record_of("int", {"type": "map", "values": "int"}), Many), Many, "map"),
        (
            lambda: AvroDecoder(SingleObject(record_of("int", "bytes")), Many, reader=record_of("int", "bytes")),
            Many,
            "bytes",
        ),
        (lambda: AvroDecoder(in_record("S"), Items("f1", Many)), Many, "an array of S"),
        (lambda: AvroDecoder(NEWEST, Order, at_once=False), Order, "AvroDecoder reads one by one: at_once=False"),
        (lambda: AvroDecoder(NEWEST, len), Order, "items become rows by a function, len"),
    ],
)
def test_why_there_are_no_columns(decoder: Callable[[], AvroDecoder], row: type[Row], reason: str) -> None:
    assert decoder().needs_items(normalizer(row)) == {"": reason}


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyruhvro", None)
    found = AvroDecoder(NEWEST, Order).needs_items(normalizer(Order))
    assert found == {"": "the extra avro-columns is not installed"}


class One(Row, table="ones", primary_key="id"):
    id: Annotated[int, From("f1")]


class Passed(Row, table="passed", primary_key="f1"):
    f1: int
    f2: dict[str, Any] | None


def test_one_event_of_a_topic_may_have_columns() -> None:
    schema = record_of("string", "int", ["null", "string"])
    events = Events("f0", {"one": Items("$", One), "passed": Items("$", Passed)}, Skip("unknown_event"))
    values: list[bytes | None] = [encoded({"f0": name, "f1": 1, "f2": None}, schema) for name in ["one", "passed"] * 20]
    decoder, mapper = AvroDecoder(schema, events), normalizer(One, Passed)
    mapped = decoder.column_loop(mapper)(chunk_of(values), NOW)
    needs = decoder.needs_items(mapper)

    assert (needs["one"], bool(needs["passed"])) == ("", True)
    assert mapped.left == list(range(1, 40, 2))
    assert [len(rows) for rows in mapped.slices] == [20]
