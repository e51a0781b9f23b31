"""Events declared partial: a column of several paths keeps what is stored where a path that comes first is absent."""

import json
from typing import Annotated, Any

import pytest

from lovelace_streams import UNSET, Events, From, Items, JsonDecoder, Row, Skip
from lovelace_streams.records import Envelope
from lovelace_streams.rows.interpreter import interpret
from lovelace_streams.rows.normalizer import normalizer
from tests.unit.rows.ways import NOW, record


class Member(Row, table="members", primary_key="id"):
    id: Annotated[int, From("user.id", "id")]
    name: Annotated[str | None, From("nick", "user.global_name", "user.username")]
    roles: list[int] | None


EVENTS = Events(
    "t",
    {"ADD": Items("d", Member), "UPDATE": Items("d", Member, partial=True), "MANY": Items("ds", Member, partial=True)},
    Skip("unknown_event"),
)
NORMALIZER = normalizer(Member)


def row_of(event: str, item: dict[str, Any]) -> Any:
    """The row of an item in an event; both ways of mapping agree on it."""
    message = {"t": event, "ds" if event == "MANY" else "d": [item] if event == "MANY" else item}
    oks: list[Envelope[Any]] = []
    JsonDecoder(EVENTS).decode(record(json.dumps(message).encode()), oks, [], [])
    [envelope] = oks
    plain, root = envelope.payload.plain()
    row = NORMALIZER.normalize(envelope, NOW)
    assert envelope.payload.item is not None
    assert repr(row) == repr(interpret(Member, plain, envelope.record, root, NOW, partial=event != "ADD"))
    return row


USER = {"id": 1, "global_name": "Global", "username": "user"}
CASES: list[tuple[dict[str, Any], Any, Any]] = [
    # item, name in a whole event, name in a partial one
    ({"nick": "nick", "user": USER}, "nick", "nick"),
    ({"nick": "nick", "user": {"id": 1}}, "nick", "nick"),
    ({"user": USER}, "Global", UNSET),
    ({"nick": None, "user": USER}, "Global", "Global"),
    ({"nick": None, "user": {"id": 1, "username": "user"}}, "user", UNSET),
    ({"nick": None, "user": {"id": 1, "global_name": None, "username": "user"}}, "user", "user"),
    ({"nick": None, "user": {"id": 1, "global_name": None, "username": None}}, None, None),
    ({"nick": None, "user": {"id": 1}}, None, UNSET),
    ({"nick": None, "id": 1, "user": None}, None, UNSET),
    ({"user": {"id": 1, "global_name": None}}, None, UNSET),
    ({"id": 1}, UNSET, UNSET),
]


@pytest.mark.parametrize(("item", "whole", "partial"), CASES)
def test_an_absent_path_that_comes_first_keeps_what_is_stored(item: dict[str, Any], whole: Any, partial: Any) -> None:
    assert row_of("ADD", item) == Member(id=1, name=whole, roles=UNSET)
    assert row_of("UPDATE", item) == Member(id=1, name=partial, roles=UNSET)
    assert row_of("MANY", item) == Member(id=1, name=partial, roles=UNSET)


def test_a_key_takes_the_first_value_of_its_paths_in_any_event() -> None:
    assert row_of("UPDATE", {"id": 7}) == Member(id=7, name=UNSET, roles=UNSET)


def test_a_row_of_one_item_may_be_partial_too() -> None:
    assert Member.from_raw({"user": USER}, partial=True).name is UNSET
    assert Member.from_raw({"user": USER}).name == "Global"


@pytest.mark.parametrize(("hint", "default"), [(str, {}), (str | None, {"default": None}), (str, {"default": "x"})])
def test_a_column_that_can_not_be_kept_is_refused_at_build(hint: Any, default: dict[str, Any]) -> None:
    body = {"__annotations__": {"id": int, "x": Annotated[hint, From("a", "b")]}, "__module__": __name__}
    if default:
        body["x"] = default["default"]
    made = type(Row)("Made", (Row,), body, table="made", primary_key="id")

    JsonDecoder(Items("d", made))
    with pytest.raises(TypeError, match=r"Made\.x has several paths.*`T \| None` without a default"):
        JsonDecoder(Items("d", made, partial=True))


def test_a_function_decides_by_itself() -> None:
    with pytest.raises(TypeError, match="partial"):
        JsonDecoder(Items("d", lambda item: Member(id=1), partial=True))
