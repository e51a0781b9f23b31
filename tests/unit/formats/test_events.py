"""Which event a message is, and what becomes of the others."""

from datetime import date
from typing import Annotated, Any

import pytest

from lovelace_streams.errors import RecordFault
from lovelace_streams.formats.events import Events, Items
from lovelace_streams.formats.json import JsonDecoder
from lovelace_streams.rows import Before, From, Row, Skip
from lovelace_streams.rows.normalizer import normalizer
from tests.unit.formats.messages import DISCORD, NOW, Decoded


@pytest.mark.parametrize("declared", [None, 1, 7])
@pytest.mark.parametrize(
    "value",
    [
        {"t": "PRESENCE_UPDATE", "d": {}},
        {"t": None},
        {"t": 5},
        {"t": ["GUILD_MEMBER_ADD"]},
        {},
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
        assert [str(reason) for reason, _ in found.skipped] == ["unknown_event"], named
    assert len(Decoded(decoder, {"t": "A", "d": {"id": 1}}).oks) == 1
