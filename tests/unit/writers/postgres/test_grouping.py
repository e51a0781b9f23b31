"""The table at the top of grouping.py: the order of the rows and the relation of the tables decide the statements."""

import pytest

from lovelace_streams.rows import UNSET, Row
from lovelace_streams.writers import Entry, sequence_of
from lovelace_streams.writers.postgres.catalog import ForeignKey, RowOrder, TableSchema
from lovelace_streams.writers.postgres.grouping import TableRelation, Tables
from lovelace_streams.writers.postgres.types import TypeInfo
from tests.columns import column_block


class Thing(Row, table="things", primary_key="id"):
    id: int
    parent: int | None = None


class Part(Row, table="parts", primary_key="id"):
    id: int
    thing: int | None


BIGINT = TypeInfo("int8", "N", "bigint", modified=False, modifier=-1, exact=True, display_name="bigint")


def schema(row, order=RowOrder.ANY, **facts):
    columns = {column.name: BIGINT for column in row.__table__.columns}
    return TableSchema(columns, order, may_suppress=False, names=frozenset(columns), **facts)


def grouped(tables, *items):
    """The ids of each statement; all keys are new."""
    entries = [[Entry(row) for row in (item if isinstance(item, list) else [item])] for item in items]
    rows = [entry.row for item in entries for entry in item]
    statements = tables.statement_rows(entries, lambda _plan, some: [True] * len(some))
    return [[rows[index].id for index in statement.indexes] for statement in statements]


def things(order, **facts):
    tables = Tables([Thing])
    tables.set_schemas([schema(Thing, order, **facts)])
    return tables


@pytest.mark.parametrize(
    ("order", "statements"),
    [
        (RowOrder.ANY, [[1, 2, 3], [1], [1]]),  # rounds, each in the order of its keys
        (RowOrder.AS_READ, [[3, 1], [1, 2], [1]]),  # consecutive rows, cut before a key that the run has
        (RowOrder.ONE_BY_ONE, [[3], [1], [1], [2], [1]]),
    ],
)
def test_the_order_of_the_rows_decides_which_of_them_share_a_statement(order, statements):
    assert grouped(things(order), *[Thing(id=n) for n in (3, 1, 1, 2, 1)]) == statements


def test_a_run_is_cut_before_a_row_that_an_earlier_one_refers_to():
    tables = things(RowOrder.AS_READ, parents=(("parent",),))

    assert grouped(tables, Thing(id=1, parent=3), Thing(id=2), Thing(id=3)) == [[1, 2], [3]]


def several(*, foreign_key, **facts):
    tables = Tables([Thing, Part])
    keys = (ForeignKey(7, ("thing",), ("id",)),) if foreign_key else ()
    tables.set_schemas([schema(Thing, relations=(7,), **facts), schema(Part, foreign_keys=keys, relations=(8,))])
    return tables


ITEMS = [
    [Part(id=11, thing=2), Thing(id=1)],
    [Thing(id=2), Part(id=12, thing=2)],
    [Part(id=13, thing=1)],
]


@pytest.mark.parametrize(
    ("tables", "relation", "statements"),
    [
        (several(foreign_key=False), TableRelation.INDEPENDENT, [[1, 2], [11, 12, 13]]),
        # 11 refers to 2, which a later item brings: a phase ends before 2
        (several(foreign_key=True), TableRelation.REFERENCING, [[1], [11], [2], [12, 13]]),
        (
            several(foreign_key=True, sees_other_tables=True),
            TableRelation.OPAQUE,
            [[1], [11], [2], [12], [13]],
        ),
    ],
    ids=["independent", "referencing", "opaque"],
)
def test_the_relation_of_the_tables_decides_the_order_between_them(tables, relation, statements):
    assert tables.relation is relation
    assert grouped(tables, *ITEMS) == statements


def test_an_absent_reference_may_refer_to_any_key():
    tables = several(foreign_key=True)

    assert grouped(tables, Part(id=11, thing=UNSET), Thing(id=2), Part(id=12, thing=2)) == [[11], [2], [12]]


def test_columns_that_were_encoded_for_another_schema_are_encoded_again():
    """Another thread may read the catalogue again between the two: no plan of before is used."""
    tables = things(RowOrder.ANY)
    [table] = tables.declared
    entries = [Entry(Thing(id=n, parent=-n), sequence=sequence_of(n, 0)) for n in range(5)]
    block = column_block(entries)
    [slice_] = block.parts
    values = slice_.columns.values
    encoded = table.encode_at_once(slice_.columns, as_lines=True)
    slice_.columns.let_go(encoded, ["id"], lambda _: values)
    [used] = table.uniform_rows(block)
    assert used.lines == [f"{n}\t{-n}" for n in range(5)]
    assert used.is_current

    tables.set_schemas([schema(Thing)])
    assert not used.is_current
    [again] = table.uniform_rows(block)
    assert again.is_current
    assert again.plan is not used.plan
    assert again.lines == used.lines
