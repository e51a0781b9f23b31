"""`Name`: a column with a name that no field can have, or should not."""

import json
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import pytest

from lovelace_streams import UNSET, From, FromKafka, Lenient, Name, Pii, RecordFault, Row, rule
from lovelace_streams.formats.json import JsonDecoder
from lovelace_streams.records import Envelope
from lovelace_streams.rows.interpreter import interpret
from lovelace_streams.rows.normalizer import normalizer
from lovelace_streams.writers import Entry, RowOutcome, attributes_of
from lovelace_streams.writers.memory import MemoryWriter
from lovelace_streams.writers.postgres.ddl import create_table
from tests.unit.rows.ways import NOW, record

NAMES = [
    "class",
    "my col",
    "with-dash",
    "k8s.pod.name",
    "50%",
    'quo"te',
    "$x",
    ".",
    "items[0]",
    "Ünï ç",
    "1st",
    "from_raw",
    "__table__",
    "{x}",
    "a\\b",
]


class Odd(Row, table="odd", primary_key=("class_", "number"), version="seen_at"):
    class_: Annotated[str, Name("class")]
    number: Annotated[int, Name("my number"), From("n")]
    note: Annotated[str | None, Name("the note"), str.strip, Pii("note")]
    amount: Annotated[Decimal, Name("%")] = Decimal(1)
    words: Annotated[list[str] | None, Name("a, b")]
    flag: Annotated[bool | None, Name("is"), Lenient]
    seen_at: Annotated[datetime, Name("seen at"), FromKafka("timestamp")]

    @rule("number", "note")
    def is_odd(self) -> bool:
        return self.number % 2 == 1


def test_the_table_has_the_names_and_the_class_the_fields() -> None:
    table = Odd.__table__
    assert (table.key, table.version) == (("class", "my number"), "seen at")
    assert table.attributes["class"] == "class_"
    assert table.version_column.attribute == "seen_at"
    ddl = create_table(Odd)
    assert '"class" text NOT NULL,' in ddl
    assert 'PRIMARY KEY ("class", "my number")' in ddl
    assert '"%" numeric' in ddl


@pytest.mark.parametrize("name", NAMES)
def test_without_a_path_a_field_is_read_from_the_columns_own_name(name: str) -> None:
    row_class = type(Row)(
        "Made",
        (Row,),
        {"__annotations__": {"id": int, "field": Annotated[str | None, Name(name)]}, "__module__": __name__},
        table="made",
        primary_key="id",
    )
    assert both_ways(row_class, {"id": 1, name: "x"}).field == "x"
    assert both_ways(row_class, {"id": 1}).field is UNSET
    with pytest.raises(RecordFault, match="expected str, got int"):
        both_ways(row_class, {"id": 1, name: 7})


def both_ways(row_class: type[Row], item: dict[str, Any]) -> Any:
    oks: list[Envelope[Any]] = []
    JsonDecoder(row_class).decode(record(json.dumps(item).encode()), oks, [], [])
    try:
        made = normalizer(row_class).normalize(oks[0], NOW)
    except RecordFault as fault:
        with pytest.raises(RecordFault, match=f"^{fault.reason}"):
            interpret(row_class, item, record(), now_ms=NOW)
        raise
    assert made == interpret(row_class, item, record(), now_ms=NOW)
    return made


def test_every_mark_goes_with_a_name() -> None:
    item = {"class": "a", "n": 7, "the note": " x ", "%": "1.50", "a, b": ["c"], "is": "yes"}
    row = both_ways(Odd, item)
    assert (row.class_, row.number, row.note, row.amount, row.words, row.flag) == (
        "a",
        7,
        "x",
        Decimal("1.50"),
        ["c"],
        True,
    )
    with pytest.raises(RecordFault, match="Odd.is_odd"):
        both_ways(Odd, item | {"n": 8})


def test_rows_that_a_function_makes_are_held_to_it() -> None:
    def makes(item: dict[str, Any]) -> Row:
        return Odd(
            class_=item["c"],
            number=1,
            note=None,
            words=None,
            flag=None,
            seen_at=datetime.fromisoformat("2020-01-01T00:00:00Z"),
        )

    oks: list[Envelope[Any]] = []
    JsonDecoder(makes).decode(record(b'{"c": "a"}'), oks, [], [])
    assert normalizer(makes).normalize(oks[0], NOW).class_ == "a"
    JsonDecoder(makes).decode(record(b'{"c": 7}'), oks, [], [])
    with pytest.raises(RecordFault, match="expected str, got int at Odd.class_ made by"):
        normalizer(makes).normalize(oks[1], NOW)


def test_the_writer_in_memory_keeps_columns_by_their_names() -> None:
    writer = MemoryWriter(Odd)
    older, newer = (both_ways(Odd, {"class": "a", "n": 1, "%": amount}) for amount in (1, 2))

    assert writer.write([Entry(older), Entry(newer)]) == [RowOutcome.SUPERSEDED, RowOutcome.WRITTEN]
    assert writer.table[("a", 1)]["%"] == Decimal(2)
    assert writer.table[("a", 1)]["class"] == "a"


def test_names_that_contradict_each_other_are_refused() -> None:
    class Twice(Row, table="t", primary_key="id"):
        id: int
        other: Annotated[str, Name("id")]

    class Left(Row, table="odd", primary_key=("klass", "number"), version="seen_at"):
        klass: Annotated[str, Name("class")]
        number: Annotated[int, Name("my number")]
        seen_at: Annotated[datetime, Name("seen at")]

    class ByColumn(Row, table="t", primary_key="class"):
        class_: Annotated[str, Name("class")]

    with pytest.raises(TypeError, match=r"Twice.id and .other are both the column 'id'"):
        _ = Twice.__table__
    with pytest.raises(TypeError, match=r"column 'class' is Odd.class_ and Left.klass: give both one name"):
        attributes_of([Odd, Left])
    with pytest.raises(TypeError, match=r"'class' is named as key or version but is not a field"):
        _ = ByColumn.__table__

    class Dollar(Row, table="t", primary_key="id"):
        id: Annotated[str, Name("$")]

    with pytest.raises(TypeError, match="column \\$ needs a From"):
        _ = Dollar.__table__
    for wrong in ("", "a\0b"):
        with pytest.raises(ValueError, match="no name of a column"):
            Name(wrong)
