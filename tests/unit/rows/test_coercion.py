"""One plain value to one column: what is taken, and what is refused and why, by both ways of mapping."""

from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest

from lovelace_streams.rows import UNSET, Before, Epoch, From, Lenient
from lovelace_streams.rows.values import ExactFloat
from tests.unit.rows.ways import check_refused, mapped, outcome, row_class

PAST = "past the years 1 to 9999"


class Colour(Enum):
    RED = "red"
    TWO = 2


class Point(msgspec.Struct):
    x: int


class Amount(msgspec.Struct):
    n: Decimal
    more: Any = None


UTC_TIME = datetime(2015, 4, 26, 6, 26, 56, 936000, tzinfo=UTC)
NEW_YEAR = datetime(2017, 1, 1, tzinfo=UTC)

TAKEN = [
    (int, "7", 7),
    (int, '"7"', 7),
    (int, '"-007"', -7),
    (int, "9223372036854775807", 2**63 - 1),
    (int, '"-9223372036854775808"', -(2**63)),
    (str, '"é\\ud83d\\ude00"', "é😀"),
    (str, '""', ""),
    (bool, "true", True),
    (Annotated[bool, Lenient], '"Yes"', True),
    (Annotated[bool, Lenient()], "0", False),
    (Annotated[str, Lenient()], "12", "12"),
    (Annotated[float, Lenient], '"1.5"', 1.5),
    (Annotated[float, Lenient], '" -1.5e3 "', -1500.0),
    (Annotated[float, Lenient], '"+.5"', 0.5),
    (Annotated[float, Lenient], '"5."', 5.0),
    (Annotated[float, Lenient], "7", 7.0),
    (Annotated[float | None, Lenient], '""', None),
    (Annotated[bool | None, Lenient], '""', None),
    (Annotated[bool, Lenient], '" Off "', False),
    (Annotated[int | None, Lenient], '""', None),
    (Annotated[int | None, Lenient], '"7"', 7),
    (Annotated[Decimal | None, Lenient], '""', None),
    (Annotated[Decimal | None, Lenient], '"1.50"', Decimal("1.50")),
    (Annotated[datetime | None, Lenient], '""', None),
    (Annotated[datetime | None, Lenient], '"2015-04-26T06:26:56.936Z"', UTC_TIME),
    (Annotated[datetime | None, Lenient, Epoch("ms")], '""', None),
    (Annotated[datetime | None, Lenient, Epoch("ms")], '"1430029616936"', UTC_TIME),
    (Annotated[date | None, Lenient], '""', None),
    (Annotated[UUID | None, Lenient], '""', None),
    (Annotated[Colour | None, Lenient], '""', None),
    (Annotated[Literal["", "a"] | None, Lenient], '""', ""),
    (Annotated[list[int] | None, Lenient], '""', None),
    (Annotated[dict | None, Lenient], '""', None),
    (Annotated[Any | None, Lenient], '""', ""),
    (Annotated[list[float | None], Lenient], '["1.5", "", null, 2]', [1.5, None, None, 2.0]),
    (Annotated[list[bool], Lenient], '["yes", 0]', [True, False]),
    (Annotated[str | None, Lenient], '""', ""),
    (Annotated[float | None, Lenient, msgspec.Meta(ge=0)], '""', None),
    (Annotated[float | None, Lenient, abs], '""', None),
    (Annotated[float | None, Lenient, abs], '"-2"', 2.0),
    (Annotated[float | None, Lenient, Before(lambda text: text.replace(",", "."))], '"1,5"', 1.5),
    (Annotated[float | None, Lenient, Before(lambda text: text.replace("-", ""))], '"-"', None),
    (Annotated[float | None, Lenient, Before(lambda text: text or "7")], '""', 7.0),
    (float, "1", 1.0),
    (float, "1e-400", 0.0),
    (Decimal, "0.10", Decimal("0.10")),
    (Decimal, "1234567890.12345678901234567890", Decimal("1234567890.12345678901234567890")),
    (Decimal, '"12.50"', Decimal("12.50")),
    (Decimal, "123456789012345678901234567890", Decimal(123456789012345678901234567890)),
    (datetime, '"2015-04-26T06:26:56.936000+00:00"', UTC_TIME),
    (datetime, '"2015-04-26T08:26:56.936+02:00"', UTC_TIME),
    (datetime, '"2015-04-26T06:26Z"', UTC_TIME.replace(second=0, microsecond=0)),
    (datetime, '"2015-04-26T08:26:56.936+02"', UTC_TIME),
    (datetime, '"20150426T042656.936-02"', UTC_TIME),
    (datetime, '"2015-04-26T16:25:56.936+09:59"', UTC_TIME),
    (datetime, '"2016-12-31T23:59:60Z"', NEW_YEAR),
    (datetime, '"2016-12-31t23:59:60z"', NEW_YEAR),
    (datetime, '"2016-12-31 18:59:60-05"', NEW_YEAR),
    (datetime, '"20161231T235960Z"', NEW_YEAR),
    (datetime, '"2017-01-01T05:29:60+05:30"', NEW_YEAR),
    (datetime, '"2016-12-31T23:59:60.500+00:00"', NEW_YEAR.replace(microsecond=500_000)),
    (datetime, '"2015-06-30T12:34:60Z"', datetime(2015, 6, 30, 12, 35, tzinfo=UTC)),
    (list[datetime], '["2016-12-31T23:59:60Z", "2017-01-01T01:00:00+01"]', [NEW_YEAR, NEW_YEAR]),
    (Annotated[datetime, Epoch("ms")], "1430029616936", UTC_TIME),
    (Annotated[datetime, Epoch("ms")], '"1430029616936"', UTC_TIME),
    (Annotated[datetime, Epoch("s")], "1430029616.936", UTC_TIME),
    (Annotated[datetime, Epoch("s")], "-1", datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
    (date, '"2020-02-29"', date(2020, 2, 29)),
    (UUID, '"12345678-1234-5678-1234-567812345678"', UUID("12345678123456781234567812345678")),
    (Colour, '"red"', Colour.RED),
    (Colour, "2", Colour.TWO),
    (Literal["a", "b"], '"b"', "b"),
    (dict, '{"a": [1.5, null, {"b": "c"}]}', {"a": [1.5, None, {"b": "c"}]}),
    (dict, '{"a": [1e400, 1.10]}', {"a": [ExactFloat(Decimal("1e400")), ExactFloat(Decimal("1.10"))]}),
    (dict, '{"a": 18446744073709551615}', {"a": 2**64 - 1}),
    (dict, f'{{"a": {"9" * 4400}}}', {"a": ExactFloat(Decimal("9" * 4400))}),
    (Any, "0e-99999999999999999999", 0),
    (float, "1e-99999999999999999999", 0.0),
    (Amount, '{"n": 19.999999999999999999}', Amount(Decimal("19.999999999999999999"))),
    (Amount, '{"n": 1, "more": [1.10]}', Amount(Decimal(1), [ExactFloat(Decimal("1.10"))])),
    (Amount, '{"n": 1, "more": "Infinity"}', Amount(Decimal(1), "Infinity")),
    (dict[str, int], '{"a": 1}', {"a": 1}),
    (Point, '{"x": 1, "more": 2}', Point(1)),
    (Any, "[1]", [1]),
]


@pytest.mark.parametrize(("hint", "text", "expected"), TAKEN)
def test_what_is_taken(hint: Any, text: str, expected: Any) -> None:
    assert repr(mapped(hint, text)) == repr(expected)


REFUSED = [
    (int, "1.0", "wrong_type", "expected int, got float at $.x"),
    (int, "true", "wrong_type", "expected int, got bool at $.x"),
    (int, '" 7"', "wrong_type", "expected int, got str at $.x"),
    (int, '"7_0"', "wrong_type", "expected int, got str at $.x"),
    (int, '"+7"', "wrong_type", "expected int, got str at $.x"),
    (int, '"\\u0663"', "wrong_type", "expected int, got str at $.x"),
    (int, '"7\\n"', "wrong_type", "expected int, got str at $.x"),
    (int, '""', "wrong_type", "expected int, got str at $.x"),
    (int, "{}", "wrong_type", "expected int, got object at $.x"),
    (int, "9223372036854775808", "out_of_range", "expected int of 64 bits, got a longer one at $.x"),
    (int, '"9223372036854775808"', "out_of_range", "expected int of 64 bits, got a longer one at $.x"),
    (int, "9" * 5000, "out_of_range", "expected int of 64 bits, got a longer one at $.x"),
    (int, f'"{"9" * 5000}"', "out_of_range", "expected int of 64 bits, got a longer one at $.x"),
    (int, "null", "null", "expected int, got null at $.x"),
    (str, "7", "wrong_type", "expected str, got int at $.x"),
    (str, '"a\\u0000b"', "bad_value", "expected str, got str with NUL at $.x"),
    (str, '"\\ud800"', "bad_value", "expected str, got str with a lone surrogate at $.x"),
    (Annotated[str, Lenient()], "true", "wrong_type", "expected str, got bool at $.x"),
    (bool, "1", "wrong_type", "expected bool, got int at $.x"),
    (bool, '"true"', "wrong_type", "expected bool, got str at $.x"),
    (Annotated[bool, Lenient()], '"maybe"', "bad_value", "expected bool, got str that says neither at $.x"),
    (Annotated[bool, Lenient()], "2", "bad_value", "expected bool, got int that says neither at $.x"),
    (float, '"1"', "wrong_type", "expected float, got str at $.x"),
    (float | None, '""', "wrong_type", "expected float, got str at $.x"),
    (Annotated[float, Lenient], '""', "null", "expected float, got empty text at $.x"),
    (Annotated[int, Lenient], '""', "null", "expected int, got empty text at $.x"),
    (Annotated[bool, Lenient], '""', "null", "expected bool, got empty text at $.x"),
    (Annotated[float, Lenient], '"1,5"', "bad_value", "expected float, got str that is no number at $.x"),
    (Annotated[float | None, Lenient], '" "', "bad_value", "expected float, got str that is no number at $.x"),
    (Annotated[float, Lenient], '"1_0"', "bad_value", None),
    (Annotated[float, Lenient], '"nan"', "bad_value", None),
    (Annotated[float, Lenient], '"inf"', "bad_value", None),
    (Annotated[float, Lenient], '"\u0661"', "bad_value", None),
    (Annotated[float, Lenient], '"1e400"', "out_of_range", "expected float, got a number that is not finite at $.x"),
    (Annotated[float, Lenient], "true", "wrong_type", None),
    (Annotated[list[float], Lenient], '["1.5", ""]', "wrong_type", "expected float, got null at $.x[]"),
    (float, "1e400", "out_of_range", "expected float, got a number that is not finite at $.x"),
    (Decimal, '"NaN"', "bad_value", "expected Decimal, got str that is no number at $.x"),
    (Decimal, "1e200000", "out_of_range", "expected Decimal, got a number past Postgres' numeric at $.x"),
    (Decimal, "1e99999999999999999999", "out_of_range", "expected Decimal, got a number that is not finite at $.x"),
    (datetime, '"2015-04-26T06:26:56"', "bad_value", "expected datetime with offset, got one without at $.x"),
    (datetime, '"2015-02-30T00:00:00Z"', "bad_value", "expected datetime, got str that is no ISO datetime at $.x"),
    (datetime, '"0001-01-01T00:00:00+10:00"', "bad_value", f"expected datetime, got one {PAST} at $.x"),
    (datetime, '"2020-01-01T00:00:00+10:60"', "bad_value", "expected datetime, got str that is no ISO datetime at $.x"),
    (datetime, '"2020-01-01T00:00:00-10:60"', "bad_value", None),
    (datetime, '"2020-01-01T00:00:00+1099"', "bad_value", None),
    (datetime, '"2020-01-01T00:00:00+10:59:60"', "bad_value", None),
    (datetime, '"2020-01-01T00:00:00+24:00"', "bad_value", None),
    (datetime, '"2020-01-01T00:00:61Z"', "bad_value", None),
    (datetime, '"2020-01-01T00:60:60Z"', "bad_value", None),
    (datetime, '"2016-12-31T23:59:60"', "bad_value", "expected datetime with offset, got one without at $.x"),
    (datetime, '"2016-12-31T23:59:60+10:60"', "bad_value", None),
    (datetime, '"9999-12-31T23:59:60Z"', "bad_value", f"expected datetime, got one {PAST} at $.x"),
    (list[datetime], '["2020-01-01T00:00:00+10:60"]', "bad_value", None),
    (datetime, "1430029616936", "wrong_type", "expected datetime, got int at $.x"),
    (Annotated[datetime, Epoch("s")], "1430029616936000", "bad_value", None),
    (date, '"2021-02-29"', "bad_value", "expected date, got str that is no ISO date at $.x"),
    (date, '"2020-02-29T00:00:00Z"', "bad_value", "expected date, got str that is no ISO date at $.x"),
    (date, '"\\ud800"', "bad_value", None),
    (UUID, '"\\ud800"', "bad_value", None),
    (datetime, '"\\ud800"', "bad_value", None),
    (Decimal, '"\\ud800"', "bad_value", None),
    (Colour, '"\\ud800"', "bad_value", None),
    (UUID, '"x"', "bad_value", "expected UUID, got str that is none at $.x"),
    (Colour, '"green"', "bad_value", "expected Colour, got another str at $.x"),
    (Colour, "[]", "wrong_type", "expected Colour, got list at $.x"),
    (Colour, "true", "wrong_type", "expected Colour, got bool at $.x"),
    (Literal["a"], '"b"', "bad_value", "expected one of a Literal, got another str at $.x"),
    (dict, '{"a": {"b\\u0000": 1}}', "bad_value", "expected str, got str with NUL at $.x"),
    (dict, '{"a": "\\udc00"}', "bad_value", "expected str, got str with a lone surrogate at $.x"),
    (dict, '{"a": [1e200000]}', "out_of_range", "expected Decimal, got a number past Postgres' numeric at $.x"),
    (dict, '{"a": 1e-99999999999999999999}', "out_of_range", None),
    (Decimal, "1e-99999999999999999999", "out_of_range", None),
    (Amount, '{"n": "NaN"}', "out_of_range", "expected Decimal, got a number that is not finite at $.x"),
    (Amount, '{"n": "-sNaN12"}', "out_of_range", None),
    (dict, "[]", "wrong_type", "expected object, got list at $.x"),
    (Point, '{"x": "secret"}', "wrong_type", "expected object, got object that does not fit at $.x.x"),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "text", "reason", "detail"), REFUSED)
