"""One value to one column: what is taken, what is refused and why, by both ways of mapping."""

import contextlib
import gc
import json
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest

from lovelace_streams.errors import DeploymentFault, RecordFault
from lovelace_streams.formats.events import Events, Items
from lovelace_streams.formats.json import JsonDecoder
from lovelace_streams.records import Envelope, Origin, Record
from lovelace_streams.rows import UNSET, Before, Epoch, From, FromKafka, Lenient, Row, Skip
from lovelace_streams.rows.interpreter import interpret
from lovelace_streams.rows.normalizer import normalizer

NOW = 1_700_000_000_000


def record(value: bytes | None = None, **fields: Any) -> Record:
    return Record("topic", 3, 7, 0, 0, fields.pop("key", None), value, [], fields.pop("timestamp", NOW), **fields)


def row_class(hint: Any, **options: Any) -> type[Row]:
    body = {"__annotations__": {"id": int, "x": hint}, "__module__": __name__}
    if "default" in options:
        body["x"] = options.pop("default")
    return type(Row)("Made", (Row,), body, table="made", **{"primary_key": "id", **options})


def outcome(row: type[Row], text: str, **fields: Any) -> Any:
    """The value of column x, or the reason and detail; both ways of mapping agree on it."""
    oks: list[Envelope[Any]] = []
    errs: list[Any] = []
    JsonDecoder(row).decode(record(text.encode(), **fields), oks, errs, [])
    (envelope,) = oks
    item, root = envelope.payload.plain()

    def ended(make: Any) -> Any:
        try:
            return make().x
        except RecordFault as fault:
            return str(fault.reason), fault.detail

    got = ended(lambda: normalizer(row).normalize(envelope, NOW))
    assert repr(got) == repr(ended(lambda: interpret(row, item, envelope.record, root, NOW)))
    return got


def mapped(hint: Any, text: str, **options: Any) -> Any:
    return outcome(row_class(hint, **options), f'{{"id": 1, "x": {text}}}')


PAST = "past the years 1 to 9999"
MISSING = ("missing", "expected int, got nothing at $.x")
NULL = ("null", "expected int, got null at $.x")
NO_TIMESTAMP = ("missing", "expected datetime, got nothing at Kafka's timestamp")
FAR_TIMESTAMP = ("bad_value", f"expected datetime, got a number {PAST} at Kafka's timestamp")
BAD_KEY = ("bad_value", "expected UTF-8, got other bytes at Kafka's key")


class Colour(Enum):
    RED = "red"
    TWO = 2


class Point(msgspec.Struct):
    x: int


