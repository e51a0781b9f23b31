"""Rows as columns: the values of each column, of rows of one class or of several."""

from typing import Annotated

from lovelace_streams import Name, Row
from lovelace_streams.writers.clickhouse.block_columns import columns_of


class Reading(Row, table="readings", primary_key="id"):
    id: int
    kind: Annotated[str, Name("class")]


class Other(Row, table="readings", primary_key="id"):
    id: int
    what: Annotated[str, Name("class")]


def test_no_rows_have_columns_without_values() -> None:
    assert columns_of([], ["id", "class"]) == [[], []]


def test_classes_of_one_table_may_name_the_fields_of_a_column_as_they_like() -> None:
    rows = [Reading(id=1, kind="a"), Other(id=2, what="b")]
    assert columns_of(rows, ["class", "id"]) == [["a", "b"], [1, 2]]
    assert columns_of(rows[:1], ["class", "id"]) == [["a"], [1]]
