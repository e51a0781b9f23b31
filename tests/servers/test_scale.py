"""Decimals in columns with a scale: more digits than the column keeps are refused, unless the row says how to round."""

from decimal import ROUND_HALF_EVEN, Decimal
from typing import Annotated

import pytest

from lovelace_streams import Row, Scale
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.records import Reason
from lovelace_streams.rows.interpreter import interpret
from lovelace_streams.writers import Entry, Refusal, RowOutcome

WRITTEN = RowOutcome.WRITTEN


class Price(Row, table="prices", primary_key="id"):
    id: int
    total: Decimal | None


class Rounded(Row, table="prices", primary_key="id"):
    id: int
    total: Annotated[Decimal | None, Scale(2, ROUND_HALF_EVEN)]


class Finer(Row, table="prices", primary_key="id"):
    id: int
    total: Annotated[Decimal, Scale(4)]


class Prices(Row, table="prices", primary_key="id"):
    id: int
    total: list[Decimal]


class Whole(Row, table="prices", primary_key="id"):
    id: int
    total: int


class Ratio(Row, table="prices", primary_key="id"):
    id: int
    total: float


MANY = {
    "numeric(10,2)": (Price, [Decimal("12.34"), Decimal("12.340"), Decimal("1E+2"), Decimal(7)], Decimal("12.345")),
    "money_amount": (Price, [Decimal("12.34"), Decimal("0.00")], Decimal("0.005")),
    "numeric(3,-2)": (Whole, [1200, 0], 1250),
    "numeric(10,2)[]": (Prices, [[Decimal("1.10")], []], [Decimal(1), Decimal("1.001")]),
}


@pytest.mark.parametrize("one_by_one", [True, False])
@pytest.mark.parametrize("column", MANY)
def test_more_digits_than_the_column_keeps_are_refused_and_not_rounded(run, open_writer, column, one_by_one):
    row, kept, refused = MANY[column]
    run(f"create domain money_amount as numeric(10,2); create table prices (id bigint primary key, total {column})")
    writer = open_writer(row, one_by_one=one_by_one)

    values = [*kept, refused, *kept] * 3
    results = writer.write([Entry(row(id=n, total=value)) for n, value in enumerate(values)])

    refusal = Refusal(Reason.OUT_OF_RANGE, "22003", "total")
    assert results == [refusal if value is refused else WRITTEN for value in values]
    stored = [value for (value,) in run("select total from prices order by id").fetchall()]
    assert stored == [value for value in values if value is not refused]


def test_rows_of_too_many_digits_cost_a_write_and_not_one_each(run, open_writer, monkeypatch):
    run("create table prices (id bigint primary key, total numeric(10,2))")
    writer = open_writer(Price)
    writes = []
    write = writer._transactions.write
    monkeypatch.setattr(writer._transactions, "write", lambda *given, **more: writes.append(1) or write(*given, **more))
    monkeypatch.setattr(writer, "_can_copy", False)

    block = [Entry(Price(id=n, total=Decimal("0.001") if n % 2 else Decimal("0.01"))) for n in range(100)]
    assert [isinstance(result, Refusal) for result in writer.write(block)] == [n % 2 == 1 for n in range(100)]
    assert len(writes) == 1


def test_a_row_that_declares_its_rounding_is_rounded_by_it(run, open_writer):
    run("create table prices (id bigint primary key, total numeric(10,2))")
    writer = open_writer(Rounded)

    rows = [interpret(Rounded, {"id": n, "total": total}) for n, total in enumerate(["12.345", "12.355", "12.3"])]
    assert writer.write([Entry(row) for row in rows]) == [WRITTEN] * 3
    assert [str(total) for (total,) in run("select total from prices order by id").fetchall()] == [
        "12.34",
        "12.36",
        "12.30",
    ]


def test_a_float_is_rounded_as_the_column_says(run, open_writer):
    """It has no digits of its own to lose: 0.1 + 0.2 is 0.30000000000000004."""
    run("create table prices (id bigint primary key, total numeric(10,2))")
    assert open_writer(Ratio).write([Entry(Ratio(id=1, total=0.1 + 0.2))]) == [WRITTEN]
    assert run("select total from prices").fetchall() == [(Decimal("0.30"),)]


def test_a_scale_that_the_column_does_not_keep_stops_at_the_start(run, open_writer):
    run("create table prices (id bigint primary key, total numeric(10,2))")
    with pytest.raises(
        DeploymentFault, match=r"total may have 4 digits after the point \(Scale\), but the column is numeric\(10,2\)"
    ):
        open_writer(Finer)
    run("alter table prices alter total type numeric(10,4)")
    assert open_writer(Finer).notes() == []


def test_what_no_field_declares_is_noted(run, open_writer):
    run("create table prices (id bigint primary key, total numeric(10,2))")
    [note] = open_writer(Price).notes()
    assert "Price.total" in note
    assert "numeric(10,2)" in note
    assert "Scale(2, ROUND_HALF_EVEN)" in note
    assert open_writer(Rounded).notes() == open_writer(Ratio).notes() == []
    run("alter table prices alter total type numeric")
    assert open_writer(Price).notes() == []
