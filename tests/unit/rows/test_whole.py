"""A column that is finished whole ends as its values do one by one: the same values, and the same ones refused."""

from typing import Annotated, Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from msgspec import UNSET

from lovelace_streams.columns import Chunk, Run
from lovelace_streams.formats.events import Items
from lovelace_streams.formats.json import JsonDecoder
from lovelace_streams.rows import From, Lenient, Row
from lovelace_streams.rows.fields import Field, fields_of
from lovelace_streams.rows.interpreter import latest
from lovelace_streams.rows.normalizer import normalizer
from lovelace_streams.rows.whole import WholeColumn, whole_of

NOW = 1_700_000_000_000
TEXTS = st.one_of(
    st.integers(-(2**64), 2**64).map(str),
    st.sampled_from(
        ["", "-", "007", "-0", "+7", " 7", "1e3", "1.0", "1_0", "٣", "²", "7\n", "9" * 19, "0" * 30, "7,8"]
    ),
)
INTEGERS = st.one_of(st.integers(-(2**63), 2**63 - 1), TEXTS)
WORDS = st.one_of(st.text(max_size=3), st.sampled_from(["raise", "none", "nul", "number", "lone"]))


def odd(text: str) -> Any:
    """A user's function that answers anything."""
    if text == "raise":
        raise SystemExit
    return {"none": None, "nul": "\0", "number": 5, "lone": "\ud800"}.get(text, text.upper())


class Order(Row, table="orders", primary_key="id"):
    id: Annotated[int, From("$.id")]
    number: int | None
    numbers: list[int] | None
    word: Annotated[str | None, odd]
    with_default: int = 5
    two: Annotated[str, str.lower, str.strip]
    lenient: Annotated[int, Lenient]


FIELDS = {field.column.attribute: field for field in fields_of(Order)}


def one_by_one(field: Field, values: list[Any]) -> tuple[list[Any], list[int]]:
    made: list[Any] = []
    refused: list[int] = []
    for index, value in enumerate(values):
        try:
            made.append(value if value is None or value is UNSET else field.finish(value))
        except BaseException:  # noqa: BLE001 - whatever is raised refuses it
            made.append(None)
            refused.append(index)
    return made, refused


@given(st.data(), st.sampled_from([("number", INTEGERS), ("numbers", st.lists(INTEGERS, max_size=3)), ("word", WORDS)]))
def test_a_column_ends_as_its_values_do(data: st.DataObject, column: tuple[str, st.SearchStrategy[Any]]) -> None:
    name, values = column
    field = FIELDS[name]
    quick = whole_of(field)
    assert quick is not None
    given_values = data.draw(st.lists(st.one_of(values, values, st.sampled_from([None, UNSET])), max_size=20))

    made, refused = WholeColumn(field, quick)(list(given_values))

    event(f"{name}, refused={bool(refused)}")
    assert (made, refused) == one_by_one(field, given_values)
    assert list(map(type, made)) == list(map(type, one_by_one(field, given_values)[0]))


def test_what_is_finished_stays_what_it_is() -> None:
    finish = WholeColumn(FIELDS["id"], whole_of(FIELDS["id"]))  # type: ignore[arg-type]

    assert finish([7, "8", 9]) == finish([7, 8, 9]) == ([7, 8, 9], [])


@pytest.mark.parametrize("name", ["with_default", "two", "lenient"])
def test_other_fields_are_finished_one_by_one(name: str) -> None:
    assert whole_of(FIELDS[name]) is None


def test_an_interrupt_ends_it() -> None:
    def interrupted(_value: str) -> str:
        raise KeyboardInterrupt

    class Guarded(Row, table="guarded", primary_key="id"):
        id: int
        word: Annotated[str, interrupted]

    field = fields_of(Guarded)[1]
    with pytest.raises(KeyboardInterrupt):
        WholeColumn(field, whole_of(field))(["a", "b"])  # type: ignore[arg-type]


def test_items_that_a_column_refuses_leave_the_others() -> None:
    """Of lists the item, of a message of one item the message; a list of which all are refused is left as a whole."""
    items = [["1", "x", "3"], "4", ["x", "y"], "x", [None, "2", "x"], ["5"]]
    values = [b'{"id":%d,"at":%s}' % (place, _text(numbers).encode()) for place, numbers in enumerate(items)]
    chunk = Chunk("t", 0, 1, range(6), [b""] * 6, values, [NOW] * 6, [Run(0, 6, 0, 0, [])])

    class Line(Row, table="lines", primary_key=("id", "n")):
        id: Annotated[int, From("$.id")]
        n: int

    decoder = JsonDecoder(Items("at", Line))
    loop = decoder.column_loop(normalizer(Line))
    loop(chunk, latest(NOW))  # it knows now that there are lists
    mapped = loop(chunk, latest(NOW))

    rows = [
        (row.id, item, row.n) for part in mapped.slices for _, item, row in part.columns.rows(part.start, part.stop)
    ]
    assert rows == [(0, 0, 1), (0, 2, 3), (1, 0, 4), (4, 1, 2), (5, 0, 5)]
    assert mapped.left == [2, 3]
    assert sorted((lost.record.offset, lost.item) for lost in mapped.lost) == [(0, 1), (4, 0), (4, 2)]
    assert list(chunk.items) == [3, 1, 0, 0, 3, 1]


def _text(numbers: Any) -> str:
    if isinstance(numbers, list):
        return "[" + ",".join(map(_text, numbers)) + "]"
    return '{"n":null}' if numbers is None else f'{{"n":"{numbers}"}}'
