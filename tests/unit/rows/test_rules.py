"""Rules over several fields: asked for each row whose fields they read, and told by name."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

import pytest

from lovelace_streams import UNSET, From, Items, JsonDecoder, RecordFault, Row, rule
from lovelace_streams.testing import mapped
from tests.unit.rows.ways import outcome


class Booking(Row, table="bookings", primary_key="id"):
    id: int
    x: int | None = None
    starts_at: datetime
    ends_at: datetime | None
    guests: int | None

    @rule("starts_at", "ends_at")
    def ends_after_it_starts(self) -> bool:
        return self.ends_at is None or self.ends_at > self.starts_at

    @rule("guests", "x")
    def has_room(self) -> None:
        if self.guests is not None and self.guests > (self.x or 0):
            raise ValueError(f"secret {self.guests}")

    @rule("guests")
    def is_no_crowd(self) -> bool:
        return {1: True, 2: True, 3: False}[self.guests or 1]  # KeyError past three


def booked(rest: str) -> Any:
    """The value of x, or reason and detail; both ways of mapping agree."""
    return outcome(Booking, '{"id": 1, "starts_at": "2024-01-02T00:00:00Z"' + rest + "}")


LATER, EARLIER = '"2024-01-03T00:00:00Z"', '"2024-01-01T00:00:00Z"'
ENDS = "Booking.ends_after_it_starts refuses what is at $ (starts_at, ends_at)"
ROOM = "Booking.has_room refuses what is at $ (guests, x)"
CROWD = "Booking.is_no_crowd refuses what is at $ (guests)"


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        (f', "ends_at": {LATER}, "guests": 1, "x": 5', 5),
        (f', "ends_at": {EARLIER}, "x": 5', ("rule", ENDS)),
        (', "ends_at": null, "x": 5', 5),
        (', "x": 5', 5),  # ends_at is absent: the rule is not asked
        (', "guests": 2, "x": 1', ("rule", ROOM)),
        (', "guests": 1', ("rule", ROOM)),  # x has a default: it is never absent
        (', "guests": 3, "x": 3', ("rule", CROWD)),
        (', "guests": 4, "x": 4', ("rule", "Booking.is_no_crowd raised KeyError at $ (guests)")),
        (f', "ends_at": {EARLIER}, "guests": 4, "x": 1', ("rule", ENDS)),  # the first of several
        (', "guests": [], "x": 1', ("wrong_type", "expected int, got list at $.guests")),
    ],
)
def test_a_rule_refuses_a_row_by_its_name(rest: str, expected: Any) -> None:
    assert booked(rest) == expected


def test_a_rule_tells_the_path_of_the_item() -> None:
    bad = {"id": 1, "starts_at": "2024-01-02T00:00:00Z", "ends_at": "2024-01-01T00:00:00Z"}

    result = mapped(JsonDecoder(Items("rows", Booking)), {"rows": [bad, bad | {"ends_at": None}]}, to=Booking)

    assert result.letter.detail == "Booking.ends_after_it_starts refuses what is at $.rows[] (starts_at, ends_at)"
    assert len(result.rows) == 1


def test_rows_that_a_function_makes_are_held_to_their_rules() -> None:
    at = datetime.fromisoformat("2024-01-02T00:00:00Z")

    def by_hand(item: dict[str, Any]) -> Iterator[Row]:
        yield Booking(id=1, starts_at=at, ends_at=UNSET, guests=UNSET)
        yield Booking(id=2, starts_at=at, ends_at=at, guests=UNSET)

    letter = mapped(by_hand, {}).letter

    assert (letter.reason, "Booking.ends_after_it_starts refuses" in letter.detail) == ("rule", True)
    with pytest.raises(RecordFault, match="has_room"):
        Booking.from_raw({"id": 1, "starts_at": "2024-01-02T00:00:00Z", "guests": 1})


class Short(Booking, table="bookings", primary_key="id"):
    @rule("x")
    def has_room(self) -> bool:
        return self.x == 5

    is_no_crowd = None


def test_a_class_has_the_rules_of_its_base_and_may_replace_or_drop_one() -> None:
    item = '{"id": 1, "starts_at": "2024-01-02T00:00:00Z", '

    assert outcome(Short, item + '"guests": 3, "x": 5}') == 5
    assert outcome(Short, item + '"guests": 3, "x": 6}') == ("rule", "Short.has_room refuses what is at $ (x)")
    assert outcome(Short, item + f'"ends_at": {EARLIER}, "x": 5}}') == ("rule", ENDS.replace("Booking", "Short"))


def test_whatever_a_rule_raises_is_the_items_fault() -> None:
    class Odd(Row, table="odd", primary_key="id"):
        id: int
        x: int

        @rule("x")
        def leaves(self) -> bool:
            raise SystemExit(self.x)

    assert outcome(Odd, '{"id": 1, "x": 5}') == ("rule", "Odd.leaves raised SystemExit at $ (x)")


def test_a_rule_is_a_method_that_a_test_may_call() -> None:
    at = datetime.fromisoformat("2024-01-02T00:00:00Z")

    assert not Booking(id=1, starts_at=at, ends_at=at, guests=1).ends_after_it_starts()


async def later(self: Any) -> bool:
    return True


def several(self: Any) -> Iterator[bool]:
    yield True


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda: rule("x", "y")(lambda self: True), r"Made\.checked reads 'y', which is no field"),
        (lambda: rule("x")(later), "async"),
        (lambda: rule("x")(several), "generator"),
        (lambda: rule("x")(lambda self, other: True), "takes"),
    ],
)
def test_a_rule_that_could_never_judge_is_refused_at_build(made: Any, why: str) -> None:
    body = {"__annotations__": {"id": int, "x": int}, "__module__": __name__, "checked": made()}
    row = type(Row)("Made", (Row,), body, table="made", primary_key="id")

    for build in (JsonDecoder, lambda row: row.from_raw({"id": 1, "x": 1})):
        with pytest.raises(TypeError, match=why):
            build(row)


def test_a_rule_names_its_fields() -> None:
    for wrong in (lambda: rule(), lambda: rule(lambda self: True)):  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"@rule\('starts_at', 'ends_at'\)"):
            wrong()


def test_both_ways_ask_rules_of_columns_with_paths() -> None:
    class Pathed(Row, table="pathed", primary_key="id"):
        id: int
        x: Annotated[int | None, From("a.b", "c")]

        @rule("x")
        def is_five(self) -> bool:
            return self.x == 5

    assert outcome(Pathed, '{"id": 1, "c": 5}') == 5
    assert outcome(Pathed, '{"id": 1}') is UNSET
    assert outcome(Pathed, '{"id": 1, "a": {"b": 6}}') == ("rule", "Pathed.is_five refuses what is at $ (x)")
