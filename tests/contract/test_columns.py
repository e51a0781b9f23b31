"""One contract, all formats that give columns: a chunk ends as its messages do one by one, whichever of them are bad.

A format joins by a case class: how its decoder is made, how a message is written, and messages that it refuses.
"""

from decimal import Decimal
from functools import partial
from typing import Annotated, Any

import pytest

from lovelace_streams.avro import AvroDecoder, JsonOrAvro, SingleObject
from lovelace_streams.columns import Chunk, ColumnLoop, EncodingLoop, Slice
from lovelace_streams.formats.avro import Schema, parse
from lovelace_streams.formats.decoder import Ports, SupportsColumns, expecting, sort, sort_chunks
from lovelace_streams.formats.events import Events, Items
from lovelace_streams.formats.json import JsonDecoder
from lovelace_streams.formats.made_again import MakeAgain
from lovelace_streams.kafka.headers import chunk_of, records_of
from lovelace_streams.operators.normalize import sort as map_rows
from lovelace_streams.records import Envelope
from lovelace_streams.rows import From, FromKafka, Row, Skip, rule
from lovelace_streams.rows.normalizer import normalizer
from lovelace_streams.runtime.in_flight import Assignment, InFlight
from lovelace_streams.testing import Message, avro
from lovelace_streams.testing.broker import StoredMessage

COUNT = 24
"""Messages of a chunk."""
BIG = "x" * 1_000_000


class Order(Row, table="orders", primary_key="id"):
    id: int
    name: str | None
    key: Annotated[str | None, FromKafka("key")]
    offset: Annotated[int, FromKafka("offset")]
    read_at: Annotated[int | None, FromKafka("timestamp")]

    @rule("name")
    def is_not_refused(self) -> bool:
        return self.name != "refused"


class JsonCase:
    """`value` writes a message of one item, `many` one of several, which lie at `items`."""

    good_beside_bad = True
    """Whether good messages are in columns whatever lies beside them; else they may be read one by one."""
    good_alone = True
    """Whether they are if all of the chunk are good."""
    bad = (
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"5",
        b"null",
        None,
        b'{"id": 1, "name": "\xff"}',
        b'{"id": 1, "name": "a", "x": "\xff"}',
        b'{"id": "x"}',
        b'{"name": "a"}',
        b'{"id": 1, "name": "\\u0000"}',
        b'{"id": 1e3, "name": 5}',
        b"[" * 5000,
        b'{"id": 99999999999999999999}',
    )

    def decoder(self, what: Any) -> Any:
        return JsonDecoder(what)

    def value(self, **item: Any) -> bytes | None:
        return Message(item).value_sent

    def many(self, items: list[dict[str, Any]]) -> bytes | None:
        return Message({"items": items}).value_sent


ORDER = {
    "type": "record", "name": "Order",
    "fields": [{"name": "id", "type": "long"}, {"name": "name", "type": ["null", "string"]},
               {"name": "more", "type": ["null", "string"], "default": None}],
}  # fmt: skip
ORDERS = {
    "type": "record",
    "name": "Orders",
    "fields": [{"name": "items", "type": {"type": "array", "items": ORDER}}],
}


class AvroCase:
    """Single objects, which say by a fingerprint which schema wrote them."""

    good_beside_bad = False  # Arrow tells where a datum ends only if it reads all of them
    good_alone = True
    schemas = (parse(ORDER), parse(ORDERS))
    bad = (
        b"",
        b"\xc3\x01",
        b"\xc3\x01" + b"0" * 9,
        None,
        b"\xc3\x01" + parse(ORDER).fingerprint(),
        b"{}",
        b"\xc3\x01" + parse(ORDER).fingerprint() + b"\x02\x02\x02\xff\x00",
        b"\xc3\x01" + parse(ORDER).fingerprint() + b"\x02\x00\x00\x00",
    )

    def decoder(self, what: Any) -> Any:
        return AvroDecoder(SingleObject(*self.schemas), what)

    def value(self, **item: Any) -> bytes | None:
        return self._written(self.schemas[0], item)

    def many(self, items: list[dict[str, Any]]) -> bytes | None:
        return self._written(self.schemas[1], {"items": items})

    def _written(self, schema: Schema, datum: Any) -> bytes:
        return b"\xc3\x01" + schema.fingerprint() + avro(schema, datum)


class MixedCase(AvroCase):
    """Messages in JSON and in Avro, in turn."""

    good_alone = False  # a chunk goes as its first message
    bad = JsonCase.bad + AvroCase.bad

    def __init__(self) -> None:
        self._turn = False

    def decoder(self, what: Any) -> Any:
        return JsonOrAvro(JsonDecoder(what), AvroDecoder(SingleObject(*self.schemas), what))

    def _written(self, schema: Schema, datum: Any) -> bytes:
        self._turn = not self._turn
        return super()._written(schema, datum) if self._turn else Message(datum).value_sent or b""


@pytest.fixture(params=[JsonCase, AvroCase, MixedCase])
def case(request: pytest.FixtureRequest) -> Any:
    return request.param()


