"""A list of items without a field that names an event: at the top of the message, or at a path."""

import json
from typing import Annotated, Any

import pytest

from lovelace_streams import RecordFault
from lovelace_streams.avro import AvroDecoder
from lovelace_streams.formats.events import Items
from lovelace_streams.formats.json import JsonDecoder
from lovelace_streams.records import Origin
from lovelace_streams.rows import UNSET, From, Row, Skip
from lovelace_streams.rows.normalizer import normalizer
from lovelace_streams.testing import Message, avro, mapped
from tests.unit.formats.messages import NOW, Decoded


class Reading(Row, table="readings", primary_key="id"):
    id: int
    place: Annotated[str | None, From("at.place")]


class WithMessage(Row, table="with_message", primary_key="id"):
    id: int
    station: Annotated[str, From("$.station")]


class Number(Row, table="numbers", primary_key="id"):
    id: Annotated[int, From(".")]


def by_function(item: Any) -> Reading:
    return Reading(id=item["id"], place=item.get("at", {}).get("place"))


GOOD = {"id": 1, "at": {"place": "north"}}
BAD = {"id": "one"}
DECODERS = [
    ("$", lambda found: found),
    ("rows", lambda found: {"rows": found}),
    ("a.b", lambda found: {"a": {"b": found}, "more": 1}),
]


def ends(decoder: Any, value: Any, row: Any = Reading, **fields: Any) -> list[tuple[Any, ...]]:
    """Each item, or the message as a whole, with what became of it."""
    decoded = Decoded(decoder, value, **fields)
    made: list[tuple[Any, ...]] = []
    for envelope in decoded.oks:
        try:
            made.append((envelope.item, envelope.count, normalizer(row).normalize(envelope, NOW).id))
        except RecordFault as fault:
            made.append((envelope.item, envelope.count, str(fault.reason)))
    made += [(letter.item, letter.count, str(letter.reason)) for letter in decoded.errs]
    made += [(skipped.item, skipped.count, str(reason)) for reason, skipped in decoded.skipped]
    assert decoded.record.items == sum(count for _, count, _ in made)
    return sorted(made)


@pytest.mark.parametrize(("path", "message"), DECODERS)
@pytest.mark.parametrize("target", [Reading, by_function])
class TestAListAtAPath:
    def decoder(self, path: str, target: Any) -> JsonDecoder:
        return JsonDecoder(Items(path, target))

    def test_one_bad_item_costs_itself_only(self, path: str, message: Any, target: Any) -> None:
        reason = "wrong_type"
        found = ends(self.decoder(path, target), message([GOOD, BAD, {"id": 3}, 5, None]), target)
        expected = [(0, 1, 1), (1, 1, reason), (2, 1, 3)]
        assert found[:3] == expected
        assert [(item, count) for item, count, _ in found[3:]] == [(3, 1), (4, 1)]
        assert all(reason in ("wrong_type", "rule") for _, _, reason in found[3:])

    def test_one_object_is_one_item(self, path: str, message: Any, target: Any) -> None:
        assert ends(self.decoder(path, target), message(GOOD), target) == [(0, 1, 1)]

    def test_the_header_holds(self, path: str, message: Any, target: Any) -> None:
        decoder = self.decoder(path, target)
        assert ends(decoder, message([GOOD, GOOD]), target, declared=2) == [(0, 1, 1), (1, 1, 1)]
        assert ends(decoder, message([GOOD, GOOD]), target, declared=3) == [(0, 3, "items_mismatch")]
        assert ends(decoder, message([]), target, declared=3) == [(0, 3, "items_mismatch")]

    def test_an_empty_list_is_skipped(self, path: str, message: Any, target: Any) -> None:
        assert ends(self.decoder(path, target), message([]), target) == [(0, 1, "empty")]

    def test_a_replay_takes_the_items_that_it_names(self, path: str, message: Any, target: Any) -> None:
        origin = Origin("id", "topic", 0, 5, NOW, (1,))
        found = ends(self.decoder(path, target), message([BAD, GOOD, BAD]), target, origin=origin)
        assert found == [(1, 1, 1)]

    def test_something_else_is_a_dead_letter(self, path: str, message: Any, target: Any) -> None:
        for other in (5, "text", True):
            assert ends(self.decoder(path, target), message(other), target) == [(0, 1, "wrong_type")]

    def test_a_nul_costs_its_item(self, path: str, message: Any, target: Any) -> None:
        value = message([GOOD, {"id": 2, "at": {"place": "\0"}}])
        assert ends(self.decoder(path, target), value, target) == [(0, 1, 1), (1, 1, "bad_value")]


