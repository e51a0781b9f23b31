"""The CHECKs that `lovelace ddl` makes of an Enum or Literal follow the row class, on a real Postgres."""

from collections.abc import Callable
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal

import psycopg
import pytest

from lovelace_streams.records import Reason
from lovelace_streams.rows import From, Row
from lovelace_streams.writers import Entry, Evolution, Refusal, RowOutcome
from lovelace_streams.writers.postgres import PostgresWriter
from lovelace_streams.writers.postgres.ddl import create_table

WRITTEN = RowOutcome.WRITTEN


def row_class(values: Any) -> type[Row]:
    """A row class of `things` whose field `kind` admits these values."""

    class Thing(Row, table="things", primary_key="id"):
        id: int
        kind: values  # type: ignore[valid-type]

    return Thing


class Tier(Enum):
    GOLD = "gold"


class MoreTiers(Enum):
    IRON = "iron"
    GOLD = "gold"


class Level(IntEnum):
    LOW = 1


class MoreLevels(IntEnum):
    LOW = 1
    HIGH = -7


GROWN = {
    "literal": (Literal["a", "b"], Literal["b", "c", "a", "d"], "c"),
    "one": (Literal["a"], Literal["a", "b"], "b"),
    "enum": (Tier, MoreTiers, MoreTiers.IRON),
    "numbers": (Literal[1, 2], Literal[1, 2, 3], 3),
    "one number": (Level, MoreLevels, MoreLevels.HIGH),
    "odd texts": (Literal["it's", "a\\b", "x)", ""], Literal["it's", "a\\b", "x)", "", "]', 'y"], "]', 'y"),
    "nullable": (Literal["a"] | None, Literal["a", "b"] | None, "b"),
}
"""Name → the values that the table was made for, those of today, and a new one."""


def rules(run: Callable[..., psycopg.Cursor]) -> list[tuple[str, bool]]:
    mine = "contype = 'c' and conrelid = 'things'::regclass"
    return run(f"select pg_get_constraintdef(oid), convalidated from pg_constraint where {mine}").fetchall()


@pytest.mark.parametrize("case", GROWN)
def test_new_values_are_told_and_added(
    run: Callable[..., psycopg.Cursor], writer_of: Callable[..., PostgresWriter], case: str
) -> None:
    before, after, new = GROWN[case]
    run(create_table(row_class(before)))
    writer = writer_of(row_class(after))
    writer.open()
    entry = [Entry(writer.rows[0](id=1, kind=new))]
    assert writer.write(entry) == [Refusal(Reason.CHECK, "23514", "things_kind_check")]

    unchanged = rules(run)
    told = writer.evolution()

    assert len(told.statements) == 2
    assert told.addable
    assert rules(run) == unchanged, "a look changes nothing"
    assert writer.evolution(apply=True) == told
    assert writer.evolution(apply=True) == writer.evolution() == Evolution()
    assert [valid for _, valid in rules(run)] == [True]
    writer.open()
    assert writer.write(entry) == [WRITTEN]


def test_a_worker_and_a_check_say_which_values_the_table_refuses(
    run: Callable[..., psycopg.Cursor], writer_of: Callable[..., PostgresWriter], capsys: pytest.CaptureFixture[str]
) -> None:
    run(create_table(row_class(Literal["a"])))
    writer = writer_of(row_class(Literal["a", "b"]))
    writer.open()

    assert "values_missing" in "".join(capsys.readouterr())
    assert ["lovelace ddl FLOW --apply" in note for note in writer.notes()] == [True]
    writer.evolution(apply=True)
    assert writer.notes() == []
    writer.open()
    assert "values_missing" not in "".join(capsys.readouterr())


def test_a_list_is_never_narrowed(run: Callable[..., psycopg.Cursor], writer_of: Callable[..., PostgresWriter]) -> None:
    run(create_table(row_class(Literal["a", "b"])))
    before = rules(run)

    assert writer_of(row_class(Literal["a"])).evolution(apply=True) == Evolution()
    assert writer_of(row_class(str)).evolution(apply=True) == Evolution()
    assert rules(run) == before
    writer_of(row_class(Literal["a", "c"])).evolution(apply=True)
    assert "'b'" in rules(run)[0][0]


@pytest.mark.parametrize(
    "rule",
    [
        "constraint mine check (kind in ('a'))",
        "constraint things_kind_check check (kind <> 'c')",
        "constraint things_kind_check check (kind in ('a') or id = 1)",
        "constraint things_kind_check check (kind in ('a', lower('B')))",
        "constraint things_kind_check check (kind in ('a') and pg_sleep(0) is not null)",
    ],
)
def test_the_owners_rules_are_left_alone(
    run: Callable[..., psycopg.Cursor], writer_of: Callable[..., PostgresWriter], rule: str
) -> None:
    run(f"create table things (id bigint primary key, kind text not null, {rule})")
    before = rules(run)

    assert writer_of(row_class(Literal["a", "c"])).evolution(apply=True) == Evolution()
    assert rules(run) == before


def test_a_rule_that_was_not_validated_stays_so(
    run: Callable[..., psycopg.Cursor], writer_of: Callable[..., PostgresWriter]
) -> None:
    run("create table things (id bigint primary key, kind text not null); insert into things values (1, 'odd');"
        " alter table things add constraint things_kind_check check (kind in ('a', 'b')) not valid")  # fmt: skip

    assert len(writer_of(row_class(Literal["a", "b", "c"])).evolution(apply=True).statements) == 1
    assert [valid for _, valid in rules(run)] == [False]


def test_columns_and_values_are_added_together_and_at_start_where_that_was_chosen(
    run: Callable[..., psycopg.Cursor], writer_of: Callable[..., PostgresWriter]
) -> None:
    class Things(Row, table="things", primary_key="id"):
        id: int
        kind: Literal["a", "b"]
        more: str | None

    run(create_table(row_class(Literal["a"])))
    writer = writer_of(Things, evolution="add")
    writer.open()

    assert writer.write([Entry(Things(id=1, kind="b", more="x"))]) == [WRITTEN]


def test_several_classes_of_a_table_admit_what_any_of_them_does(
    run: Callable[..., psycopg.Cursor], writer_of: Callable[..., PostgresWriter]
) -> None:
    class Joined(Row, table="things", primary_key="id"):
        id: int
        kind: Literal["joined"]

    class Left(Row, table="things", primary_key="id"):
        id: int
        kind: Annotated[Literal["left"], From("type")]

    run(create_table(Joined, Left))
    writer = writer_of(Joined, Left)
    writer.open()

    assert writer.write([Entry(Joined(id=1, kind="joined")), Entry(Left(id=2, kind="left"))]) == [WRITTEN, WRITTEN]
    run("drop table things")
    run(create_table(Joined))
    writer.evolution(apply=True)
    writer.open()
    assert writer.write([Entry(Left(id=2, kind="left"))]) == [WRITTEN]