def stored(values: list[bytes | None], headers: list[list[tuple[str, bytes | None]]]) -> list[Any]:
    """Messages as they are read: offset 5 is gone."""
    return [
        StoredMessage(("orders", 0), at + (at > 5), at, value, b"k" if at % 3 else None, headers[at], 1000 + at)
        for at, value in enumerate(values)
    ]


def ends(decoder: Any, what: type[Row], ports: Ports) -> list[Any]:
    """What became of all items: rows in their order, letters, skips."""
    mapped = map_rows(normalizer(what), ports.oks)
    rows = []
    for part in mapped.oks:
        if isinstance(part, Slice):
            offsets = part.columns.chunk.offsets
            rows += [(offsets[place], item, repr(row)) for place, item, row in part.columns.rows(part.start, part.stop)]
        else:
            rows.append((part.record.offset, part.item, repr(part.payload)))
    letters = [
        [(each.record.offset, each.item, each.count, each.step, each.reason, each.detail) for each in errs]
        for errs in (ports.errs, mapped.errs)
    ]
    skips = [(reason, each.record.offset, each.count) for reason, each in ports.skipped + mapped.skipped]
    return [rows, letters, skips]


def by_chunk(
    decoder: Any, what: type[Row], messages: list[Any], loop: ColumnLoop
) -> tuple[list[Any], Chunk, Assignment]:
    """How messages end that are read as a chunk; also returns that, and its assignment."""
    in_flight = InFlight()
    assignment = in_flight.assign("orders", "id", 0, 0)
    chunk = chunk_of(messages, assignment)
    assert chunk is not None
    chunk.loop = loop
    in_flight.read_chunk(chunk)
    return ends(decoder, what, sort_chunks(partial(sort, decoder), [chunk])), chunk, assignment


def both(
    decoder: Any, what: type[Row], values: list[bytes | None], headers: list[Any] | None = None
) -> tuple[list[Any], Chunk]:
    """Check that a chunk ends as its messages do; returns how, and the chunk."""
    assert isinstance(decoder, SupportsColumns)
    messages = stored(values, headers or [[]] * len(values))
    loop = decoder.column_loop(normalizer(what))
    found, chunk, assignment = by_chunk(decoder, what, messages, loop)
    again = MakeAgain(loop, decoder, normalizer(what))
    forgets = EncodingLoop(loop, lambda columns: ("what a writer made of it", columns.fields[:1]), again)
    assert by_chunk(decoder, what, messages, forgets)[0] == found, "what is made again is the same"

    records = records_of(messages, InFlight().assign("orders", "id", 0, 0))
    expected = ends(decoder, what, sort(decoder, [Envelope(record, 0, record.value or b"") for record in records]))
    assert found == expected
    items = [chunk.items[at] or chunk.record_at(at).items for at in range(len(chunk))]
    assert items == [record.items for record in records]
    assert assignment.pending == sum(items)
    return found, chunk


def rows_in(chunk: Chunk) -> int:
    return sum(chunk.items)


WHERE: dict[str, Any] = {
    "none": lambda _: False, "the first": lambda at: at == 0, "the last": lambda at: at == COUNT - 1,
    "every second": lambda at: at % 2, "all": lambda _: True, "all but one": lambda at: at != 7,
    "two beside each other": lambda at: at in (4, 5),
}  # fmt: skip


@pytest.mark.parametrize("where", WHERE)
def test_bad_messages_cost_themselves(case: Any, where: str) -> None:
    """And nothing of plain good ones is left to the items' way."""
    for bad in case.bad:
        values = [bad if WHERE[where](at) else case.value(id=at, name=f"n{at}") for at in range(COUNT)]
        [rows, _, _], chunk = both(case.decoder(Order), Order, values)

        good = [at for at in range(COUNT) if not WHERE[where](at)]
        assert {at for at, _, _ in rows} >= {at + (at > 5) for at in good}
        if case.good_beside_bad or (case.good_alone and len(good) == COUNT):
            assert all(chunk.items[at] == 1 and at not in chunk.alone for at in good), bad


@pytest.mark.parametrize("where", WHERE)
def test_rows_that_a_rule_refuses_cost_themselves(case: Any, where: str) -> None:
    values = [case.value(id=at, name="refused" if WHERE[where](at) else "é\t\\N") for at in range(COUNT)]
    [rows, letters, _], _ = both(case.decoder(Order), Order, values)

    refused = sum(bool(WHERE[where](at)) for at in range(COUNT))
    assert (len(rows), len(letters[1])) == (COUNT - refused, refused)


def test_a_large_message_among_small_ones(case: Any) -> None:
    values = [case.value(id=at, name="n", more=BIG if at == 9 else None) for at in range(COUNT)]
    [rows, _, _], chunk = both(case.decoder(Order), Order, values)

    assert len(rows) == COUNT
    assert not case.good_alone or rows_in(chunk) == COUNT


