"""Events of which one needs items: its messages are left, the others are columns, and all keep their places."""

import msgspec
import pytest

from lovelace_streams import Events, Items, JsonDecoder, Row, Skip
from lovelace_streams.columns import Chunk, Run
from lovelace_streams.formats.decoder import SupportsColumns
from lovelace_streams.rows.interpreter import latest
from lovelace_streams.rows.normalizer import normalizer


class Order(Row, table="orders", primary_key="id"):
    id: int


class Judged(Row, table="orders", primary_key="id"):
    """Looks at its rows, so that no loop makes them."""

    id: int

    def __post_init__(self) -> None:
        assert self.id


class Number(Row, table="orders", primary_key="id"):
    id: int
    no: int = 0


def cleaned(item: dict[str, int]) -> Order:
    return Order(id=item["id"])


def decoder(*events: tuple[str, Items]) -> JsonDecoder:
    return JsonDecoder(Events("t", dict(events), otherwise=Skip("unknown_event")))


def chunk_of(*messages: object) -> Chunk:
    values = [msgspec.json.encode(message) for message in messages]
    count = len(values)
    return Chunk("t", 0, 1, range(count), [None] * count, values, [0] * count, [Run(0, count, 0, 0, [])])


@pytest.mark.parametrize("other", [cleaned, Judged])
def test_messages_of_an_event_that_needs_items_are_left(other: object) -> None:
    made = decoder(("order", Items("d", Order)), ("other", Items("d", other)), ("number", Items("d", Number)))  # type: ignore[arg-type]
    assert isinstance(made, SupportsColumns)
    chunk = chunk_of(*({"t": ("order", "other", "number")[n % 3], "d": {"id": n}} for n in range(9)))

    mapped = made.column_loop(normalizer(Order))(chunk, latest(0))
    assert mapped.left == [1, 4, 7]
    found = [(type(entry.payload), entry.payload.id) for rows in mapped.slices for entry in rows.envelopes()]
    assert found == [((Order, Number)[n % 3 > 0], n) for n in range(9) if n % 3 != 1]


def test_a_list_of_an_event_that_needs_items_is_left_beside_a_list_with_a_bad_item() -> None:
    made = decoder(("order", Items("d", Order)), ("other", Items("d", Judged)))
    lists = [{"t": t, "d": [{"id": 1}, {"id": second}]} for t, second in [("order", 2), ("other", 2), ("order", [])]]
    loop = made.column_loop(normalizer(Order))
    loop(chunk_of(*lists), latest(0))  # from now on it knows that there are lists

    mapped = loop(chunk_of(*lists, {"t": "other", "d": [{"id": 1}, {"id": []}]}), latest(0))
    assert mapped.left == [1, 3]
    assert [len(rows) for rows in mapped.slices] == [3]
    assert [(item.record.offset, item.item) for item in mapped.lost] == [(2, 1)]


def test_each_event_that_needs_items_says_why() -> None:
    made = decoder(("one", Items("d", cleaned)), ("two", Items("d", Judged)), ("order", Items("d", Order)))

    assert made.needs_items(normalizer(Order)) == {
        "one": "items become rows by a function, cleaned",
        "two": "Judged has __post_init__, which looks at each row",
        "order": "",
    }
