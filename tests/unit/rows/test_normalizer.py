"""Raw items to rows: by functions, by the class that the decoder was told, and what is let go."""

import contextlib
import gc
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from lovelace_streams.errors import DeploymentFault, RecordFault
from lovelace_streams.formats.json import JsonDecoder
from lovelace_streams.records import Envelope
from lovelace_streams.rows import Row, Skip
from lovelace_streams.rows.normalizer import normalizer
from tests.unit.rows.ways import NOW, record, row_class


class Pair(Row, table="pairs", primary_key="id"):
    id: int
    x: Any | None


def run(function: Any, text: str = '{"id": "5", "items": [1, 2]}') -> Any:
    oks: list[Envelope[Any]] = []
    JsonDecoder(function).decode(record(text.encode()), oks, [], [])
    try:
        return normalizer(function).normalize(oks[0], NOW)
    except RecordFault as fault:
        return str(fault)


def test_a_function_gives_a_row_rows_or_skip() -> None:
    def one(raw: dict[str, Any]) -> Row:
        return Pair(id=raw["id"], x=1.5)

    def many(raw: dict[str, Any]) -> Iterator[Row]:
        for item in raw["items"]:
            yield Pair(id=item, x=None)

    def two_arguments(raw: dict[str, Any], root: dict[str, Any]) -> Row:
        return Pair(id=root["id"], x=type(raw).__name__)

    assert run(one) == Pair(id=5, x=1.5)
    assert run(many) == (Pair(id=1, x=None), Pair(id=2, x=None))
    assert run(two_arguments) == Pair(id=5, x="dict")
    assert run(lambda raw: []) == Skip("filtered")
    assert run(lambda raw: Skip("unknown_event")) == Skip("unknown_event")


def test_a_function_sees_floats() -> None:
    assert run(lambda raw: Pair(id=1, x=type(raw["f"]).__name__), '{"f": 1.5}') == Pair(id=1, x="float")


def fails_late(raw: dict[str, Any]) -> Iterator[Row]:
    yield Pair(id=1, x=1)
    raise ValueError("secret")


def breaks(raw: dict[str, Any]) -> Row:
    raise KeyError("secret")


def gives_none(raw: dict[str, Any]) -> None:
    pass


def test_a_function_that_fails_is_a_rule_told_without_values() -> None:
    assert run(fails_late) == "rule: fails_late refuses it"
    assert run(breaks) == "rule: breaks raised KeyError"
    assert run(gives_none) == "rule: gives_none made a NoneType instead of a row"
    assert run(str) == "rule: str made a str instead of a row"


def test_rows_that_a_function_makes_are_held_to_their_class() -> None:
    assert str(run(lambda raw: Pair(id="x", x=1))).startswith("wrong_type: expected int, got str at Pair.id made by ")
    assert str(run(lambda raw: Pair(id=1, x="\0"))).startswith("bad_value: expected str, got str with NUL at Pair.x")
    assert str(run(lambda raw: Pair(id=2**63, x=1))).startswith("out_of_range")


def test_an_item_that_had_to_be_interpreted_is_let_go() -> None:
    row = row_class(int)
    oks: list[Envelope[Any]] = []
    JsonDecoder(row).decode(record(b'{"id": "+1", "x": 2}'), oks, [], [])
    mapper = normalizer(row)

    def references() -> int:
        with contextlib.suppress(RecordFault):
            mapper.normalize(oks[0], NOW)
        gc.collect()
        return sys.getrefcount(oks[0].record)

    assert references() == references()  # an exception that is raised again keeps every frame it passed


def test_decoder_and_normalizer_are_told_the_same() -> None:
    oks: list[Envelope[Any]] = []
    JsonDecoder(Pair).decode(record(b'{"id": 1, "x": 2}'), oks, [], [])
    other = type(Row)("Other", (Row,), {"__annotations__": {"id": int}}, table="other", primary_key="id")

    with pytest.raises(DeploymentFault, match="Pair"):
        normalizer(other).normalize(oks[0], NOW)
    assert normalizer(lambda raw: Pair(id=9, x=raw["x"])).normalize(oks[0], NOW) == Pair(id=9, x=2)


def test_an_event_may_have_a_function_beside_the_row_classes_of_others() -> None:
    oks: list[Envelope[Any]] = []
    JsonDecoder(lambda raw: Pair(id=raw["id"], x=None)).decode(record(b'{"id": 1}'), oks, [], [])

    assert normalizer(Pair).normalize(oks[0], NOW) == Pair(id=1, x=None)