@pytest.mark.parametrize("where", WHERE)
def test_the_chunks_of_a_window_end_as_their_messages_do(case: Any, where: str) -> None:
    """Also where the decoder hears of them before its loop is called."""
    for bad in case.bad:
        decoder = case.decoder(Order)
        messages = stored(
            [bad if WHERE[where](at) else case.value(id=at, name=f"n{at}") for at in range(COUNT)], [[]] * COUNT
        )
        assignment = InFlight().assign("orders", "id", 0, 0)
        chunks = []
        for start, stop in [(0, 1), (1, COUNT // 2), (COUNT // 2, COUNT)]:
            chunks.append(chunk_of(messages[start:stop], assignment))
            chunks[-1].loop = decoder.column_loop(normalizer(Order))  # type: ignore[union-attr]
            assignment.next = messages[stop - 1].offset() + 1
        sort_window = expecting(decoder, partial(sort_chunks, partial(sort, decoder)))
        found = ends(decoder, Order, sort_window(chunks))  # type: ignore[arg-type]

        records = records_of(messages, InFlight().assign("orders", "id", 0, 0))
        expected = [Envelope(record, 0, record.value or b"") for record in records]
        assert found == ends(decoder, Order, sort(decoder, expected))


def test_null_and_odd_texts(case: Any) -> None:
    texts = [None, "", " ", "\\N", "\t\n\r", "'\"", "é", "\U0001f600", "\x01", "null", "0", "\x7f"]
    values = [case.value(id=at, name=text) for at, text in enumerate(texts)]
    [rows, _, _], _ = both(case.decoder(Order), Order, values)

    assert len(rows) == len(texts)


@pytest.mark.parametrize("number", [0, -1, 2**31, 2**63 - 1, -(2**63)])
def test_numbers_at_their_bounds(case: Any, number: int) -> None:
    [rows, _, _], chunk = both(case.decoder(Order), Order, [case.value(id=number, name=None)] * COUNT)

    assert len(rows) == COUNT
    assert not case.good_alone or rows_in(chunk) == COUNT


def test_headers_that_change_within_a_chunk(case: Any) -> None:
    headers = [[], *[[("lovelace-items", declared)] for declared in (b"1", b"2", b"x", b"0")]]
    values = [case.value(id=at, name="n") for at in range(COUNT)]
    [rows, letters, _], _ = both(case.decoder(Order), Order, values, [headers[at // 2 % 5] for at in range(COUNT)])

    assert len(letters[0]) == COUNT - len(rows)
    assert {reason for _, _, _, _, reason, _ in letters[0]} == {"items_mismatch"}


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("bad", ["list", "item", "empty"])
def test_messages_of_many_items(case: Any, where: str, bad: str) -> None:
    """A bad item costs itself, a bad message itself."""

    def value(at: int) -> Any:
        items = [{"id": at, "name": f"n{number}"} for number in range(1 + at % 4)]
        if not WHERE[where](at):
            return case.many(items)
        if bad == "item":
            items[-1]["name"] = "refused"
        return b"{" if bad == "list" else case.many([] if bad == "empty" else items)

    decoder = case.decoder(Items("items", Order))
    [rows, _, _], _ = both(decoder, Order, [value(at) for at in range(COUNT)])

    least = sum(1 + at % 4 for at in range(COUNT) if not WHERE[where](at))
    assert len(rows) >= least


class Line(Row, table="lines", primary_key=("shop", "id")):
    """A row that reads of its message what lies beside the list, above it, and within it, where nothing can be."""

    event: Annotated[str, From("$.t")]
    rate: Annotated[Decimal | None, From("$.d.rate", "$.rate")]
    shop: Annotated[str, From("$.d.shop.name")]
    within: Annotated[str | None, From("$.d.of.shop", "$.d.shop.of")]
    id: int
    name: str | None


@pytest.mark.parametrize(
    "beside",
    [
        b'"shop": {"name": "a"}, "rate": 0.10',
        b'"shop": {"name": "a", "of": "b"}, "rate": 1e400',
        b'"shop": {"name": "a", "of": null}, "rate": null',
        b'"shop": {"name": "a"}, "shop": {"name": "b"}',
        b'"shop": {"name": "\\ud800"}',
        b'"shop": {"name": "\\u0000"}',
        b'"shop": {"name": 5}',
        b'"shop": {}',
        b'"shop": null',
        b'"shop": "a"',
        b'"of": {"shop": "c"}, "shop": {"name": "a"}',
        b"",
    ],
)
@pytest.mark.parametrize(
    "last", [b'{"id": 7}', b'{"id": "x"}', b'{"name": "a"}', b"5", b'{"id": 1, "name": "\\ud800"}']
)
def test_items_of_a_message_that_says_more(beside: bytes, last: bytes) -> None:
    """An item that no loop takes is told what lies beside the list, however it is spelled."""
    what = Events("t", {"many": Items("d.items", Line)}, otherwise=Skip("unknown_event"))
    start = b'{"rate": 2, "t": "many", "d": {' + beside + (b", " if beside else b"")
    values: list[bytes | None] = [
        start + b'"items": [{"id": 1}, {"name": "no id"}, ' + last + b"]}}",
        start + b'"items": [{"id": 1}, ' + last + b', {"id": 2}]}, "more": [1, 2]}',
    ]
    both(JsonDecoder(what), Line, values)
