"""Types with parts: lists of each type, and types that no column can have."""

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import pytest

from lovelace_streams.formats.json import JsonDecoder
from lovelace_streams.rows import Epoch, FromKafka
from tests.unit.rows.ways import check_refused, mapped, row_class

UTC_TIME = datetime(2015, 4, 26, 6, 26, 56, 936000, tzinfo=UTC)


class Point(msgspec.Struct):
    x: int


TAKEN = [
    (list[int], '["1", 2]', [1, 2]),
    (list[int | None], "[null, 2]", [None, 2]),
    (list[datetime], '["2015-04-26T06:26:56.936Z"]', [UTC_TIME]),
    (list[Point], '[{"x": 1}]', [Point(1)]),
]


@pytest.mark.parametrize(("hint", "text", "expected"), TAKEN)
def test_what_is_taken(hint: Any, text: str, expected: Any) -> None:
    assert repr(mapped(hint, text)) == repr(expected)


REFUSED = [
    (list[int], '["1", null]', "wrong_type", "expected int, got null at $.x[]"),
    (list[int], '["1", "x"]', "wrong_type", "expected int, got str at $.x[]"),
    (list[int], '["9223372036854775808"]', "out_of_range", "expected int of 64 bits, got a longer one at $.x[]"),
    (list[str], '["\\u0000"]', "bad_value", "expected str, got str with NUL at $.x[]"),
    (list[int], "5", "wrong_type", "expected list of int, got int at $.x"),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "text", "reason", "detail"), REFUSED)
def test_what_is_refused_and_why(hint: Any, text: str, reason: str, detail: str | None) -> None:
    check_refused(hint, text, reason, detail)


@pytest.mark.parametrize(
    "hint",
    [
        bytes,
        int | str,
        tuple[int],
        set[int],
        Annotated[str, Epoch("s")],
        Annotated[str, FromKafka("timestamp")],
        Annotated[str, msgspec.Meta(ge=1)],
    ],
)
def test_what_no_column_can_be_is_refused_when_it_is_declared(hint: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        JsonDecoder(row_class(hint))