@pytest.mark.parametrize("value", [b"[", b"[}", b"[1,]", b'[{"id": 1}] x', b"\xff[]", b"[" * 9999 + b"]" * 9999])
def test_what_is_no_json_is_a_dead_letter_of_the_message(value: bytes) -> None:
    [(item, count, reason)] = ends(JsonDecoder(Items("$", Reading)), value, declared=7)
    assert (item, count) == (0, 7)
    assert reason in ("not_json", "not_utf8", "too_deep")


def test_items_of_a_list_at_the_top_are_decoded_by_type() -> None:
    decoded = Decoded(JsonDecoder(Items("$", Reading)), [GOOD, BAD])
    assert [envelope.payload.item is not None for envelope in decoded.oks] == [True, True]


def test_the_path_of_a_fault_says_where_the_list_is() -> None:
    assert mapped(Items("$", Reading), [BAD]).letter.detail == "expected int, got str at $[].id"
    assert mapped(Items("rows", Reading), {"rows": [BAD]}).letter.detail == "expected int, got str at $.rows[].id"


def test_items_may_be_numbers() -> None:
    assert [row.id for row in mapped(Items("$", Number), [1, "2", 3]).rows] == [1, 2, 3]


def test_a_list_at_the_top_has_no_fields_of_the_message() -> None:
    assert mapped(Items("$", WithMessage), {"id": 1, "station": "n"}).row == WithMessage(id=1, station="n")
    assert mapped(Items("$", WithMessage), [{"id": 1}]).letter.detail == "expected object, got list at $"


def test_a_row_class_by_itself_means_that_every_message_is_one_item() -> None:
    letter = mapped(Reading, [GOOD]).letter
    assert (str(letter.reason), letter.detail) == ("wrong_type", "expected object, got list at $")


def test_mapped_takes_items() -> None:
    assert mapped(Items("rows", Reading), {"rows": [GOOD, {"id": 2}]}).rows[1].id == 2
    assert mapped(Items("$", lambda item: Skip("filtered")), [GOOD, GOOD]).skipped == ["filtered"] * 2  # noqa: ARG005


# ---- Avro ------------------------------------------------------------------------------------------------------------

RECORD = {
    "type": "record",
    "name": "Reading",
    "fields": [
        {"name": "id", "type": ["null", "long", "string"]},
        {
            "name": "at",
            "type": ["null", {"type": "record", "name": "At", "fields": [{"name": "place", "type": "string"}]}],
        },
    ],
}
ARRAY = {"type": "array", "items": RECORD}
WITHIN = {"type": "record", "name": "Message", "fields": [{"name": "rows", "type": ARRAY}]}


@pytest.mark.parametrize("reader", [False, True])
@pytest.mark.parametrize("count", [1, 40])  # read one by one, and together
@pytest.mark.parametrize(("path", "schema"), [("$", ARRAY), ("rows", WITHIN)])
def test_an_avro_array_holds_items(path: str, schema: Any, count: int, reader: bool) -> None:
    decoder = AvroDecoder(schema, Items(path, Reading), reader=schema if reader else None)
    items = [{"id": 1, "at": {"place": "north"}}, {"id": "x", "at": None}, {"id": 3, "at": None}]

    def message(found: Any, declared: int | None = None) -> Message:
        return Message(avro(schema, found if path == "$" else {"rows": found}), items=declared)

    found = mapped(decoder, *[message(items)] * count, to=Reading)
    assert [(row.id, row.place) for row in found.rows] == [(1, "north"), (3, UNSET)] * count
    assert [(letter.item, str(letter.reason)) for letter in found.letters] == [(1, "wrong_type")] * count
    assert mapped(decoder, message([]), to=Reading).skipped == ["empty"]
    assert str(mapped(decoder, message(items, 2), to=Reading).letters[0].reason) == "items_mismatch"


def test_an_array_of_another_record_is_another_schema() -> None:
    other = json.loads(json.dumps(ARRAY).replace('"Reading"', '"Other"'))
    letter = mapped(AvroDecoder(other, Items("$", Reading), reader=ARRAY), avro(other, []), to=Reading).letter
    assert str(letter.reason) == "unknown_schema"


def test_an_array_where_every_message_is_one_item_is_a_dead_letter() -> None:
    letter = mapped(AvroDecoder(ARRAY, Reading), avro(ARRAY, []), to=Reading).letter
    assert (str(letter.reason), letter.detail) == ("wrong_type", "expected record, got list at $")
