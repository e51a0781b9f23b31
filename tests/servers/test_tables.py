"""Tables as they really are: several of them, odd names, partitions, enums, generated columns; and how they evolve."""

import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import psycopg
import pytest
from msgspec.structs import replace

from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.records import Reason
from lovelace_streams.rows import UNSET, Row
from lovelace_streams.writers import Entry, Evolution, Refusal, RowOutcome, RowResult
from lovelace_streams.writers.postgres import PostgresWriter
from lovelace_streams.writers.postgres.ddl import create_table
from lovelace_streams.writers.postgres.grouping import TableRelation
from tests.faults.harness import eventually
from tests.servers.command import lovelace

W, S = RowOutcome.WRITTEN, RowOutcome.SUPERSEDED
Run = Callable[..., psycopg.Cursor[Any]]
WriterOf = Callable[..., PostgresWriter]


# -- several tables ----------------------------------------------------------------------------------------------------


class Order(Row, table="orders", primary_key="id"):
    id: int
    total: int = 1


class Line(Row, table="lines", primary_key=("order_id", "n")):
    order_id: int
    n: int
    amount: int = 1


class Tag(Row, table="tags", primary_key="id"):
    id: int
    order_id: int | None


LINKED = """
create table orders (id bigint primary key, total bigint not null check (total > 0));
create table lines (order_id bigint references orders, n bigint, amount bigint check (amount > 0),
                    primary key (order_id, n));
create table tags (id bigint primary key, order_id bigint default 2 references orders);
"""


def block(*items: Row | list[Row]) -> list[Entry]:
    rows = [item if isinstance(item, list) else [item] for item in items]
    return [Entry(row, same_item=at > 0) for item in rows for at, row in enumerate(item)]


def codes(results: list[RowResult]) -> list[str]:
    return [end.code if isinstance(end, Refusal) else str(end) for end in results]


@pytest.mark.parametrize("rows", [(Order, Line), (Line, Order)])
def test_referred_to_tables_are_written_first_whatever_was_declared(run: Run, open_writer: WriterOf, rows) -> None:
    run(LINKED)
    writer = open_writer(*rows)

    assert writer.tables.relation is TableRelation.REFERENCING
    assert writer.write(block([Line(order_id=1, n=1), Order(id=1), Line(order_id=1, n=2)])) == [W] * 3
    assert writer.name.endswith("orders+lines" if rows[0] is Order else "lines+orders")


def test_an_item_of_which_one_row_is_refused_leaves_nothing(run: Run, open_writer: WriterOf) -> None:
    run(LINKED)
    writer = open_writer(Order, Line)
    bad = [Order(id=2), Line(order_id=2, n=1), Line(order_id=2, n=2, amount=0)]
    results = writer.write(block([Order(id=1), Line(order_id=1, n=1)], bad, [Order(id=3), Line(order_id=3, n=1)]))

    assert results == [W, W, *[Refusal(Reason.CHECK, "23514", "lines_amount_check")] * 3, W, W]
    assert run("select id from orders order by id").fetchall() == [(1,), (3,)]
    assert run("select order_id from lines order by 1").fetchall() == [(1,), (3,)]


def test_rows_of_one_table_are_one_item_too(run: Run, open_writer: WriterOf) -> None:
    run(LINKED)

    assert codes(open_writer(Order).write(block([Order(id=1), Order(id=2, total=0)], Order(id=3)))) == [
        "23514",
        "23514",
        "written",
    ]
    assert run("select id from orders").fetchall() == [(3,)]


@pytest.mark.parametrize("one_by_one", [True, False])
def test_a_row_before_the_one_it_refers_to_is_refused_in_a_block_too(
    run: Run, open_writer: WriterOf, *, one_by_one: bool
) -> None:
    run(LINKED)
    writer = open_writer(Order, Line, one_by_one=one_by_one)
    results = writer.write(block(Line(order_id=1, n=1), Order(id=1), Line(order_id=1, n=2), Line(order_id=9, n=1)))

    assert codes(results) == ["23503", "written", "written", "23503"]


@pytest.mark.parametrize("one_by_one", [True, False])
def test_what_a_default_refers_to_may_come_later_as_well(run: Run, open_writer: WriterOf, *, one_by_one: bool) -> None:
    run(LINKED)
    writer = open_writer(Order, Tag, one_by_one=one_by_one)
    results = writer.write(block(Tag(id=1, order_id=UNSET), Order(id=2), Tag(id=2, order_id=UNSET)))

    assert codes(results) == ["23503", "written", "written"]


