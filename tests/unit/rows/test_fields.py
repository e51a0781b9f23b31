"""One column with all of its declaration: functions, absent and null, several paths, what comes from Kafka."""

from datetime import UTC, datetime
from typing import Annotated, Any

import pytest

from lovelace_streams.records import Origin
from lovelace_streams.rows import UNSET, Before, From, FromKafka
from tests.unit.rows.ways import check_refused, mapped, outcome, row_class

MISSING = ("missing", "expected int, got nothing at $.x")
NULL = ("null", "expected int, got null at $.x")
NO_TIMESTAMP = ("missing", "expected datetime, got nothing at Kafka's timestamp")
FAR_TIMESTAMP = ("bad_value", "expected datetime, got a number past the years 1 to 9999 at Kafka's timestamp")
BAD_KEY = ("bad_value", "expected UTF-8, got other bytes at Kafka's key")
UTC_TIME = datetime(2015, 4, 26, 6, 26, 56, 936000, tzinfo=UTC)
TAKEN = [
    (Annotated[str, str.strip, str.lower], '" AbC "', "abc"),
    (Annotated[int, Before(len)], '"four"', 4),
    (Annotated[float, Before(lambda value: value / 2)], "1.5", 0.75),
    (Annotated[str | None, Before(lambda value: value or None)], '""', None),
]


@pytest.mark.parametrize(("hint", "text", "expected"), TAKEN)
def test_what_is_taken(hint: Any, text: str, expected: Any) -> None:
    assert repr(mapped(hint, text)) == repr(expected)


def refuse(value: Any) -> Any:
    raise ValueError(f"secret {value}")


def explode(value: Any) -> Any:
    raise KeyError(value)


REFUSED = [
    (Annotated[str, refuse], '"secret"', "rule", "refuse refuses what is at $.x"),
    (Annotated[str, Before(explode)], '"secret"', "rule", "explode raised KeyError at $.x"),
    (Annotated[int, float], "5", "wrong_type", "expected int, got float at $.x after float"),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "text", "reason", "detail"), REFUSED)
def test_what_is_refused_and_why(hint: Any, text: str, reason: str, detail: str | None) -> None:
    check_refused(hint, text, reason, detail)


@pytest.mark.parametrize(
    ("hint", "options", "absent", "null"),
    [
        (int, {}, MISSING, NULL),
        (int | None, {}, UNSET, None),
        (int, {"default": 5}, 5, NULL),
        (int | None, {"default": 5}, 5, None),
        (int, {"primary_key": "x"}, MISSING, NULL),
        (int, {"primary_key": "x", "default": 5}, MISSING, NULL),
        (int, {"version": "x"}, MISSING, NULL),
    ],
)  # fmt: skip
def test_absent_is_not_null(hint: Any, options: Any, absent: Any, null: Any) -> None:
    row = row_class(hint, **options)

    assert outcome(row, '{"id": 1}') == absent
    assert outcome(row, '{"id": 1, "x": null}') == null


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", UNSET),
        ('{"a": null}', None),
        ('{"b": {"c": null}}', None),
        ('{"a": null, "b": {"c": "value"}}', "value"),
        ('{"a": "first", "b": {"c": "value"}}', "first"),
        ('{"a": "first", "b": {"c": 5}}', "first"),
        ('{"a": "", "b": {"c": "value"}}', ""),
        ('{"b": null}', UNSET),
        ('{"a": null, "b": null}', None),
        ('{"b": []}', ("wrong_type", "expected object, got list at $.b")),
    ],
)
def test_several_paths_and_null_parents(text: str, expected: Any) -> None:
    row = row_class(Annotated[str | None, From("a", "b.c")])

    assert outcome(row, '{"id": 1, ' + text[1:].replace("}", "}", 1) if text != "{}" else '{"id": 1}') == expected


def test_a_missing_value_names_all_its_paths() -> None:
    row = row_class(Annotated[str, From("a", "b.c", "$.d")])

    assert outcome(row, '{"id": 1}') == ("missing", "expected str, got nothing at $.a or $.b.c or $.d")


@pytest.mark.parametrize(
    ("hint", "fields", "expected"),
    [
        (Annotated[datetime, FromKafka("timestamp")], {"timestamp": 1430029616936}, UTC_TIME),
        (Annotated[int, FromKafka("timestamp")], {"timestamp": 5}, 5),
        (Annotated[datetime, FromKafka("timestamp")], {"timestamp": -1}, NO_TIMESTAMP),
        (Annotated[datetime | None, FromKafka("timestamp")], {"timestamp": -1}, UNSET),
        (Annotated[datetime, FromKafka("timestamp")], {"timestamp": 2**62}, FAR_TIMESTAMP),
        (Annotated[str, FromKafka("topic")], {}, "topic"),
        (Annotated[str, FromKafka("topic"), Before(str.upper)], {}, "TOPIC"),
        (Annotated[str, FromKafka("key"), Before(str.upper)], {"key": b"k"}, "K"),
        (Annotated[int, FromKafka("partition")], {}, 3),
        (Annotated[int, FromKafka("offset")], {}, 7),
        (Annotated[bytes, FromKafka("key")], {"key": b"\xff"}, b"\xff"),
        (Annotated[str, FromKafka("key")], {"key": b"k"}, "k"),
        (Annotated[str, FromKafka("key")], {"key": b"\xff"}, BAD_KEY),
        (Annotated[int, FromKafka("key")], {"key": b"12"}, 12),
        (Annotated[str | None, FromKafka("key")], {}, None),
        (Annotated[str, FromKafka("key")], {}, ("null", "expected str, got null at Kafka's key")),
        (Annotated[int, FromKafka("offset")], {"origin": Origin("id", "first", 1, 99, 5)}, 99),
        (Annotated[str, FromKafka("topic")], {"origin": Origin("id", "first", 1, 99, 5)}, "first"),
        (Annotated[int, FromKafka("timestamp")], {"origin": Origin("id", "first", 1, 99, 5)}, 5),
    ],
)  # fmt: skip
def test_what_comes_from_kafka(hint: Any, fields: Any, expected: Any) -> None:
    assert outcome(row_class(hint), '{"id": 1}', **fields) == expected
