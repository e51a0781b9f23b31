"""A column that is checked at once is sent as if each value of it had been checked by itself, or says that it can't."""

from contextlib import suppress
from datetime import UTC, date, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any
from uuid import UUID

import pytest
from clickhouse_connect.datatypes.registry import get_from_name
from clickhouse_connect.driver.insert import InsertContext
from hypothesis import given, settings
from hypothesis import strategies as st

from lovelace_streams.rows import UNSET
from lovelace_streams.writers.clickhouse.native import pack
from lovelace_streams.writers.clickhouse.types import DOUBTS, INTEGERS, Unfit, parse, taker, whole
from tests.examples import examples


class Colour(StrEnum):
    RED = "red"


KINDS: dict[Any, list[str]] = {
    int: list(INTEGERS),
    bool: ["Bool", "UInt8"],
    float: ["Float64"],
    str: ["String", "Enum8('red' = 1, 'it\\'s' = 2)"],
    datetime: ["DateTime", "DateTime64(3)", "DateTime64(6, 'UTC')", "DateTime64(9)"],
    date: ["Date", "Date32"],
    UUID: ["UUID"],
    list[int]: ["Array(Int8)", "Array(Nullable(Int64))"],
    list[str]: ["Array(String)"],
}
PAIRS = [(kind, shown) for kind, names in KINDS.items() for shown in names] + [
    (kind, f"Nullable({shown})") for kind, names in KINDS.items() for shown in names if "Array" not in shown
]

EAST = timezone(timedelta(hours=14))
AROUND = [0, -1, 1, *(bound + off for low, high in INTEGERS.values() for bound in (low, high) for off in (-1, 0, 1))]
ODD = [
    None,
    UNSET,
    True,
    False,
    1.5,
    float("nan"),
    "",
    "red",
    "ü",
    "\0",
    "\ud800",
    "it's",
    Colour.RED,
    b"",
    UUID(int=5),
]
INSTANTS = [
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(1970, 1, 1, 14, tzinfo=EAST),
    datetime(1970, 1, 1),  # noqa: DTZ001
    datetime(1900, 1, 1, tzinfo=EAST),
    datetime(1900, 1, 1, tzinfo=UTC),
    datetime(2106, 2, 7, 6, 28, 15, 999999, tzinfo=UTC),
    datetime(2262, 4, 11, tzinfo=UTC),
    datetime(2262, 4, 11, 0, 0, 0, 1, tzinfo=UTC),
    datetime(2299, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(2300, 1, 1, tzinfo=UTC),
    datetime(9999, 12, 31, tzinfo=UTC),
]
DAYS = [date(1900, 1, 1), date(1899, 12, 31), date(1970, 1, 1), date(2149, 6, 6), date(2149, 6, 7), date(2300, 1, 1)]
ONE: st.SearchStrategy[Any] = (
    st.sampled_from([*AROUND, *ODD, *INSTANTS, *DAYS])
    | st.integers()
    | st.text(max_size=3)
    | st.datetimes(timezones=st.sampled_from([UTC, EAST]))
    | st.dates()
)
TEXTS = [value for value in ODD if isinstance(value, str)]
ALIKE = st.one_of([st.lists(st.sampled_from(few), min_size=1) for few in (INSTANTS, DAYS, AROUND, TEXTS, [[1], ["é"]])])
VALUES = ONE | st.lists(ONE, max_size=3) | st.tuples(ONE)
OF_KIND: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(0, 127),
    bool: st.booleans(),
    float: st.floats(),
    str: st.sampled_from(["red", "it's"]),
    datetime: st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    date: st.dates(date(1970, 1, 1), date(2149, 6, 6)),
    UUID: st.uuids(),
}


def same(a: Any, b: Any) -> bool:
    return [*map(repr, a)] == [*map(repr, b)]


@pytest.mark.parametrize(("kind", "shown"), PAIRS, ids=str)
@settings(max_examples=examples(40))
@given(st.data())
def test_a_column_at_once_is_never_taken_otherwise(kind: Any, shown: str, data: st.DataObject) -> None:
    values = data.draw(st.lists(VALUES, min_size=1, max_size=4) | ALIKE)
    values *= data.draw(st.sampled_from([1, 5]))  # the same objects again: many rows share one instant
    way, take = whole(kind, parse(shown)), taker(kind, parse(shown))
    assert way is not None
    try:
        taken = way(values)
    except DOUBTS:
        return
    try:
        singly = [take(value) for value in values]
    except Unfit:
        pytest.fail("taken at once, refused singly")
    assert same(taken, singly)


@pytest.mark.parametrize(("kind", "shown"), PAIRS, ids=str)
@settings(max_examples=examples(40))
@given(st.data())
def test_a_column_of_good_values_is_taken_at_once(kind: Any, shown: str, data: st.DataObject) -> None:
    element = kind.__args__[0] if kind not in OF_KIND else kind
    one = OF_KIND[element] if kind in OF_KIND else st.lists(OF_KIND[element], max_size=3)
    if shown.startswith("Nullable"):
        one |= st.none()
    values = data.draw(st.lists(one, min_size=1, max_size=5))
    way, take = whole(kind, parse(shown)), taker(kind, parse(shown))
    assert way is not None
    assert same(way(values), [take(value) for value in values])


@pytest.mark.parametrize(("kind", "shown"), PAIRS, ids=str)
@settings(max_examples=examples(40))
@given(st.data())
def test_a_column_is_packed_as_the_client_does_it(kind: Any, shown: str, data: st.DataObject) -> None:
    take = taker(kind, parse(shown))
    values = []
    for value in data.draw(st.lists(VALUES, min_size=1, max_size=4) | ALIKE):
        with suppress(Unfit):
            values.append(take(value))
    if values:
        body = bytearray()
        get_from_name(shown).write_column(values, body, InsertContext("", [], []))
        assert pack(shown)(values) == body
