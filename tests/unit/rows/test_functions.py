"""A user's mapping function: whatever it does with an item is that item's outcome, and costs no other item."""

import itertools
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import pytest

import lovelace_streams as ls
from lovelace_streams import Reason, Row, Skip
from lovelace_streams.formats.events import Events, Items
from lovelace_streams.formats.json import JsonDecoder
from lovelace_streams.operators.normalize import sort
from lovelace_streams.records import ITEMS_MAX, DeadLetter, Envelope
from lovelace_streams.rows.normalizer import normalizer
from tests.unit.rows.ways import record


class Point(Row, table="points", primary_key="id"):
    id: int
    x: int = 0


class Frozen(Row, table="frozen", primary_key="id", frozen=True):
    id: int


class NoTable(Row):
    id: int


class BadColumn(Row, table="bad", primary_key="id"):
    id: int
    x: complex


class Odd(BaseException):
    """As a panic of Rust is: no `Exception`."""


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("secret")


def raises(error: BaseException | type[BaseException]) -> Callable[[Any], Any]:
    def raiser(item: Any) -> Any:
        raise error

    return raiser


def deep(item: Any) -> Any:
    return deep(item)


def breaks_midway(item: Any) -> Iterator[Any]:
    yield Point(id=1)
    raise KeyError("secret")


def skips_midway(item: Any) -> Iterator[Any]:
    yield Point(id=1)
    yield Skip("draft")


class Iterating:
    def __iter__(self) -> Iterator[Any]:
        raise LookupError("secret")


RULES: list[tuple[Callable[..., Any], str]] = [
    (lambda item: Skip("secret"), "for a reason that the flow does not declare"),
    (lambda item: Skip("no reason!"), "refuses it"),
    (lambda item: Skip(7), "refuses it"),
    (skips_midway, "made a Skip instead of a row"),
    (lambda item: None, "made a NoneType instead of a row"),
    (lambda item: {"id": 1}, "made a dict instead of a row"),
    (lambda item: {}, "made a dict instead of a row"),
    (lambda item: "", "made a str instead of a row"),
    (lambda item: [None], "made a NoneType instead of a row"),
    (lambda item: [[Point(id=1)]], "made a list instead of a row"),
    (lambda item: (Point(id=n) for n in itertools.count()), f"made more than {ITEMS_MAX} rows"),
    (lambda item: NoTable(id=1), "made a NoTable, which is no row of a table"),
    (lambda item: BadColumn(id=1, x=1j), "made a BadColumn, which is no row of a table"),
    (lambda item: Iterating(), "raised LookupError"),
    (breaks_midway, "breaks_midway raised KeyError"),
    (deep, "deep raised RecursionError"),
    (raises(ValueError("secret")), "raiser refuses it"),
    (raises(KeyError("secret")), "raised KeyError"),
    (raises(StopIteration("secret")), "raised StopIteration"),
    (raises(MemoryError), "raised MemoryError"),
    (raises(SystemExit(0)), "raised SystemExit"),
    (raises(GeneratorExit), "raised GeneratorExit"),
    (raises(Odd("secret")), "raised Odd"),
    (raises(Unprintable()), "raised Unprintable"),
    (raises(ls.DestinationFault("08006", "secret")), "raised DestinationFault"),
    (raises(ls.RecordFault("draft", "not one of ours")), "not one of ours"),  # type: ignore[arg-type]
]


def ended(function: Any, *texts: bytes, skips: tuple[str, ...] = ()) -> tuple[list[Any], list[DeadLetter], list[str]]:
    """Rows, dead letters and skips of messages that a function maps."""
    oks: list[Envelope[Any]] = []
    for text in texts or (b'{"id": 1}',):
        JsonDecoder(function).decode(record(text), oks, [], [])
    ports = sort(normalizer(function, skips=skips), oks)
    return [e.payload for e in ports.oks], ports.errs, [reason for reason, _ in ports.skipped]


@pytest.mark.parametrize(("function", "why"), RULES)
def test_what_is_wrong_with_a_function_is_the_items_fault(function: Callable[..., Any], why: str) -> None:
    rows, [letter], skipped = ended(function)

    assert (rows, skipped, letter.reason) == ([], [], Reason.RULE)
    assert why in letter.detail
    assert "secret" not in letter.detail


def test_its_neighbours_are_mapped() -> None:
    def mapping(item: dict[str, Any]) -> Any:
        return Skip("draft") if item["id"] == 2 else Point(id=item["id"])

    rows, [letter], _ = ended(mapping, b'{"id": 1}', b'{"id": 2}', b'{"id": 3}')

    assert rows == [Point(id=1), Point(id=3)]
    assert letter.reason == "rule"


def test_an_interrupt_from_the_keyboard_ends_the_process() -> None:
    with pytest.raises(KeyboardInterrupt):
        ended(raises(KeyboardInterrupt))


def test_a_row_that_lost_a_column_lacks_it() -> None:
    def mapping(item: Any) -> Row:
        point = Point(id=1)
        del point.id
        return point

    _, [letter], _ = ended(mapping)

    assert (letter.reason, "got nothing at Point.id" in letter.detail) == ("missing", True)


def test_a_frozen_row_is_held_to_its_class_too() -> None:
    assert ended(lambda item: Frozen(id="7"))[0] == [Frozen(id=7)]


def test_functions_of_a_column_may_raise_anything_too() -> None:
    class Made(Row, table="made", primary_key="id"):
        id: int
        x: Annotated[str, raises(SystemExit(1))]
        y: Annotated[str | None, ls.Before(raises(Odd))]

    for text, name in [(b'{"id": 1, "x": "a"}', "SystemExit"), (b'{"id": 1, "y": "a", "x": null}', "null")]:
        _, [letter], _ = ended(Made, text)
        assert name in f"{letter.reason} {letter.detail}"


# ---- reasons of one's own ----


def test_a_declared_reason_is_counted_under_its_name() -> None:
    assert ended(lambda item: Skip("draft"), skips=("draft",))[2] == ["draft"]
    assert ended(lambda item: iter([Skip("draft")]), skips=("draft",))[2] == ["draft"]
    assert ended(lambda item: Skip("unknown_event"), skips=("draft",))[2] == ["unknown_event"]


@pytest.mark.parametrize("name", ["Draft", "", "a" * 41, "dräft", "draft 1", 7, "filtered", "rule", "written"])
def test_a_reason_that_can_not_be_one_is_refused_at_build(name: Any) -> None:
    with pytest.raises(ValueError, match="reason"):
        normalizer(Point, skips=[name])
    if name != "filtered":
        with pytest.raises(ValueError, match="reason"):
            Events("t", {"A": Items("d", Point)}, otherwise=Skip(name))


def test_a_text_is_no_list_of_reasons() -> None:
    with pytest.raises(TypeError, match=r"skips=\('draft',\)"):
        normalizer(Point, skips="draft")


def test_other_events_are_skipped_for_a_reason_of_ones_own() -> None:
    decoder = JsonDecoder(Events("t", {"A": Items("d", Point)}, otherwise=Skip("heartbeat")))
    skipped: list[Any] = []

    decoder.decode(record(b'{"t": "B"}'), [], [], skipped)

    assert [reason for reason, _ in skipped] == ["heartbeat"]
    assert decoder.skips == ("heartbeat",)
