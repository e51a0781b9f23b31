"""`Scale`: how many digits after the point a Decimal may have, and what becomes of more."""

from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lovelace_streams import From, RecordFault, Row, Scale
from lovelace_streams.writers.postgres.ddl import create_table
from tests.unit.rows.ways import mapped


class Price(Row, table="prices", primary_key="id"):
    id: int
    exact: Annotated[Decimal | None, Scale(2)]
    even: Annotated[Decimal | None, From("exact"), Scale(2, ROUND_HALF_EVEN)]
    down: Annotated[Decimal, Scale(0, ROUND_DOWN)] = Decimal(0)
    parts: list[Annotated[Decimal, Scale(1)]] | None
    half: Annotated[Decimal | None, lambda value: value / 2, Scale(1)]


@pytest.mark.parametrize("given", ["12.34", "12.340", "12", "-0.010", "1E+3", "0.000", 12, Decimal("7.5")])
def test_no_more_digits_than_declared_are_kept_as_they_are(given: Any) -> None:
    assert str(Price.from_raw({"id": 1, "exact": given}).exact) == str(Decimal(given))


@pytest.mark.parametrize("given", ["12.345", "0.001", "-1E-3", "99999999999999999999999999999999999.001"])
def test_more_digits_are_out_of_range_and_never_cut(given: str) -> None:
    with pytest.raises(RecordFault) as caught:
        Price.from_raw({"id": 1, "exact": given})
    assert caught.value.reason == "out_of_range"
    assert "at most 2 digits after the point" in str(caught.value)
    assert given not in str(caught.value)


def test_a_declared_rounding_rounds() -> None:
    row = Price.from_raw({"id": 1, "exact": "12.30", "down": "-7.9"})
    assert (row.even, row.down) == (Decimal("12.30"), Decimal(-7))

    class Rounded(Row, table="prices", primary_key="id"):
        id: int
        even: Annotated[Decimal, Scale(2, ROUND_HALF_EVEN)]

    exact = "123456789012345678901234567890123456.125"
    assert str(Rounded.from_raw({"id": 1, "even": exact}).even) == exact[:-1]


def test_elements_and_what_functions_return_have_the_scale_as_well() -> None:
    assert Price.from_raw({"id": 1, "parts": ["1.5"], "half": "1"}).half == Decimal("0.5")
    for wrong in ({"parts": ["1.5", "1.55"]}, {"half": "0.5"}):
        with pytest.raises(RecordFault, match="out_of_range"):
            Price.from_raw({"id": 1, **wrong})


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4), st.integers(0, 4))
def test_a_value_is_refused_exactly_where_rounding_would_change_it(value: Decimal, digits: int) -> None:
    kept = Scale(digits).applied(value)
    rounded = Scale(digits, ROUND_HALF_EVEN).applied(value)
    assert rounded is not None
    assert (kept is None) == (rounded != value)
    assert abs(rounded - value) <= Decimal(1).scaleb(-digits) / 2


def test_only_a_decimal_has_a_scale() -> None:
    class Wrong(Row, table="prices", primary_key="id"):
        id: int
        ratio: Annotated[float, Scale(2)]

    with pytest.raises(TypeError, match="ratio: Scale is for Decimal"):
        Wrong.from_raw({"id": 1, "ratio": 0.5})
    with pytest.raises(ValueError, match="Scale"):
        Scale(-1)
    with pytest.raises(ValueError, match="ROUND_"):
        Scale(2, "half up")


def test_ddl_leaves_the_column_as_wide_as_the_row_may_need() -> None:
    assert '"exact" numeric,' in create_table(Price)


@pytest.mark.parametrize(
    ("scale", "text", "end"),
    [
        (Scale(2), '"12.34"', Decimal("12.34")),
        (Scale(2), "12.340", Decimal("12.340")),
        (
            Scale(2),
            "12.345",
            ("out_of_range", "expected Decimal with at most 2 digits after the point, got one with more at $.x"),
        ),
        (Scale(1, ROUND_HALF_EVEN), "12.35", Decimal("12.4")),
    ],
)
def test_generated_and_interpreted_mappings_agree(scale: Scale, text: str, end: Any) -> None:
    assert mapped(Annotated[Decimal, scale], text) == end
