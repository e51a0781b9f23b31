"""Paths: what a text and a tuple mean, and which paths could never be found."""

import json
from typing import Annotated, Any

import pytest

from lovelace_streams import UNSET, Events, From, Items, JsonDecoder, Row, Skip
from lovelace_streams.rows.paths import JsonPath
from lovelace_streams.testing import mapped
from tests.unit.rows.ways import outcome, row_class

NEVER = [
    "items[0].sku",
    "[0]",
    "$[0]",
    "$['a.b']",
    'a["b"]',
    "items[*].sku",
    "",
    ".a",
    "a.",
    "a..b",
    "$..a",
    "$.",
    "..",
    " a",
    "a ",
    "a. b",
    "a\n",
    " ",
    "*",
    "a.*",
    "$.*",
]
EXACT: list[tuple[Any, dict[str, Any]]] = [
    (("k8s.pod.name",), {"k8s.pod.name": 5}),
    (("meta", "k8s.pod.name"), {"meta": {"k8s.pod.name": 5}}),
    (("$", "meta", "a.b"), {"meta": {"a.b": 5}}),
    (("items[0]",), {"items[0]": 5}),
    (("",), {"": 5}),
    (('a"b',), {'a"b': 5}),
    (("a\\b", "c\n"), {"a\\b": {"c\n": 5}}),
    (("*", " a "), {"*": {" a ": 5}}),
    (("a.b", "c", "d.e"), {"a.b": {"c": {"d.e": 5}}}),
    (("x", "$"), {"x": {"$": 5}}),
    ("$oid", {"$oid": 5}),
    ("first name", {"first name": 5}),
    ("with-dash.é", {"with-dash": {"é": 5}}),
]


@pytest.mark.parametrize("path", NEVER)
def test_a_path_that_could_never_be_found_is_refused_where_it_is_written(path: str) -> None:
    for build in (lambda: From("ok", path), lambda: Items(path, Row)):
        with pytest.raises(ValueError, match="is no path") as caught:
            build()
        assert repr(path) in str(caught.value)
        if "[" in path:
            assert f"({path!r},)" in str(caught.value)


@pytest.mark.parametrize("path", [(), ["a"], ("a", 0), ("a", None), 5, None, ("$",)[:0]])
def test_a_path_is_text_or_a_tuple_of_names(path: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="path"):
        From(path)


@pytest.mark.parametrize(("path", "message"), EXACT)
def test_names_in_a_tuple_are_exact_in_both_ways_of_mapping(path: Any, message: dict[str, Any]) -> None:
    row = row_class(Annotated[int | None, From(path)])

    assert outcome(row, json.dumps({"id": 1, **message})) == 5
    assert outcome(row, json.dumps({"id": 1, "k8s": {"pod": {"name": 6}}})) is UNSET


def test_a_message_spells_them_so_that_they_are_told_apart() -> None:
    row = row_class(Annotated[int, From(("meta", "k8s.pod.name"))])

    assert outcome(row, '{"id": 1}') == ("missing", 'expected int, got nothing at $.meta["k8s.pod.name"]')
    assert outcome(row, '{"id": 1, "meta": {"k8s.pod.name": []}}') == (
        "wrong_type",
        'expected int, got list at $.meta["k8s.pod.name"]',
    )
    assert JsonPath.of(("a.b", "c")).below("$.d") == '$.d["a.b"].c'
    row = row_class(Annotated[int, From(("a.b", "c"))])
    assert outcome(row, '{"id": 1, "a.b": 5}') == ("wrong_type", 'expected object, got int at $["a.b"]')


class Member(Row, table="members", primary_key="id"):
    id: int
    name: Annotated[str | None, From(("user", "full.name"), "user.name")]


def test_events_and_their_items_may_have_names_with_dots() -> None:
    events = Events(("event.type",), {"a.b": Items(("d", "k8s.members"), Member)}, Skip("unknown_event"))
    message = {"event.type": "a.b", "d": {"k8s.members": [{"id": 1, "user": {"full.name": "x"}}, {"id": 2}]}}

    result = mapped(events, message, {"event.type": "c"})

    assert [(row.id, row.name) for row in result.rows][0] == (1, "x")
    assert (len(result.rows), result.skipped) == (2, ["unknown_event"])


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", ""])
def test_names_that_no_struct_can_have_are_read_plainly(name: str) -> None:
    class Odd(Row, table="odd", primary_key="id"):
        id: Annotated[int, From((name, "id"))]

    events = Events((name,), {"A": Items((name + "s",), Odd)}, Skip("unknown_event"))

    assert mapped(events, {name: "A", name + "s": [{name: {"id": 7}}]}).row == Odd(id=7)


@pytest.mark.parametrize("field", ["a.b", "t[0]", "", " t", ("a", "b"), ()])
def test_the_field_of_events_is_one_name(field: Any) -> None:
    with pytest.raises(ValueError, match="path|top of the message"):
        Events(field, {"A": Items("d", Member)}, Skip("unknown_event"))


def test_a_decoder_takes_them() -> None:
    assert JsonDecoder(Items(("d", "a.b"), Member))
