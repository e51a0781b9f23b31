"""What a sample shows of an item: what is asked for by path, and nothing personal by whatever way it is reached."""

import json
from typing import Annotated, Any

import pytest

from lovelace_streams import From, JsonDecoder, Pii, Row
from lovelace_streams.api.page.samples import fields_of
from lovelace_streams.formats.decoder import Ports
from lovelace_streams.formats.events import Events, Items
from lovelace_streams.records import Record
from lovelace_streams.rows import Skip


class Order(Row, table="orders", primary_key="id"):
    id: int
    note: str | None
    customer_id: Annotated[int | None, From("customer.id")]
    place: Annotated[str | None, From("$.body.place", "town")]
    lines: list[int] | None


class Contact(Row, table="contacts", primary_key="id"):
    id: int
    customer: Annotated[dict[str, Any] | None, Pii("person")]
    place: Annotated[str | None, Pii("address")]


class Line(Row, table="lines", primary_key="id"):
    id: int
    order: Annotated[int, From("$.id")]
    text: str | None


def shown(what: Any, value: Any, *rows: type[Row]) -> list[dict[str, str]]:
    ports = Ports()
    record = Record("t", 0, 0, 0, 0, None, json.dumps(value).encode(), [], -1)
    JsonDecoder(what).decode(record, ports.oks, ports.errs, ports.skipped)
    return [{field.path: field.text for field in fields_of(each.payload, rows)} for each in ports.oks]


def test_values_are_shown_and_what_holds_others_is_named() -> None:
    value = {"id": "x", "note": "n" * 100, "customer": {"id": 1.5, "name": "Ada"}, "lines": [1, 2], "other": "Ada"}

    assert shown(Order, value) == [
        {"$.id": '"x"', "$.note": '"' + "n" * 79 + "…", "$.customer.id": "1.5", "$.body.place": "absent",
         "$.town": "absent", "$.lines": "a list of 2"}
    ]  # fmt: skip
    assert shown(Order, {"id": 1, "note": {"by": "Ada"}})[0]["$.note"] == "an object"


def test_a_mark_of_any_row_masks_what_it_reaches_and_all_below() -> None:
    [fields] = shown(
        Order, {"id": 1, "customer": {"id": 5}, "body": {"place": "here"}, "town": "there"}, Order, Contact
    )

    assert (fields["$.id"], fields["$.customer.id"]) == ("1", "•••")
    assert (fields["$.body.place"], fields["$.town"]) == ('"here"', '"there"')


def test_one_place_by_two_ways_is_one() -> None:
    events = Events("t", {"order": Items("body", Order)}, otherwise=Skip("unknown_event"))
    [fields] = shown(events, {"t": "order", "body": {"id": 1, "place": "here"}}, Contact)

    assert fields["$.body.place"] == "•••"


def test_each_item_of_a_list_shows_its_own() -> None:
    events = Events("t", {"lines": Items("lines", Line)}, otherwise=Skip("unknown_event"))
    value = {"t": "lines", "id": 3, "lines": [{"id": 1, "text": "a"}, {"id": 2}]}

    assert shown(events, value) == [
        {"$.lines[].id": "1", "$.id": "3", "$.lines[].text": '"a"'},
        {"$.lines[].id": "2", "$.id": "3", "$.lines[].text": "absent"},
    ]


@pytest.mark.parametrize("function", [lambda _item: Order(id=1), lambda _item: Skip("filtered")])
def test_what_a_function_reads_is_not_shown(function: Any) -> None:
    assert shown(function, {"id": 1, "note": "Ada"}, Order) == [{}]
