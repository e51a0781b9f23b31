"""No digit of a Decimal is lost, whatever the context of Python's arithmetic: the column's digits count."""

from decimal import Decimal
from fractions import Fraction
from typing import Annotated

import clickhouse_connect
import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lovelace_streams.errors import RecordFault
from lovelace_streams.records import Reason
from lovelace_streams.rows import Row
from lovelace_streams.settings import ClickHouseSettings
from lovelace_streams.writers import Entry, Refusal, RowOutcome, sequence_of
from lovelace_streams.writers.clickhouse import ClickHouseWriter
from tests.examples import examples

DECIMALS = st.builds(
    lambda sign, whole, fraction: Decimal(f"{sign}{whole or 0}.{fraction}"),
    st.sampled_from(["", "-"]),
    st.text("0123456789", max_size=42),
    st.text("0123456789", max_size=42) | st.sampled_from(["", "5", "25", "0" * 30, "1234567891", "0" * 37 + "1"]),
)
COLUMNS = {"a": (18, 4), "b": (38, 9), "c": (76, 38), "d": (38, 0), "e": (9, 9)}


class Amounts(Row, table="amounts", primary_key="id"):
    id: int
    a: Decimal = Decimal(0)
    b: Decimal = Decimal(0)
    c: Decimal = Decimal(0)
    d: Decimal = Decimal(0)
    e: Decimal = Decimal(0)


@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(values=[("b", Decimal("1234567890123456789012345678.1234567891")), ("b", Decimal(f"{10**28}.{5:09}"))])
@example(
    values=[("c", Decimal(f"{10**37}.{7:039}")), ("c", Decimal(f"-{10**37}.{7:038}")), ("d", Decimal(f"{10**29}.5"))]
)
@given(values=st.lists(st.tuples(st.sampled_from(sorted(COLUMNS)), DECIMALS), min_size=1, max_size=20))
def test_a_decimal_is_stored_whole_or_out_of_range(clickhouse: str, values: list[tuple[str, Decimal]]) -> None:
    with clickhouse_connect.get_client(dsn=clickhouse) as client:
        types = ", ".join(f"{name} Decimal({precision}, {scale})" for name, (precision, scale) in COLUMNS.items())
        client.command("drop table if exists amounts sync")
        client.command(
            f"create table amounts (id Int64, {types}, _version UInt64)"
            " engine = ReplacingMergeTree(_version) order by id"
        )
        writer = ClickHouseWriter(ClickHouseSettings(clickhouse), Amounts)
        writer.open()
        rows = [Amounts(id=number, **{name: value}) for number, (name, value) in enumerate(values)]

        results = writer.write([Entry(row, sequence=sequence_of(row.id, 0)) for row in rows])
        shown = ", ".join(f"toString({name}) as {name}" for name in COLUMNS)
        stored = {row["id"]: row for row in client.query(f"select id, {shown} from amounts").named_results()}
        for number, (name, value) in enumerate(values):
            precision, scale = COLUMNS[name]
            unscaled = Fraction(value) * 10**scale
            if unscaled.denominator == 1 and abs(unscaled) < 10**precision:
                assert results[number] is RowOutcome.WRITTEN
                assert Fraction(stored[number][name]) == Fraction(value)
            else:
                assert results[number] == Refusal(Reason.OUT_OF_RANGE, "407", name)
        writer.close()


class Priced(Row, table="priced", primary_key="id"):
    id: int
    price: Annotated[Decimal, msgspec.Meta(multiple_of=0.01)]


@given(value=DECIMALS)
@example(value=Decimal("123456789012345678901234567890.25"))
@example(value=Decimal("-1234567890123456789012345678.255"))
def test_a_multiple_is_told_by_all_digits(value: Decimal) -> None:
    is_multiple = (Fraction(value) * 100).denominator == 1
    if is_multiple:
        assert Priced.from_raw({"id": 1, "price": value}).price == value
    else:
        with pytest.raises(RecordFault, match="out_of_range: expected Decimal with multiple_of"):
            Priced.from_raw({"id": 1, "price": value})