def test_many_linked_items_take_few_statements(run: Run, open_writer: WriterOf) -> None:
    run(LINKED)
    writer = open_writer(Order, Line)
    items = [[Order(id=n % 10), Line(order_id=n % 10, n=n)] for n in range(100)]
    entries = block(*items)
    statements = writer.tables.statement_rows(
        [entries[at : at + 2] for at in range(0, 200, 2)], writer._transactions.keys_are_new
    )

    assert sum(len(rows.indexes) for rows in statements) == 200
    assert len(statements) == 11  # ten rounds of the orders' keys, then all lines
    assert {str(end) for end in writer.write(entries)} == {"written", "superseded"}


@pytest.mark.parametrize(
    ("ddl", "relation"),
    [
        ("alter table lines drop constraint lines_order_id_fkey", TableRelation.INDEPENDENT),
        ("select 1", TableRelation.REFERENCING),
        ("alter table orders add foreign key (id, total) references lines (order_id, n)", TableRelation.OPAQUE),
        (
            """create function f() returns trigger language plpgsql as 'begin return new; end';
            create trigger t before insert on orders for each row execute function f()""",
            TableRelation.OPAQUE,
        ),
    ],
)
def test_how_tables_look_at_each_other_is_read_from_the_catalogue(
    run: Run, open_writer: WriterOf, ddl: str, relation: TableRelation
) -> None:
    run(LINKED)
    run(ddl)

    assert open_writer(Order, Line).tables.relation is relation


def test_a_dropped_table_stops_the_worker_although_the_other_takes_rows(run: Run, open_writer: WriterOf) -> None:
    """Orders without lines are no neighbours of lines: nothing is dead-lettered for a wrong deployment."""
    run(LINKED)
    writer = open_writer(Order, Line)
    writer.write(block([Order(id=1), Line(order_id=1, n=1)]))
    run("drop table lines")

    with pytest.raises(DeploymentFault) as caught:
        writer.write(block(Order(id=2), [Order(id=3), Line(order_id=3, n=1)]))
    assert caught.value.code == "42P01"


def test_a_probe_asks_the_table_in_doubt(run: Run, open_writer: WriterOf, database: str) -> None:
    run(LINKED)
    writer = open_writer(Order, Line, write_seconds=0.2)
    writer.write(block(Order(id=1), Line(order_id=1, n=1)))
    with psycopg.connect(database) as other:
        other.execute("lock table lines")
        with pytest.raises(DestinationFault):
            writer.write(block(Line(order_id=1, n=2)))
        assert writer.probe(block(Order(id=1))) is False
    assert writer.probe() is True


# -- tables as they really are -----------------------------------------------------------------------------------------


class Mood(Enum):
    HAPPY = "happy"
    SAD = "sad"


def roundtrip(run: Run, open_writer: WriterOf, ddl: str, *rows: Row) -> list[str]:
    run(ddl)
    return codes(open_writer(type(rows[0])).write([Entry(row) for row in rows]))


def test_capitals_quotes_dots_and_reserved_words_are_taken_as_they_are(run: Run, open_writer: WriterOf) -> None:
    class Odd(Row, table='Sales."v1.Order"', primary_key=("select", "userId")):
        select: int
        userId: int  # noqa: N815 - as it is called there
        user: str | None
        order: list[str] | None
        table: dict[str, int] | None

    run('create schema "Sales"')
    rows = [Odd(select=n, userId=1, user="u", order=UNSET if n else ["x"], table={"a": n}) for n in range(3)]

    assert roundtrip(run, open_writer, create_table(Odd), *rows, rows[0]) == [
        "superseded",
        "written",
        "written",
        "written",
    ]
    assert run('select "userId", "order" from "Sales"."v1.Order" order by "select" limit 1').fetchone() == (1, ["x"])


@pytest.mark.parametrize("many", [True, False])
def test_partitioned_tables_take_rows_by_their_whole_key(run: Run, open_writer: WriterOf, *, many: bool) -> None:
    class Event(Row, table="events", primary_key=("id", "day")):
        id: int
        day: date
        text: str | None

    run(
        """create table events (id bigint, day date, text text check (text <> 'bad'), primary key (id, day))
        partition by range (day);
        create table events_may partition of events for values from ('2026-05-01') to ('2026-06-01');
        create table events_june partition of events for values from ('2026-06-01') to ('2026-07-01')
        partition by hash (id);
        create table events_june_0 partition of events_june for values with (modulus 1, remainder 0)"""
    )
    writer = open_writer(Event, one_by_one=not many)
    may, june, never = date(2026, 5, 2), date(2026, 6, 2), date(2027, 1, 1)
    rows = [(1, may, "a"), (1, june, "b"), (2, never, "c"), (1, may, "bad"), (1, may, "d")]
    results = writer.write([Entry(Event(id=i, day=day, text=text)) for i, day, text in rows])

    assert codes(results) == ["superseded", "written", "23514", "23514", "written"]
    assert run("select text from events order by day").fetchall() == [("d",), ("b",)]