UTC_TIME = datetime(2015, 4, 26, 6, 26, 56, 936000, tzinfo=UTC)

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
    (float, "1", 1.0),
    (float, "1e-400", 0.0),
    (Decimal, "0.10", Decimal("0.10")),
    (Decimal, "1234567890.12345678901234567890", Decimal("1234567890.12345678901234567890")),
    (Decimal, '"12.50"', Decimal("12.50")),
    (Decimal, "123456789012345678901234567890", Decimal(123456789012345678901234567890)),
    (datetime, '"2015-04-26T06:26:56.936000+00:00"', UTC_TIME),
    (datetime, '"2015-04-26T08:26:56.936+02:00"', UTC_TIME),
    (datetime, '"2015-04-26T06:26Z"', UTC_TIME.replace(second=0, microsecond=0)),
    (Annotated[datetime, Epoch("ms")], "1430029616936", UTC_TIME),
    (Annotated[datetime, Epoch("ms")], '"1430029616936"', UTC_TIME),
    (Annotated[datetime, Epoch("s")], "1430029616.936", UTC_TIME),
    (Annotated[datetime, Epoch("s")], "-1", datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
    (date, '"2020-02-29"', date(2020, 2, 29)),
    (UUID, '"12345678-1234-5678-1234-567812345678"', UUID("12345678123456781234567812345678")),
    (Colour, '"red"', Colour.RED),
    (Colour, "2", Colour.TWO),
    (Literal["a", "b"], '"b"', "b"),
    (list[int], '["1", 2]', [1, 2]),
    (list[int | None], "[null, 2]", [None, 2]),
    (list[datetime], '["2015-04-26T06:26:56.936Z"]', [UTC_TIME]),
    (dict, '{"a": [1.5, null, {"b": "c"}]}', {"a": [1.5, None, {"b": "c"}]}),
    (dict[str, int], '{"a": 1}', {"a": 1}),
    (Point, '{"x": 1, "more": 2}', Point(1)),
    (list[Point], '[{"x": 1}]', [Point(1)]),
    (Any, "[1]", [1]),
    (Annotated[str, str.strip, str.lower], '" AbC "', "abc"),
    (Annotated[int, Before(len)], '"four"', 4),
    (Annotated[float, Before(lambda value: value / 2)], "1.5", 0.75),
    (Annotated[int, msgspec.Meta(ge=0, lt=10, multiple_of=3)], "9", 9),
    (Annotated[str, str.strip, msgspec.Meta(max_length=2)], '" ab "', "ab"),
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
    (float, "1e400", "out_of_range", "expected float, got a number that is not finite at $.x"),
    (Decimal, '"NaN"', "bad_value", "expected Decimal, got str that is no number at $.x"),
    (Decimal, "1e200000", "out_of_range", "expected Decimal, got a number past Postgres' numeric at $.x"),
    (Decimal, "1e99999999999999999999", "out_of_range", "expected Decimal, got a number that is not finite at $.x"),
    (datetime, '"2015-04-26T06:26:56"', "bad_value", "expected datetime with offset, got one without at $.x"),
    (datetime, '"2015-02-30T00:00:00Z"', "bad_value", "expected datetime, got str that is no ISO datetime at $.x"),
    (datetime, '"0001-01-01T00:00:00+10:00"', "bad_value", f"expected datetime, got one {PAST} at $.x"),
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
    (list[int], '["1", null]', "wrong_type", "expected int, got null at $.x[]"),
    (list[int], '["1", "x"]', "wrong_type", "expected int, got str at $.x[]"),
    (list[int], '["9223372036854775808"]', "out_of_range", "expected int of 64 bits, got a longer one at $.x[]"),
    (list[str], '["\\u0000"]', "bad_value", "expected str, got str with NUL at $.x[]"),
    (list[int], "5", "wrong_type", "expected list of int, got int at $.x"),
    (dict, '{"a": {"b\\u0000": 1}}', "bad_value", "expected str, got str with NUL at $.x"),
    (dict, '{"a": "\\udc00"}', "bad_value", "expected str, got str with a lone surrogate at $.x"),
    (dict, '{"a": [1e400]}', "out_of_range", "expected float, got a number that is not finite at $.x"),
    (dict, '{"a": 9223372036854775808}', "out_of_range", "expected int of 64 bits, got a longer one at $.x"),
    (dict, "[]", "wrong_type", "expected object, got list at $.x"),
    (Point, '{"x": "secret"}', "wrong_type", "expected object, got object that does not fit at $.x.x"),
    (Annotated[str, refuse], '"secret"', "rule", "refuse refuses what is at $.x"),
    (Annotated[str, Before(explode)], '"secret"', "rule", "explode raised KeyError at $.x"),
    (Annotated[int, float], "5", "wrong_type", "expected int, got float at $.x after float"),
    (Annotated[int, msgspec.Meta(ge=0)], "-1", "out_of_range", "expected int with ge=0, got one without at $.x"),
    (Annotated[str, msgspec.Meta(max_length=2)], '"abc"', "bad_value", None),
    (Annotated[str, msgspec.Meta(pattern="^a")], '"b"', "bad_value", None),
    (list[Annotated[int, msgspec.Meta(ge=0)]], "[-1]", "out_of_range", None),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "text", "reason", "detail"), REFUSED)
