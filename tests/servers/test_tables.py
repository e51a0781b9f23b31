"""Tables as they really are: several of them, odd names, partitions, enums, generated columns; and how they evolve."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.records import Reason
from lovelace_streams.rows import UNSET, Row
from lovelace_streams.settings import PostgresSettings
from lovelace_streams.writers import End, Entry, Refusal, Result
from lovelace_streams.writers.postgres import PostgresWriter
from lovelace_streams.writers.postgres_block import Together

W, S = End.WRITTEN, End.SUPERSEDED
Run = Callable[..., psycopg.Cursor[Any]]
WriterOf = Callable[..., PostgresWriter]


@pytest.fixture
def run(database: str) -> Iterator[Run]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection.execute


@pytest.fixture
def writer_of(database: str) -> Iterator[WriterOf]:
    """A writer of these row classes, open."""
    made = []

    def make(*rows: type[Row], **options: Any) -> PostgresWriter:
        settings = {name: options.pop(name) for name in ("write_seconds",) if name in options}
        writer = PostgresWriter(PostgresSettings(database, **settings), *rows, **options)
        made.append(writer)
        writer.open()
        return writer

    yield make
    for writer in made:
        writer.close()


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
    return [Entry(row, joined=at > 0) for item in rows for at, row in enumerate(item)]


def codes(results: list[Result]) -> list[str]:
    return [end.code if isinstance(end, Refusal) else str(end) for end in results]


@pytest.mark.parametrize("rows", [(Order, Line), (Line, Order)])
def test_referred_to_tables_are_written_first_whatever_was_declared(run: Run, writer_of: WriterOf, rows) -> None:
    run(LINKED)
    writer = writer_of(*rows)

    assert writer.tables.together is Together.LINKED
    assert writer.write(block([Line(order_id=1, n=1), Order(id=1), Line(order_id=1, n=2)])) == [W] * 3
    assert writer.name.endswith("orders+lines" if rows[0] is Order else "lines+orders")


def test_an_item_of_which_one_row_is_refused_leaves_nothing(run: Run, writer_of: WriterOf) -> None:
    run(LINKED)
    writer = writer_of(Order, Line)
    bad = [Order(id=2), Line(order_id=2, n=1), Line(order_id=2, n=2, amount=0)]
    results = writer.write(block([Order(id=1), Line(order_id=1, n=1)], bad, [Order(id=3), Line(order_id=3, n=1)]))

    assert results == [W, W, *[Refusal(Reason.CHECK, "23514", "lines_amount_check")] * 3, W, W]
    assert run("select id from orders order by id").fetchall() == [(1,), (3,)]
    assert run("select order_id from lines order by 1").fetchall() == [(1,), (3,)]


def test_rows_of_one_table_are_one_item_too(run: Run, writer_of: WriterOf) -> None:
    run(LINKED)

    assert codes(writer_of(Order).write(block([Order(id=1), Order(id=2, total=0)], Order(id=3)))) == [
        "23514",
        "23514",
        "written",
    ]
    assert run("select id from orders").fetchall() == [(3,)]


@pytest.mark.parametrize("one_by_one", [True, False])
def test_a_row_before_the_one_it_refers_to_is_refused_in_a_block_too(
    run: Run, writer_of: WriterOf, *, one_by_one: bool
) -> None:
    run(LINKED)
    writer = writer_of(Order, Line, one_by_one=one_by_one)
    results = writer.write(block(Line(order_id=1, n=1), Order(id=1), Line(order_id=1, n=2), Line(order_id=9, n=1)))

    assert codes(results) == ["23503", "written", "written", "23503"]


@pytest.mark.parametrize("one_by_one", [True, False])
def test_what_a_default_refers_to_may_come_later_as_well(run: Run, writer_of: WriterOf, *, one_by_one: bool) -> None:
    run(LINKED)
    writer = writer_of(Order, Tag, one_by_one=one_by_one)
    results = writer.write(block(Tag(id=1, order_id=UNSET), Order(id=2), Tag(id=2, order_id=UNSET)))

    assert codes(results) == ["23503", "written", "written"]


def test_many_linked_items_take_few_statements(run: Run, writer_of: WriterOf) -> None:
    run(LINKED)
    writer = writer_of(Order, Line)
    items = [[Order(id=n % 10), Line(order_id=n % 10, n=n)] for n in range(100)]
    entries = block(*items)
    segments = writer.tables.segments([entries[at : at + 2] for at in range(0, 200, 2)], writer._fresh)

    assert sum(len(segment.places) for segment in segments) == 200
    assert len(segments) == 11  # ten rounds of the orders' keys, then all lines
    assert {str(end) for end in writer.write(entries)} == {"written", "superseded"}


@pytest.mark.parametrize(
    ("ddl", "together"),
    [
        ("alter table lines drop constraint lines_order_id_fkey", Together.APART),
        ("select 1", Together.LINKED),
        ("alter table orders add foreign key (id, total) references lines (order_id, n)", Together.STRANGE),
        (
            """create function f() returns trigger language plpgsql as 'begin return new; end';
            create trigger t before insert on orders for each row execute function f()""",
            Together.STRANGE,
        ),
    ],
)
def test_how_tables_stand_to_each_other_is_read_from_the_catalogue(
    run: Run, writer_of: WriterOf, ddl: str, together: Together
) -> None:
    run(LINKED)
    run(ddl)

    assert writer_of(Order, Line).tables.together is together


def test_a_dropped_table_stops_the_worker_although_the_other_takes_rows(run: Run, writer_of: WriterOf) -> None:
    """Orders without lines are no neighbours of lines: nothing is dead-lettered for a wrong deployment."""
    run(LINKED)
    writer = writer_of(Order, Line)
    writer.write(block([Order(id=1), Line(order_id=1, n=1)]))
    run("drop table lines")

    with pytest.raises(DeploymentFault) as caught:
        writer.write(block(Order(id=2), [Order(id=3), Line(order_id=3, n=1)]))
    assert caught.value.code == "42P01"


def test_a_probe_asks_the_table_in_doubt(run: Run, writer_of: WriterOf, database: str) -> None:
    run(LINKED)
    writer = writer_of(Order, Line, write_seconds=0.2)
    writer.write(block(Order(id=1), Line(order_id=1, n=1)))
    with psycopg.connect(database) as other:
        other.execute("lock table lines")
        with pytest.raises(DestinationFault):
            writer.write(block(Line(order_id=1, n=2)))
        assert writer.probe(block(Order(id=1))) is False
    assert writer.probe() is True