def test_enums_alone_in_domains_and_in_arrays(run: Run, open_writer: WriterOf) -> None:
    class Person(Row, table="people", primary_key="mood"):
        mood: Mood
        other: Literal["happy", "furious"] | None
        all: list[Mood] | None
        nullable: list[Mood | None] | None
        loud: str | None

    ddl = """create type mood as enum ('happy', 'sad');
    create domain loud as mood check (value <> 'sad');
    create table people (mood mood primary key, other mood, "all" mood[], nullable jsonb, loud loud)"""
    fine = Person(mood=Mood.HAPPY, other="happy", all=[Mood.SAD, Mood.HAPPY], nullable=[None], loud="happy")
    rows = [fine, replace(fine, mood=Mood.SAD, other="furious"), replace(fine, loud="sad"), replace(fine, loud="x")]

    assert roundtrip(run, open_writer, ddl, *rows) == ["written", "22P02", "23514", "22P02"]
    assert run('select mood, "all"::text from people').fetchall() == [("happy", "{sad,happy}")]


def test_domains_and_columns_that_the_database_fills(run: Run, open_writer: WriterOf) -> None:
    class Item(Row, table="items", primary_key="sku"):
        sku: str
        price: Decimal

    ddl = """create domain positive as numeric(6, 2) not null check (value > 0);
    create table items (
      number bigint generated always as identity, alias bigint generated by default as identity,
      sku text primary key, price positive, twice numeric generated always as (price * 2) stored)"""

    prices = [
        Item(sku="a", price=Decimal("1.010")),
        Item(sku="b", price=Decimal(0)),
        Item(sku="c", price=Decimal("1.005")),
    ]
    assert roundtrip(run, open_writer, ddl, *prices) == ["written", "23514", "22003"]
    assert run("select price, twice from items").fetchall() == [(Decimal("1.01"), Decimal("2.02"))]


@pytest.mark.parametrize(
    ("ddl", "said"),
    [
        ("create view orders as select 1::bigint as id, 1::bigint as total", "not a table but a view"),
        ("create materialized view orders as select 1::bigint as id", "not a table but a materialized view"),
        ("create sequence orders", "not a table but a sequence"),
        ("create table orders (id bigint primary key, total bigint generated always as (id) stored)", "is generated"),
        ("create table orders (id bigint generated always as identity primary key, total int)", "is generated"),
    ],
)
def test_what_is_not_written_is_refused_with_its_name(run: Run, open_writer: WriterOf, ddl: str, said: str) -> None:
    run(ddl)

    with pytest.raises(DeploymentFault, match=said):
        open_writer(Order)


# -- how they evolve ---------------------------------------------------------------------------------------------------


class Wide(Row, table="orders", primary_key="id"):
    id: int
    total: int
    note: str | None
    level: int = 3
    mood: Mood = Mood.HAPPY
    required: str


def columns(run: Run, table: str = "orders") -> list[tuple[str, str, str, str | None]]:
    return run(
        """select column_name, data_type, is_nullable, column_default from information_schema.columns
        where table_name = %s order by ordinal_position""",
        [table],
    ).fetchall()


def test_a_difference_is_told_and_added_once(run: Run, writer_of: WriterOf) -> None:
    run("create table orders (id bigint primary key, total bigint); insert into orders values (1, 1)")
    writer = writer_of(Wide)
    said = writer.evolution()

    assert [statement.split(" IF NOT EXISTS ")[1] for statement in said.statements] == [
        '"note" text;',
        '"level" bigint NOT NULL DEFAULT 3;',
        """"mood" text NOT NULL CHECK ("mood" IN ('happy', 'sad')) DEFAULT 'happy';""",
        '"required" text;',
    ]
    assert len(columns(run)) == 2
    assert writer.evolution(apply=True) == said
    assert writer.evolution(apply=True) == writer.evolution() == Evolution()
    assert run("table orders").fetchall() == [(1, 1, None, 3, "happy", None)]
    writer.open()
    assert codes(writer.write([Entry(Wide(id=2, total=2, note=None, required="r"))])) == ["written"]


