"""Structs that decode what rows read: a place in two ways, whole and in parts, and names that are no identifiers."""

import json
from typing import Annotated

import pytest

from lovelace_streams.rows import From, Lenient, Row
from tests.unit.rows.ways import outcome, row_class


def test_one_place_may_be_read_in_two_ways() -> None:
    class Both(Row, table="both", primary_key="id"):
        id: int
        x: Annotated[str, From("id"), Lenient()]

    assert outcome(Both, '{"id": 12}') == "12"


def test_a_place_may_be_read_whole_and_in_parts() -> None:
    class Kept(Row, table="kept", primary_key="id"):
        id: Annotated[int, From("user.id")]
        x: Annotated[dict, From("$")]

    assert outcome(Kept, '{"user": {"id": "5"}}') == {"user": {"id": "5"}}


@pytest.mark.parametrize("name", ["class", "with-dash", "_x", "k_x", "é", "__class__", "a b"])
def test_json_names_need_not_be_identifiers(name: str) -> None:
    row = row_class(Annotated[int, From(f"{name}.{name}")])

    assert outcome(row, json.dumps({"id": 1, name: {name: 5}})) == 5
