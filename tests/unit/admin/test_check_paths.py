"""`lovelace check` names the paths that no item of its sample had."""

from typing import Annotated, Any

from lovelace_streams import Events, From, Items, JsonDecoder, Row, Skip
from lovelace_streams.admin.check.paths import PathsSeen
from tests.unit.formats.messages import Decoded


class Order(Row, table="orders", primary_key="id"):
    id: int
    shop: Annotated[int | None, From("$.d.shop_id")]
    buyer: Annotated[str | None, From("buyer.nick", ("buyer", "full.name"), "buyer.nmae")]
    note: str | None


class Gone(Row, table="orders", primary_key="id"):
    id: int


EVENTS = Events(
    "t",
    {"new": Items("d.orders", Order), "one": Items("d", Order), "gone": Items("d", Gone), "left": Items("d", Gone)},
    Skip("unknown_event"),
)


def notes(decoder: JsonDecoder, *messages: Any) -> list[str]:
    seen = PathsSeen(decoder.targets)
    for message in messages:
        for envelope in Decoded(decoder, message).oks:
            seen.look(envelope.payload)
    return list(seen.notes())


def test_paths_that_no_item_had_are_named_with_their_columns() -> None:
    orders = [{"id": 1, "buyer": {"nick": "a"}}, {"id": 2, "buyer": {"full.name": None}}, {"id": 3}]

    never_seen, paths = notes(JsonDecoder(EVENTS), {"t": "new", "d": {"orders": orders}}, {"t": "gone", "d": {"id": 1}})

    assert never_seen == "no message of the sample holds items of Order (one)"
    assert paths == (
        "Order: none of the 3 items of the sample has $.d.shop_id (shop); $.d.orders[].buyer.nmae (buyer); "
        "$.d.orders[].note (note): correct the path, if messages are to have it"
    )


def test_nothing_is_said_where_each_path_was_there_once() -> None:
    orders = [
        {"id": 1, "note": None, "buyer": {"nick": "a", "nmae": ""}},
        {"id": [], "buyer": {"full.name": "b"}, "d": {"shop_id": 1}},
    ]

    assert notes(JsonDecoder(Order), *orders) == []


def test_a_parent_of_another_type_is_no_path_that_is_missing() -> None:
    assert notes(JsonDecoder(Order), {"id": 1, "note": "", "buyer": 5, "d": {"shop_id": 1}}) == []


def test_an_event_that_no_message_was_is_named() -> None:
    order = {"id": 1, "note": None, "shop_id": 2, "buyer": {"nick": "a", "nmae": "", "full.name": ""}}

    assert notes(JsonDecoder(EVENTS), {"t": "one", "d": order}) == [
        "no message of the sample holds items of Order (new)",
        "no message of the sample holds items of Gone (gone, left)",
    ]


def test_an_event_that_is_named_by_a_number_is_named() -> None:
    decoder = JsonDecoder(Events("op", {0: Items("d", Order), 7: Items("d", Gone), "g": Items("d", Gone)}, Skip()))

    found = notes(decoder)
    assert found == [
        "no message of the sample holds items of Order (0)",
        "no message of the sample holds items of Gone (7, g)",
    ]


def test_items_of_a_list_at_the_top_are_looked_at() -> None:
    assert notes(JsonDecoder(Items("$", Order)), [{"id": 1}, {"id": 2, "note": "n"}]) == [
        (
            'Order: none of the 2 items of the sample has $[].buyer.nick (buyer); $[].buyer["full.name"] (buyer); '
            "$[].buyer.nmae (buyer): correct the path, if messages are to have it"
        )
    ]