def test_missing_tables_and_their_schema_are_made(run: Run, writer_of: WriterOf) -> None:
    class Fresh(Row, table="Sales.fresh", primary_key="id"):
        id: int

    writer = writer_of(Order, Fresh)
    assert len(writer.evolution(apply=True).statements) == 3
    writer.open()
    assert codes(writer.write(block([Order(id=1), Fresh(id=1)]))) == ["written"] * 2
    assert writer.ddl().count("CREATE TABLE") == 2


def test_what_cannot_be_added_is_named_and_then_nothing_is(run: Run, writer_of: WriterOf) -> None:
    run("create table orders (id text, total bigint, more int not null, unique (total))")

    found = writer_of(Wide).evolution(apply=True)

    assert len(found.statements) == 4
    assert found.obstacles == [
        "orders: column id is text and can't hold int",
        "orders: column more is NOT NULL without a default, and the row has no such field",
        "orders: no primary key or unique index on (id), so a replay would write rows twice",
    ]
    assert len(columns(run)) == 3


def test_labels_of_an_enum_are_added(run: Run, writer_of: WriterOf) -> None:
    class Person(Row, table="people", primary_key="id"):
        id: int
        mood: Mood
        all: list[Mood] | None

    run("create type mood as enum ('happy'); create table people (id bigint primary key, mood mood, \"all\" mood[])")
    writer = writer_of(Person)

    assert set(writer.evolution(apply=True).statements) == {"ALTER TYPE mood ADD VALUE IF NOT EXISTS 'sad';"}
    assert not writer.evolution().differs
    writer.open()
    assert codes(writer.write([Entry(Person(id=1, mood=Mood.SAD, all=[Mood.SAD]))])) == ["written"]


def test_two_at_once_end_as_one(run: Run, writer_of: WriterOf, database: str) -> None:
    run("create table orders (id bigint primary key, total bigint)")
    with psycopg.connect(database) as other, ThreadPoolExecutor(4) as pool:
        other.execute("lock table orders in share mode")  # so that all of them are under way
        under_way = [pool.submit(writer_of(Wide).evolution, apply=True) for _ in range(4)]
        waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
        eventually(lambda: run(waiting).fetchone() == (4,), pause=0.01)
        other.rollback()
        done = [each.result(30) for each in under_way]

    assert sorted(len(each.statements) for each in done) == [0, 0, 0, 4]
    assert len(columns(run)) == 6


def test_at_start_columns_are_added_only_where_that_was_chosen(run: Run, writer_of: WriterOf) -> None:
    run("create table orders (id bigint primary key, total bigint)")
    with pytest.raises(DeploymentFault, match="no column note; `lovelace ddl FLOW --apply` adds it"):
        writer_of(Wide).open()

    writer = writer_of(Wide, evolution="add")
    writer.open()
    assert len(columns(run)) == 6
    run("drop table orders")
    with pytest.raises(DeploymentFault, match="no such table"):
        writer_of(Wide, evolution="add").open()


def test_a_table_is_never_made_at_start(run: Run, writer_of: WriterOf) -> None:
    class Extra(Row, table="extras", primary_key="id"):
        id: int

    run("create table orders (id bigint primary key, total bigint)")
    with pytest.raises(DeploymentFault):
        writer_of(Wide, Extra, evolution="add").open()
    assert run("select to_regclass('extras')").fetchone() == (None,)


@pytest.mark.slow
def test_the_command_compares_and_applies(run: Run, database: str, tmp_path: Path) -> None:
    run("create table orders (id bigint primary key, total bigint, state text, seen_at timestamptz)")
    environment = {"POSTGRES_DSN": database, "PROGRESS_API_URL": "", "TOPIC": "orders"}

    def ddl(*options: str) -> subprocess.CompletedProcess:
        return lovelace(tmp_path, environment, "ddl", "tests.servers.flows", *options)

    differs = ddl("--diff")
    assert (differs.returncode, differs.stdout) == (
        1,
        'ALTER TABLE "orders" ADD COLUMN IF NOT EXISTS "parent" bigint;\n',
    )
    assert len(columns(run)) == 4
    assert ddl("--apply").returncode == 0
    assert (ddl("--diff").returncode, ddl("--apply").stdout) == (0, "")
    run("alter table orders drop constraint orders_pkey")
    refused = ddl("--apply")
    assert (refused.returncode, "no primary key" in refused.stderr) == (1, True)
    assert ddl("--diff", "--apply").returncode == 2
    assert ddl().stdout.startswith('CREATE TABLE "orders" (')
