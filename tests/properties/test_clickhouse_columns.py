"""A column that is checked at once is sent as if each of its values had been checked by itself, or is inconclusive."""

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
from lovelace_streams.writers.clickhouse.at_once import packer_at_once
from lovelace_streams.writers.clickhouse.column_checks import INCONCLUSIVE, column_check
from lovelace_streams.writers.clickhouse.faults import ColumnValueError
from lovelace_streams.writers.clickhouse.native import column_packer
from lovelace_streams.writers.clickhouse.types import INTEGER_BOUNDS, parse_type
from lovelace_streams.writers.clickhouse.value_checks import value_check
from tests.examples import examples


class Colour(StrEnum):
    RED = "red"


KINDS: dict[Any, list[str]] = {
    int: list(INTEGER_BOUNDS),
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
AROUND = [
    0,
    -1,
    1,
    *(bound + off for low, high in INTEGER_BOUNDS.values() for bound in (low, high) for off in (-1, 0, 1)),
]
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
SAME_CLASS_VALUES = st.one_of(
    [st.lists(st.sampled_from(few), min_size=1) for few in (INSTANTS, DAYS, AROUND, TEXTS, [[1], ["é"]])]
)
VALUES = ONE | st.lists(ONE, max_size=3) | st.tuples(ONE)
GOOD_VALUES: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(0, 127),
    bool: st.booleans(),
    float: st.floats(),
    str: st.sampled_from(["red", "it's"]),
    datetime: st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    date: st.dates(date(1970, 1, 1), date(2149, 6, 6)),
    UUID: st.uuids(),
}
AT_ONCE = [(kind, shown) for kind, shown in PAIRS if packer_at_once(kind, parse_type(shown)) is not None]


def same(a: Any, b: Any) -> bool:
    return [*map(repr, a)] == [*map(repr, b)]


@pytest.mark.parametrize(("kind", "shown"), PAIRS, ids=str)
@settings(max_examples=examples(40))
@given(st.data())
def test_a_column_checked_at_once_is_sent_as_if_checked_singly(kind: Any, shown: str, data: st.DataObject) -> None:
    values = data.draw(st.lists(VALUES, min_size=1, max_size=4) | SAME_CLASS_VALUES)
    values *= data.draw(st.sampled_from([1, 5]))  # the same objects again: many rows share one instant
    check_column, check_value = column_check(kind, parse_type(shown)), value_check(kind, parse_type(shown))
    assert check_column is not None
    try:
        checked = check_column(values)
    except INCONCLUSIVE:
        return
    try:
        singly = [check_value(value) for value in values]
    except ColumnValueError:
        pytest.fail("accepted at once, refused singly")
    assert same(checked, singly)


@pytest.mark.parametrize(("kind", "shown"), PAIRS, ids=str)
@settings(max_examples=examples(40))
@given(st.data())
def test_a_column_of_good_values_is_checked_at_once(kind: Any, shown: str, data: st.DataObject) -> None:
    element = kind.__args__[0] if kind not in GOOD_VALUES else kind
    one = GOOD_VALUES[element] if kind in GOOD_VALUES else st.lists(GOOD_VALUES[element], max_size=3)
    if shown.startswith("Nullable"):
        one |= st.none()
    values = data.draw(st.lists(one, min_size=1, max_size=5))
    check_column, check_value = column_check(kind, parse_type(shown)), value_check(kind, parse_type(shown))
    assert check_column is not None
    assert same(check_column(values), [check_value(value) for value in values])


@pytest.mark.parametrize(("kind", "shown"), AT_ONCE, ids=str)
@settings(max_examples=examples(100))
@given(st.data())
def test_a_column_packed_at_once_is_sent_as_if_checked_singly(kind: Any, shown: str, data: st.DataObject) -> None:
    values = data.draw(st.lists(VALUES, min_size=1, max_size=4) | SAME_CLASS_VALUES)
    values *= data.draw(st.sampled_from([1, 17]))  # more than MessagePack has a short head for
    pack, check_value = packer_at_once(kind, parse_type(shown)), value_check(kind, parse_type(shown))
    assert pack is not None
    packed = None
    with suppress(*INCONCLUSIVE):
        packed = pack(values)
    if packed is None:
        return
    try:
        singly = [check_value(value) for value in values]
    except ColumnValueError:
        pytest.fail("accepted at once, refused singly")
    assert packed == column_packer(shown)(singly)


@pytest.mark.parametrize(
    ("kind", "shown", "values"),
    [
        (int, "Int64", [0, 1, 127]),
        (int, "Int64", [200, 128]),
        (int, "Int64", [2**16 - 1, 2**8]),
        (int, "Int64", [2**32 - 1, 2**16]),
        (int, "Nullable(Int64)", [2**63 - 1, 2**32]),
        (int, "UInt64", [2**64 - 1, 2**32]),
        (int, "Nullable(UInt64)", [None, None]),
        (bool, "Nullable(Bool)", [True, False]),
        (datetime, "DateTime64(6, 'UTC')", INSTANTS[:1]),
        (datetime, "Nullable(DateTime64(6))", [instant + timedelta(microseconds=1) for instant in INSTANTS[6:9:2]]),
        (list[int], "Array(Int64)", [[1], [], [2, 3]]),
        (list[int], "Array(Int64)", [[], []]),
    ],
    ids=str,
)
@pytest.mark.parametrize("times", [1, 20, 40_000])
def test_a_column_of_one_form_is_packed_at_once(kind: Any, shown: str, values: list[Any], times: int) -> None:
    pack, check_value = packer_at_once(kind, parse_type(shown)), value_check(kind, parse_type(shown))
    assert pack is not None
    assert pack(values * times) == column_packer(shown)([check_value(value) for value in values * times])


@pytest.mark.parametrize(("kind", "shown"), PAIRS, ids=str)
@settings(max_examples=examples(40))
@given(st.data())
def test_a_column_is_packed_as_the_client_does_it(kind: Any, shown: str, data: st.DataObject) -> None:
    check_value = value_check(kind, parse_type(shown))
    values = []
    for value in data.draw(st.lists(VALUES, min_size=1, max_size=4) | SAME_CLASS_VALUES):
        with suppress(ColumnValueError):
            values.append(check_value(value))
    if values:
        packed = bytearray()
        get_from_name(shown).write_column(values, packed, InsertContext("", [], []))
        assert column_packer(shown)(values) == packed
