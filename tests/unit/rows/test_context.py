"""Rows that a user's function makes of a record: they have its values from Kafka, as mapped rows have them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Any

import pytest

import lovelace_streams as ls
from lovelace_streams.formats.json import JsonDecoder
from lovelace_streams.records import Envelope, Origin
from lovelace_streams.rows import From, FromKafka, RecordContext, Row
from lovelace_streams.rows.normalizer import normalizer
from lovelace_streams.testing import Message, mapped
from tests.unit.rows.ways import NOW, record

AT = datetime(2015, 4, 26, 6, 26, 56, 936000, tzinfo=UTC)


class Order(Row, table="orders", primary_key="id", version="seen_at"):
    id: int
    seen_at: Annotated[datetime, FromKafka("timestamp")]


class Line(Row, table="lines", primary_key=("source", "number")):
    source: Annotated[int, FromKafka("offset")]
    number: int
    order: Annotated[int, From("$.id")]
    key: Annotated[str | None, FromKafka("key")]
    at: Annotated[int, FromKafka("timestamp")]


class Plain(Row, table="plain", primary_key="id"):
    id: int


def order_with_lines(item: dict[str, Any], root: dict[str, Any], *, of: RecordContext) -> Iterator[Row]:
    yield Order.from_raw(item, of=of)
    for line in item["lines"]:
        yield Line.from_raw(line, root, of=of)


def made(function: Any, **fields: Any) -> Any:
    oks: list[Envelope[Any]] = []
    text = b'{"id": 7, "lines": [{"number": 1}, {"number": 2}]}'
    JsonDecoder(function).decode(record(text, **fields), oks, [], [])
    return normalizer(function).normalize(oks[0], NOW)


def test_parent_and_children_of_a_record_have_its_values_from_kafka() -> None:
    order, *lines = made(order_with_lines, key=b"k", timestamp=NOW - 5)

    assert order == Order(id=7, seen_at=datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=NOW - 5))
    assert lines == [Line(source=7, number=n, order=7, key="k", at=NOW - 5) for n in (1, 2)]


def test_a_replay_has_the_values_of_the_record_that_was_first_read() -> None:
    order, line, _ = made(order_with_lines, timestamp=NOW, origin=Origin("id", "first", 1, 99, NOW - 1000))

    assert (order.seen_at, line.source, line.at) == (datetime.fromtimestamp(NOW // 1000 - 1, UTC), 99, NOW - 1000)

    seen: list[RecordContext] = []
    made(lambda item, of: seen.append(of) or Plain(id=1), origin=Origin("id", "first", 1, 99, NOW - 1000))
    assert [(of.topic, of.partition, of.offset) for of in seen] == [("first", 1, 99)]


def test_a_function_says_by_a_parameter_named_of_that_it_wants_them() -> None:
    class Callable:
        def __call__(self, item: Any, of: RecordContext) -> Row:
            return Order.from_raw(item, of=of)

    def with_default(item: Any, root: Any = None, of: RecordContext | None = None) -> Row:
        return Order.from_raw(item, of=of)

    def bound(extra: int, item: Any, *, of: RecordContext) -> Row:
        return Order.from_raw(item, of=of)

    functions = [Callable(), with_default, partial(bound, 1), lambda item, *, of: Order.from_raw(item, of=of)]

    assert [made(function, timestamp=1000).seen_at.timestamp() for function in functions] == [1.0] * 4


def test_a_row_made_by_hand_takes_kafkas_time_from_it() -> None:
    def by_hand(item: Any, *, of: RecordContext) -> Row:
        assert of.timestamp is not None
        return Order(id=of.offset, seen_at=of.timestamp)

    assert made(by_hand, timestamp=1500).seen_at.timestamp() == 1.5


def test_a_message_without_a_timestamp_has_none() -> None:
    assert RecordContext.of(record(timestamp=-1)).timestamp is None
    with pytest.raises(ls.RecordFault, match="missing: expected datetime, got nothing at Kafka's timestamp"):
        made(order_with_lines, timestamp=-1)


def test_values_of_a_test_are_made_up() -> None:
    assert Order.from_raw({"id": 1}, of=RecordContext(timestamp=AT)) == Order(id=1, seen_at=AT)
    assert Line.from_raw({"number": 1}, {"id": 2}, of=RecordContext(offset=5, key=b"k", timestamp=AT)) == Line(
        source=5, number=1, order=2, key="k", at=1_430_029_616_936
    )
    assert Order.from_raw({"id": 1}, of=record(timestamp=0)).seen_at == datetime.fromtimestamp(0, UTC)
    with pytest.raises(ValueError, match="offset"):
        RecordContext(timestamp=datetime(2024, 1, 1))  # noqa: DTZ001 - that is the case


@pytest.mark.parametrize(("row", "names"), [(Order, "seen_at"), (Line, "source, key and at")])
def test_a_class_that_reads_kafkas_values_is_not_made_without_them(row: type[Row], names: str) -> None:
    with pytest.raises(TypeError) as caught:
        row.from_raw({"id": 1, "number": 1})

    assert str(caught.value).startswith(f"{row.__name__} reads {names} from Kafka's message")
    assert f"{row.__name__}.from_raw(item, of=of)" in str(caught.value)
    assert "RecordContext(" in str(caught.value)


def test_of_is_no_payload() -> None:
    with pytest.raises(TypeError, match="of= takes a RecordContext or a Record, not a dict"):
        Order.from_raw({"id": 1}, of={"id": 1})  # type: ignore[arg-type]


def test_a_flow_that_forgets_it_is_told_by_the_dead_letter() -> None:
    def forgets(item: dict[str, Any]) -> Row:
        return Order.from_raw(item)

    letter = mapped(forgets, {"id": 1}).letter

    assert letter.reason == "rule"
    assert "Order reads seen_at from Kafka's message" in letter.detail
    assert "*, of" in letter.detail


def test_the_older_message_never_wins_over_the_newer_one() -> None:
    older, newer = AT, AT + timedelta(seconds=1)

    rows = mapped(order_with_lines_of_none, Message({"id": 1}, timestamp=newer), Message({"id": 1}, timestamp=older))

    assert [row.seen_at for row in rows.rows] == [newer, older]


def order_with_lines_of_none(item: dict[str, Any], *, of: RecordContext) -> Row:
    return Order.from_raw(item, of=of)


async def later(item: Any) -> Row:
    return Plain(id=1)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda: Plain(id=1), "takes no item"),
        (lambda item, root, third: Plain(id=1), "the item and the whole message"),
        (lambda item, *, context: Plain(id=1), "context"),
        (later, "async"),
    ],
)
def test_a_function_that_could_not_be_called_is_refused_at_build(function: Any, why: str) -> None:
    for build in (JsonDecoder, normalizer):
        with pytest.raises(TypeError, match=why):
            build(function)