def test_what_is_refused_and_why(hint: Any, text: str, reason: str, detail: str | None) -> None:
    check_refused(hint, text, reason, detail)


@pytest.mark.parametrize("kind", [float, bool, int, Decimal, datetime, date, UUID, list[int]])
def test_empty_text_takes_a_default_where_one_is_declared(kind: Any) -> None:
    default = {float: 0.5, bool: True, int: 5, list[int]: []}.get(kind)
    lenient = Annotated[kind | None, Lenient] if default is None else Annotated[kind, Lenient]
    assert mapped(lenient, '""', default=default) == default
    assert mapped(Annotated[kind | None, Lenient], '""', default=default) == default
    assert mapped(Annotated[kind | None, Lenient], "null", default=default) is None


def test_empty_text_is_passed_over_where_there_are_several_paths() -> None:
    several = Annotated[float | None, From("x.a", "x.b", "x.c"), Lenient]
    assert mapped(several, '{"a": "", "b": "1.5"}') == 1.5
    assert mapped(several, '{"a": "", "b": null, "c": 2}') == 2.0
    assert mapped(several, '{"a": "", "b": ""}') is None
    assert mapped(several, '{"b": ""}') is None
    assert mapped(several, "{}") is UNSET
    assert mapped(several, '{"a": "", "b": null}', default=3.5) is None
    assert mapped(several, '{"a": ""}', default=3.5) == 3.5


def test_a_key_or_version_of_empty_text_is_refused() -> None:
    check_refused_key = row_class(Annotated[int, Lenient], primary_key="x", default=7)
    assert outcome(check_refused_key, '{"id": 1, "x": ""}') == ("null", "expected int, got empty text at $.x")
