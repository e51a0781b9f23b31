"""Which event a message is, and what becomes of the others."""

from datetime import date
from enum import Enum, IntEnum
from typing import Annotated, Any

import pytest

from lovelace_streams.avro import AvroDecoder
from lovelace_streams.errors import RecordFault
from lovelace_streams.formats.events import Events, Items
from lovelace_streams.formats.json import JsonDecoder
from lovelace_streams.records import Record
from lovelace_streams.rows import Before, From, Row, Skip
from lovelace_streams.rows.normalizer import normalizer
from lovelace_streams.testing import avro, mapped
from tests.unit.formats.messages import DISCORD, NOW, Decoded


@pytest.mark.parametrize("declared", [None, 1, 7])
@pytest.mark.parametrize(
    "value",
    [
        {"t": "PRESENCE_UPDATE", "d": {}},
        {"t": ""},
        {"t": "PRESENCE", "d": "\ud800"},
    ],
)
def test_unknown_events_are_skipped(value: Any, declared: int | None) -> None:
    assert Decoded(DISCORD, value, declared=declared).ends == [(0, declared or 1, "unknown_event")]


def test_rows_may_read_the_name_of_the_event() -> None:
    class Seen(Row, table="seen", primary_key="id"):
        id: int
        event: Annotated[str, From("$.t")]

    decoder = JsonDecoder(Events("t", {"A": Items("d", Seen), "B": Items("d", Seen)}, Skip("unknown_event")))
    decoded = Decoded(decoder, {"d": {"id": 1}, "t": "B"})

    assert normalizer(Seen).normalize(decoded.oks[0], NOW) == Seen(id=1, event="B")
    assert decoded.oks[0].payload.item is not None
    assert Decoded(decoder, {"t": "C"}).skipped[0][0] == "unknown_event"


@pytest.mark.parametrize(
    ("kind", "told", "is_typed"),
    [
        (Annotated[str, str.lower], "2020-01-01", True),
        (Annotated[str | None, Before(str.upper)], "2020-01-01", True),
        (date, date(2020, 1, 1), True),
        (bool, None, False),
    ],
)
def test_rows_may_read_the_name_of_the_event_as_anything(kind: Any, told: Any, is_typed: bool) -> None:
    class Seen(Row, table="seen", primary_key=("id",)):
        id: int
        event: Annotated[kind, From("$.t")]

    decoder = JsonDecoder(Events("t", {"2020-01-01": Items("d", Seen), "B": Items("d", Seen)}, Skip("unknown_event")))
    [envelope] = Decoded(decoder, {"t": "2020-01-01", "d": {"id": 1}}).oks
    assert (envelope.payload.item is not None) == is_typed
    if told is None:
        with pytest.raises(RecordFault, match="expected bool, got str"):
            normalizer(Seen).normalize(envelope, NOW)
    else:
        assert normalizer(Seen).normalize(envelope, NOW) == Seen(id=1, event=told)


class Named(Row, table="named", primary_key="id"):
    id: int
    t: Annotated[str | None, From("$.t")]


class Unnamed(Row, table="unnamed", primary_key="id"):
    id: int


@pytest.mark.parametrize("row", [Named, Unnamed])
@pytest.mark.parametrize("events", [{"A"}, {"A", "B"}])
def test_a_message_that_names_no_event_is_none_of_ours(row: type[Row], events: set[str]) -> None:
    decoder = JsonDecoder(Events("t", {name: Items("d", row) for name in events}, otherwise=Skip("unknown_event")))
    for named in ({}, {"t": None}, {"t": "not A"}, {"t": "C"}):
        found = Decoded(decoder, {**named, "d": {"id": 1}})
        reason = "unknown_event" if named.get("t") else "no_event"
        assert [str(reason) for reason, _ in found.skipped] == [reason], named
    assert len(Decoded(decoder, {"t": "A", "d": {"id": 1}}).oks) == 1


# ---- a message that names no event -----------------------------------------------------------------------------------

NOT_NAMED = [{}, {"t": None}, {"t": True}, {"t": 5}, {"t": 5.0}, {"t": ["GUILD_MEMBER_ADD"]}, {"t": {}}]
"""Absent, null, and what is no name."""


@pytest.mark.parametrize("declared", [None, 1, 7])
@pytest.mark.parametrize("value", NOT_NAMED)
def test_a_message_that_names_no_event_is_told_from_an_unknown_one(value: Any, declared: int | None) -> None:
    assert Decoded(DISCORD, {**value, "d": {}}, declared=declared).ends == [(0, declared or 1, "no_event")]


class Plain(Row, table="plain", primary_key="id"):
    id: int


def by_function(item: Any) -> Plain:
    return Plain(id=item["id"])


class ReadsIt(Row, table="reads_it", primary_key="id"):
    id: int
    t: Annotated[int | None, From("$.t")]


def events(*names: Any, row: Any = Plain, **options: Any) -> Events:
    options.setdefault("otherwise", Skip("unknown_event"))
    return Events("t", {name: Items("d", row) for name in names}, **options)


SENT = [("A", 1), (7, 1), ("B", 1), (8, 1), ("7", 1), *((each.get("t", ...), 1) for each in NOT_NAMED)]