def test_what_is_refused_and_why(hint: Any, text: str, reason: str, detail: str | None) -> None:
    got = mapped(hint, text)

    assert got[0] == reason, got
    assert detail is None or got[1] == detail
    assert "secret" not in got[1]


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


class Strict(Row, table="strict", primary_key="id"):
    id: int
    x: int

    def __post_init__(self) -> None:
        if self.x is not UNSET and self.x > 5:
            raise ValueError("secret")


def test_a_rule_over_several_fields_is_a_post_init() -> None:
    assert outcome(Strict, '{"id": 1, "x": 5}') == 5
    assert outcome(Strict, '{"id": 1, "x": 6}') == ("rule", "Strict.__post_init__ refuses what is at $")


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


@pytest.mark.parametrize(
    ("hint", "fields", "expected"),
    [
        (Annotated[datetime, FromKafka("timestamp")], {"timestamp": 1430029616936}, UTC_TIME),
        (Annotated[int, FromKafka("timestamp")], {"timestamp": 5}, 5),
        (Annotated[datetime, FromKafka("timestamp")], {"timestamp": -1}, NO_TIMESTAMP),
        (Annotated[datetime | None, FromKafka("timestamp")], {"timestamp": -1}, UNSET),
        (Annotated[datetime, FromKafka("timestamp")], {"timestamp": 2**62}, FAR_TIMESTAMP),
        (Annotated[str, FromKafka("topic")], {}, "topic"),
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


@pytest.mark.parametrize(("hours", "fits"), [(-1, True), (23, True), (25, False)])
def test_a_version_may_not_be_a_day_ahead(hours: int, fits: bool) -> None:
    text = (datetime.fromtimestamp(NOW / 1000, UTC) + timedelta(hours=hours)).isoformat()

    got = outcome(row_class(datetime, version="x"), json.dumps({"id": 1, "x": text}))

    assert isinstance(got, datetime) if fits else got == ("version_in_future", "x is more than a day ahead of now")


@pytest.mark.parametrize(
    "hint",
    [
        bytes,
        int | str,
        tuple[int],
        set[int],
        Annotated[int, Epoch("s")],
        Annotated[str, FromKafka("timestamp")],
        Annotated[str, msgspec.Meta(ge=1)],
        Annotated[int, From("a..b")],
    ],
)
def test_what_no_column_can_be_is_refused_when_it_is_declared(hint: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        JsonDecoder(row_class(hint))


# ---- functions instead of paths -----------------------------------------------------------------------------------


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


def test_paths_in_messages_are_absolute() -> None:
    decoder = JsonDecoder(Events("t", {"M": Items("d.members", Pair)}, Skip("unknown_event")))
    oks: list[Envelope[Any]] = []
    decoder.decode(record(b'{"t": "M", "d": {"members": [{"id": []}]}}'), oks, [], [])

    with pytest.raises(RecordFault, match=r"expected int, got list at \$\.d\.members\[\]\.id"):
        normalizer(Pair).normalize(oks[0], NOW)


def test_an_item_may_be_a_value_itself() -> None:
    class Gone(Row, table="gone", primary_key="id"):
        id: Annotated[int, From(".")]
        channel: Annotated[int, From("$.d.channel")]

    decoder = JsonDecoder(Events("t", {"BULK": Items("d.ids", Gone)}, otherwise=Skip("unknown_event")))
    assert Gone.from_raw("7", {"d": {"channel": 1}}) == Gone(id=7, channel=1)
    for value in ({"id": 7}, None, ["7"]):
        with pytest.raises(RecordFault, match=r"int, got (object|null|list) at \$"):
            Gone.from_raw(value, {"d": {"channel": 1}})

    oks, errs, skipped = [], [], []
    record = Record("t", 0, 0, 0, 1, None, b'{"t":"BULK","d":{"ids":["7",8],"channel":1}}', [], 0)
    decoder.decode(record, oks, errs, skipped)
    made = normalizer(Gone)
    assert [made.normalize(envelope, 0) for envelope in oks] == [Gone(id=7, channel=1), Gone(id=8, channel=1)]
