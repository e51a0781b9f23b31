"""The generated mapping equals the interpreted one, on random row classes and random payloads, singles and chunks."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from functools import partial
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from lovelace_streams.errors import RecordFault
from lovelace_streams.formats.events import Events, Items
from lovelace_streams.formats.json import JsonDecoder
from lovelace_streams.records import Envelope, Origin, Record
from lovelace_streams.rows import Before, Epoch, From, FromKafka, Lenient, Row, Skip, rule
from lovelace_streams.rows.interpreter import interpret, latest
from lovelace_streams.rows.normalizer import RawItem, normalizer
from lovelace_streams.rows.paths import AnyPath, JsonPath
from tests.examples import examples

NOW = 1_700_000_000_000


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Point(msgspec.Struct):
    x: int
    y: float = 0.0


def half(value: Any) -> Any:
    return value / 2


def refuse_long(value: str) -> str:
    if len(value) > 3:
        raise ValueError(value)
    return value


def empty_is_null(value: Any) -> Any:
    return value or None


def wrong(value: Any) -> Any:
    return object()


NAMES = ["a", "b", "class", "with-dash", "_x", "é"]
TEXTS = st.one_of(st.sampled_from(["", "x", "NUL\0", "\ud800", "é", "true", "NaN", "red"]), st.text(max_size=5))
NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**30, 1.5, 1.0, -0.0, 1e300, 0.1]),
    st.floats(allow_nan=False, allow_infinity=False),
)
IDS = st.sampled_from(
    ["7", "-7", "007", " 7", "7_0", "+7", "٣", "²", "", "9223372036854775807", "9223372036854775808", "1.0"]
)
TIMES = st.one_of(
    st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
    st.sampled_from(
        ["2020-01-01T00:00:00", "2020-02-30T00:00:00Z", "0001-01-01T00:00:00+10:00", "2020-01-01T00:00Z", "2020-01-01",
         "2020-01-01 00:00:00.1234567+05:30", "2023-11-15T12:00:00Z", "2023-11-17T00:00:00Z", "2020-W01-1T00:00:00Z",
         "2016-12-31T23:59:60Z", "2020-01-01T00:00:00+10:60", "2020-01-01T00:00:00+01", "9999-12-31T23:59:60Z"]
    ),
)  # fmt: skip
ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS, IDS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)),
    max_leaves=6,
)
GOOD_TEXT = st.sampled_from(["x", "abc", "É", "red", "TRUE", "a b", "tab\t"])
GOOD_TIME = st.one_of(
    st.sampled_from(["2023-11-14T00:00:00Z", "2020-01-01 00:00:00.1234567+05:30", "2020-01-01T00:00Z"])
)
GOOD_ID = st.one_of(
    st.integers(-5, 5), st.sampled_from(["7", "-7", "007", "1053216545641239999", "9223372036854775807"])
)
ODD = st.one_of(ANYTHING, IDS, TEXTS, NUMBERS, TIMES, st.sampled_from(["1.10", "1e400", "2021-02-29", "green", 2**62]))
KINDS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, GOOD_ID),
    (Annotated[int, msgspec.Meta(ge=0, multiple_of=2)], st.sampled_from([0, 2, "4", 3])),
    (str, GOOD_TEXT),
    (Annotated[str, msgspec.Meta(max_length=3, pattern="^[a-z]*$")], GOOD_TEXT),
    (Annotated[str, str.upper], GOOD_TEXT),
    (Annotated[str, str.strip, refuse_long], GOOD_TEXT),
    (Annotated[str, Before(empty_is_null)], GOOD_TEXT),
    (Annotated[int, Before(half), int], st.just("x")),
    (Annotated[float, Before(half)], st.sampled_from([1, 2.5])),
    (Annotated[int, half], st.integers(-5, 5)),
    (Annotated[datetime, wrong], GOOD_TIME),
    (Annotated[str, empty_is_null], GOOD_TEXT),
    (Annotated[str, Lenient()], st.one_of(GOOD_TEXT, st.integers(), st.just(1.5))),
    (bool, st.booleans()),
    (Annotated[bool, Lenient], st.sampled_from([True, 0, 1, "TRUE", "no"])),
    (Annotated[float, Lenient], st.sampled_from(["1.5", "", 2, " 3"])),
    (Annotated[int, Lenient], st.sampled_from(["7", "", 2])),
    (Annotated[datetime, Lenient], st.one_of(GOOD_TIME, st.just(""))),
    (Annotated[float, Lenient, abs, msgspec.Meta(lt=100)], st.sampled_from(["-1.5", "", 2])),
    (Annotated[float, Lenient, Before(empty_is_null)], st.sampled_from(["1.5", "", 2])),
    (list[Annotated[float, msgspec.Meta(ge=0)]], st.just([1])),
    (Annotated[list[float | None], Lenient], st.just(["", "1.5"])),
    (Decimal, st.sampled_from([1, 1.10, "1.10", "-3e5", 0.1, 10**30])),
    (float, st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False))),
    (Annotated[float, msgspec.Meta(lt=100)], st.integers(0, 101)),
    (datetime, GOOD_TIME),
    (Annotated[datetime, Epoch("ms")], st.one_of(st.integers(0, 2**42), st.just("1700000000000"))),
    (Annotated[datetime, Epoch("s")], st.one_of(st.floats(0, 2e9), st.just("1700000000.123456"))),
    (date, st.just("2020-02-29")),
    (UUID, st.uuids().map(str)),
    (Colour, st.sampled_from(["red", "blue"])),
    (Literal["red", 1], st.sampled_from(["red", 1])),
    (list[int], st.lists(GOOD_ID, max_size=3)),
    (list[int], st.lists(st.sampled_from(["1053216545641239999", "12"]), max_size=3)),
    (list[str], st.lists(GOOD_TEXT, max_size=3)),
    (list[float], st.lists(st.sampled_from([1, 1.5]), max_size=3)),
    (list[datetime], st.lists(GOOD_TIME, max_size=2)),
    (list[int | None], st.lists(st.one_of(st.none(), st.integers(0, 3)), max_size=3)),
    (list[Annotated[int, msgspec.Meta(ge=0)]], st.lists(st.integers(0, 3), max_size=3)),
    (
        dict,
        st.dictionaries(st.sampled_from(NAMES), st.one_of(st.integers(), GOOD_TEXT, st.just([1.5, {}])), max_size=3),
    ),
    (dict[str, int], st.dictionaries(st.sampled_from(NAMES), st.integers(0, 3), max_size=3)),
    (Point, st.fixed_dictionaries({"x": st.integers(0, 3)}, optional={"y": st.just(1.5)})),
    (list[Any], st.lists(st.sampled_from([1, "x", None]), max_size=2)),
]
DEFAULTS: dict[Any, Any] = {
    Annotated[float, Lenient]: 0.5,
    Annotated[int, Lenient]: 5,
    int: 5,
    str: "default",
    bool: True,
    list[int]: [],
}
LEAVES = st.sampled_from(NAMES)
PATHS = st.one_of(
    LEAVES,
    LEAVES,
    LEAVES.map("p.".__add__),
    LEAVES.map("p.q.".__add__),
    LEAVES.map("p.q.".__add__),
    LEAVES.map("a.".__add__),
)


RULES: list[Callable[[list[str]], Callable[[Any], Any]]] = [
    lambda names: lambda row: None,
    lambda names: lambda row: len(repr([getattr(row, name) for name in names])) % 4 > 0,
    lambda names: lambda row: refuse_long(repr(getattr(row, names[0]))[-4:].strip("'\")}")) and None,
    lambda names: lambda row: getattr(row, names[0]) < getattr(row, names[-1]),  # mostly a TypeError
    lambda names: lambda row: {None: 1}[getattr(row, names[0]) and None],
]
"""Rules over several fields, by the names of the fields."""


@st.composite
def cases(draw: st.DrawFn, table: str = "made") -> tuple[type[Row], str, list[dict[str, Any]]]:
    """A row class, the path of its items, and messages that nearly fit it."""
    where = draw(st.sampled_from(["$", "d", "d.a"]))
    annotations: dict[str, Any] = {"id": Annotated[int, From("id")]}
    wishes: list[tuple[AnyPath, st.SearchStrategy[Any]]] = [("id", st.integers(0, 9))]
    defaults: dict[str, Any] = {}
    for number in range(draw(st.integers(1, 5))):
        kind, values = draw(st.sampled_from(KINDS))
        paths = draw(st.lists(PATHS, min_size=1, max_size=3))
        paths = [exact_or_text(draw, draw(st.sampled_from(["", "", "", "", "$.d.", "$.r."])) + path) for path in paths]
        wishes += [(path, values) for path in paths]
        hint = kind | None if draw(st.booleans()) else kind
        name = f"c{number}"
        annotations[name] = Annotated[hint, From(*paths)]
        if kind in list(DEFAULTS) and draw(st.booleans()):
            defaults[name] = DEFAULTS[kind]
    annotations.update(draw(st.lists(st.sampled_from(list(KAFKA.items())), max_size=2, unique=True)))
    version = draw(st.sampled_from([None, "v"]))
    if version:
        annotations["v"] = Annotated[datetime, From("v")]
        wishes.append(("v", st.one_of(GOOD_TIME, TIMES)))
    body = {"__annotations__": annotations, "__module__": __name__, **defaults}
    for number in range(draw(st.integers(0, 2))):
        names = draw(st.lists(st.sampled_from(list(annotations)), min_size=1, max_size=3, unique=True))
        body[f"rule{number}"] = rule(*names)(draw(st.sampled_from(RULES))(names))
    row = type(Row)(table.capitalize(), (Row,), body, table=table, primary_key="id", version=version)
    many = draw(st.booleans())
    messages = []
    for _ in range(draw(st.integers(1, 4))):
        message: dict[str, Any] = {}
        place(
            message,
            tuple(where.split(".")),
            [{} for _ in range(draw(st.integers(1, 3)))] if many and where != "$" else {},
        )
        for path, values in wishes:
            for item in items_of(message, where):
                fate = draw(st.integers(0, 29))
                if fate == 0:
                    continue
                value = None if fate == 1 else draw(ODD) if fate in (2, 3) else draw(values)
                found = JsonPath.of(path)
                place(message if found.root else item, found.parts, value, replace=fate == 3)
        messages.append(message)
    return row, where, messages


KAFKA = {
    "k_time": Annotated[datetime, FromKafka("timestamp")],
    "k_ms": Annotated[int | None, FromKafka("timestamp")],
    "k_key": Annotated[str | None, FromKafka("key")],
    "k_offset": Annotated[int, FromKafka("offset")],
}


def exact_or_text(draw: st.DrawFn, path: str) -> AnyPath:
    """The path as it is, or as a tuple whose last name no text could say."""
    *above, last = path.split(".")
    exact = draw(st.sampled_from([None, None, None, last, "a.b", "[0]", "", "*", 'a"b', "$"]))
    return path if exact is None else (*above, "x" if exact == "$" and not above else exact)


def place(target: Any, names: tuple[str, ...], value: Any, *, replace: bool = True) -> None:
    for name in names[:-1]:
        if not isinstance(target, dict):
            return
        target = target.setdefault(name, {})
    if isinstance(target, dict) and (replace or not isinstance(target.get(names[-1]), dict | list)):
        target[names[-1]] = value


def items_of(message: Any, where: str) -> list[Any]:
    for name in [] if where == "$" else where.split("."):
        message = message.get(name) if isinstance(message, dict) else None
    return message if isinstance(message, list) else [message]


def ended(make: Callable[[], Any]) -> Any:
    try:
        return make()
    except RecordFault as fault:
        return fault.args


def may_be_partial(row: type[Row]) -> bool:
    try:
        JsonDecoder(Items("d", row, partial=True))
    except TypeError:
        return False
    return True


def same(left: Any, right: Any) -> bool:
    return repr(left) == repr(right)  # tells -0.0 from 0.0, True from 1, UTC from another zone


@settings(max_examples=examples(300), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    cases(),
    st.sampled_from([NOW, NOW, NOW, -1, 2**62]),
    st.sampled_from([b"key", None, b"key", b"\xff", b"\0"]),
    st.booleans(),
    st.booleans(),
)
def test_the_generated_mapping_equals_the_interpreted_one(
    case: Any, timestamp: int, key: bytes | None, again: bool, is_partial: bool
) -> None:
    row, where, messages = case
    is_partial = is_partial and may_be_partial(row)
    event(f"partial={is_partial}")
    events = JsonDecoder(Events("t", {"E": Items(where, row, partial=is_partial)}, Skip("unknown_event")))
    normal = normalizer(row)
    sent = [(events, json.dumps({"t": "E", **message})) for message in messages]
    sent += [(JsonDecoder(Items(where, row)), json.dumps(message)) for message in messages[:1]]
    sent += [(JsonDecoder(Items("$", row)), json.dumps(messages))] if where == "$" else []
    for decoder, text in sent:
        value = text.encode()
        origin = Origin("id", "topic", 3, 4, NOW) if again else None
        record = Record("topic", 0, 7, 0, 0, key, value, [], timestamp, origin=origin)
        oks: list[Envelope[RawItem]] = []
        decoder.decode(record, oks, [], [])
        for envelope in oks:
            raw = envelope.payload
            generated = ended(lambda envelope=envelope: normal.normalize(envelope, NOW))
            event(f"typed={raw.item is not None} row={isinstance(generated, Row)}")
            raw.target.root_wanted = True
            item, root = raw.plain()
            in_part = raw.target.partial
            plain = ended(partial(interpret, row, item, record, root, NOW, raw.base, partial=in_part))
            assert same(generated, plain)
            if raw.item is not None:  # what the generated function gives, it gives by itself
                try:
                    alone = raw.target.map(raw.item, raw.root, record, latest(NOW))
                except Exception:  # noqa: BLE001, S112 - whatever it raises means: interpret
                    continue
                event("generated a row")
                assert same(alone, plain)