def told(what: Events, row: Any = Plain) -> dict[str, str]:
    """What became of each of `SENT`: a row, or the reason why not."""
    found: dict[str, str] = {}
    for name, number in SENT:
        message = {"d": {"id": number}} if name is ... else {"t": name, "d": {"id": number}}
        result = mapped(what, message)
        ends = [*map(repr, result.rows), *result.skipped, *(str(letter.reason) for letter in result.letters)]
        [found[repr(name)]] = ends
    return found


@pytest.mark.parametrize("row", [Plain, by_function, ReadsIt])
@pytest.mark.parametrize("names", [("A",), ("A", "C"), (7,), (7, 9), ("A", 7), ("A", 7, "C", 9)])
def test_events_are_named_by_texts_and_by_integers(names: tuple[Any, ...], row: Any) -> None:
    found = told(events(*names, row=row))
    has_numbers = any(isinstance(name, int) for name in names)
    for name, _ in SENT:
        is_name = isinstance(name, str) or (has_numbers and type(name) is int)
        if name in names and is_name:
            fits = row is not ReadsIt or name == 7
            assert found[repr(name)].startswith(("Plain(", "ReadsIt(") if fits else "wrong_type"), name
        else:
            assert found[repr(name)] == ("unknown_event" if is_name else "no_event"), name


def test_a_flow_says_what_becomes_of_messages_that_name_no_event() -> None:
    assert told(events("A", absent=Skip("filtered")))["Ellipsis"] == "filtered"
    assert told(events("A", absent=Skip("heartbeat")))["None"] == "heartbeat"
    found = told(events("A", absent=None))
    assert [found[name] for name in ("'A'", "'B'", "Ellipsis", "None", "True", "5", "5.0", "{}")] == [
        "Plain(id=1)", "unknown_event", "missing", "null", "wrong_type", "wrong_type", "wrong_type", "wrong_type"
    ]  # fmt: skip
    assert mapped(events("A", absent=None), {"t": 5}).letter.detail == "expected the name of an event, got int at $.t"
    assert mapped(events("A", absent=None), {}).letter.detail == "expected the name of an event, got nothing at $.t"


def test_names_may_be_of_an_enum() -> None:
    class Op(IntEnum):
        DISPATCH = 0

    class Kind(Enum):
        JOINED = "joined"

    assert mapped(events(Op.DISPATCH), {"t": 0, "d": {"id": 1}}).row == Plain(id=1)
    assert mapped(events(Kind.JOINED), {"t": "joined", "d": {"id": 1}}).row == Plain(id=1)


@pytest.mark.parametrize("name", [None, True, 1.5, b"A", ("A",)])
def test_what_is_no_name_of_an_event_is_refused_at_build(name: Any) -> None:
    with pytest.raises(TypeError, match="is named by a text or an integer"):
        events(name)


def test_numbers_past_64_bits_are_names_too() -> None:
    what = events(2**70, 1)
    assert mapped(what, {"t": 2**70, "d": {"id": 1}}).row == Plain(id=1)
    assert mapped(what, {"t": 2**71, "d": {"id": 1}}).skipped == ["unknown_event"]


def test_items_of_a_known_event_are_decoded_by_type_whatever_names_it() -> None:
    for names, name in (((7,), 7), ((7, 8), 7), (("A", 7), 7), (("A", 7), "A")):
        decoded = Decoded(JsonDecoder(events(*names)), {"t": name, "d": {"id": 1}})
        assert decoded.oks[0].payload.item is not None, names


@pytest.mark.parametrize("kind", ["int", "long", ["null", "int"], "boolean", "double", "string", ["null", "string"]])
def test_avro_names_events_alike(kind: Any) -> None:
    inner = {"type": "record", "name": "D", "fields": [{"name": "id", "type": "long"}]}
    schema = {
        "type": "record",
        "name": "M",
        "fields": [{"name": "t", "type": kind}, {"name": "d", "type": inner}],
    }
    names = {"boolean": [True, False], "double": [7.0, 1.0], "string": ["A", "B", "7"]}.get(str(kind), [7, 8, 1])
    if isinstance(kind, list):
        names = [None, *(["A", "B"] if "string" in kind else [7, 8, 1])]
    what = events("A", 7, 1)
    for name in names:
        is_name = isinstance(name, str) or type(name) is int
        expected = 1 if is_name and name in ("A", 7, 1) else "unknown_event" if is_name else "no_event"
        for count in (1, 40):  # one by one, and together
            messages = [avro(schema, {"t": name, "d": {"id": 1}})] * count
            decoder = AvroDecoder(schema, what)
            oks: list[Any] = []
            skipped: list[Any] = []
            records = [Record("t", 0, n, n, 1, None, value, [], NOW) for n, value in enumerate(messages)]
            for record in records:
                decoder.decode(record, oks, [], skipped)
            decoder.look_ahead(records)
            for record in records:
                decoder.decode(record, oks, [], skipped)
            found = [normalizer(Plain).normalize(ok, NOW).id for ok in oks] + [str(reason) for reason, _ in skipped]
            assert found == [expected] * 2 * count, (name, count)
