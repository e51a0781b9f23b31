"""Law 8 for items with rows in several tables: any cut ends as item by item, and a refused item leaves nothing."""

import psycopg
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from lovelace_streams.rows import UNSET, Row
from lovelace_streams.settings import PostgresSettings
from lovelace_streams.writers import Entry, Refusal, RowOutcome, items_of
from lovelace_streams.writers.postgres import PostgresWriter
from tests.examples import examples

BASE = """
drop table if exists line, head, other cascade;
create table other (id int primary key);
insert into other values (1), (2);
create table head (k bigint primary key, a int default 1, up bigint, v int);
create table line (k bigint primary key, head bigint default 2, c int default 1, u int default 8, v int);
"""

TRIGGER = """
create or replace function {name}() returns trigger language plpgsql as $$ begin {body} end $$;
create trigger {name} {when} insert or update on {table} for each row execute function {name}();
"""


def trigger(name: str, when: str, table: str, body: str) -> str:
    return TRIGGER.format(name=name, when=when, table=table, body=body)


FEATURES = {
    "line_refers": "alter table line add constraint refers foreign key (head) references head (k)",
    "line_refers_deferred": "alter table line add foreign key (head) references head (k) deferrable initially deferred",
    "head_refers": "alter table head add constraint back foreign key (up) references line (k)",
    "head_to_self": "alter table head add constraint up foreign key (up) references head (k)",
    "line_elsewhere": "alter table line add constraint elsewhere foreign key (c) references other (id)",
    "head_checked": "alter table head add constraint positive check (a > 0)",
    "line_checked": "alter table line add constraint small check (c < 3)",
    "line_unique": "alter table line add constraint once unique (u)",
    "head_not_null": "alter table head alter a set not null",
    "line_not_null": "alter table line alter u set not null",
    "head_narrow": "alter table head alter a type int2",
    "line_looks": trigger(
        "line_looks",
        "before",
        "line",
        "if not exists (select from head where k = new.head) then raise 'no'; end if; return new;",
    ),
    "line_suppressed": trigger(
        "line_suppressed", "before", "line", "if new.c = 2 then return null; end if; return new;"
    ),
    "head_counts": trigger(
        "head_counts", "after", "head", "if (select count(*) from line) > 3 then raise 'no'; end if; return null;"
    ),
}
TOGETHER = [
    {"line_refers", "line_checked"},
    {"line_refers", "head_checked"},
    {"line_refers", "head_to_self"},
    {"line_refers", "line_unique", "head_narrow"},
    {"line_refers", "head_refers"},
    {"line_looks", "line_checked"},
    {"line_unique", "line_not_null", "head_checked"},
]
features_of_tables = st.one_of(
    st.sets(st.sampled_from(sorted(FEATURES)), max_size=3), st.sampled_from(TOGETHER).map(set), st.just({"line_refers"})
)


class Head(Row, table="head", primary_key="k"):
    k: int
    a: int | None
    up: int | None


class Line(Row, table="line", primary_key="k"):
    k: int
    head: int | None
    c: int | None
    u: int | None


class VersionedHead(Row, table="head", primary_key="k", version="v"):
    k: int
    a: int | None
    up: int | None
    v: int


class VersionedLine(Row, table="line", primary_key="k", version="v"):
    k: int
    head: int | None
    c: int | None
    u: int | None
    v: int


@st.composite
def items(draw: st.DrawFn, *, versioned: bool) -> list[list[Entry]]:
    careful = draw(st.booleans())
    rare = [1] * 12 if careful else [1]
    nothing = [] if careful else [None, UNSET]
    value = {
        "a": [*rare, 0, 2, 70_000, "x", *nothing],
        "up": [None] * (12 if careful else 1) + [1, 2, 3, *nothing],
        "head": [1, 2, 3, 4, 5, *nothing],
        "c": [*rare, 2, 3, *nothing],
        "u": [None if careful else 9, *range(6), *nothing],
    }
    keys = draw(st.sampled_from([5, 5, 30]))

    def fields(*names: str) -> dict[str, object]:
        version = {"v": draw(st.integers(1, 4))} if versioned else {}
        return {"k": draw(st.integers(1, keys))} | {n: draw(st.sampled_from(value[n])) for n in names} | version

    def row() -> Row:
        if draw(st.booleans()):
            return (VersionedHead if versioned else Head)(**fields("a", "up"))
        return (VersionedLine if versioned else Line)(**fields("head", "c", "u"))

    made = []
    for _ in range(draw(st.integers(1, 10))):
        rows = [row() for _ in range(draw(st.sampled_from([1, 1, 2, 3])))]
        only_new = draw(st.integers(0, 7)) == 0
        made.append([Entry(each, only_new, same_item=at > 0) for at, each in enumerate(rows)])
    return made


def written(writer: PostgresWriter, block: list[list[Entry]], sizes: list[int]) -> list[list[object]]:
    """Results by item."""
    ends: list[list[object]] = []
    for size in sizes:
        chosen = block[len(ends) : len(ends) + size]
        results = writer.write([entry for item in chosen for entry in item])
        for item in chosen:
            ends.append(results[: len(item)])
            results = results[len(item) :]
    return ends


def comparable(ends: list[list[object]]) -> list[object]:
    """Who was refused and why, and what was suppressed. Superseded or written is the cut's."""
    for item in ends:
        assert len({isinstance(end, Refusal) for end in item}) == 1, "a part of an item was written"
    return [
        [(e.reason, e.code) if isinstance(e, Refusal) else e is RowOutcome.SUPPRESSED for e in item] for item in ends
    ]


@pytest.fixture
def world(database: str):
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection, PostgresSettings(database)


@pytest.mark.slow
@settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data(), features=features_of_tables, versioned=st.booleans(), turned=st.booleans())
def test_any_cut_of_items_in_two_tables_ends_as_item_by_item(world, data, features, versioned, turned):
    connection, postgres = world
    rows = (VersionedHead, VersionedLine) if versioned else (Head, Line)
    connection.execute(BASE)
    for feature in sorted(features):
        connection.execute(FEATURES[feature])
    block = data.draw(items(versioned=versioned), label="items")
    sizes = st.lists(st.integers(1, 10), min_size=10, max_size=10)
    first, second = data.draw(sizes, label="cut"), data.draw(sizes, label="other cut")

    def outcome(cut: list[int], *, one_by_one: bool = False) -> tuple[list[object], list[object]]:
        connection.execute("set session_replication_role = replica; delete from line; delete from head")
        connection.execute("set session_replication_role = origin; insert into head values (1, 1, null, 2)")
        writer = PostgresWriter(postgres, *(reversed(rows) if turned else rows), one_by_one=one_by_one)
        try:
            writer.open()
            event(f"relation: {writer.tables.relation.value}")
            ends = written(writer, block, cut)
        finally:
            writer.close()
        tables = connection.execute("select * from head order by k").fetchall()
        return comparable(ends), [tables, connection.execute("select * from line order by k").fetchall()]

    expected = outcome([10], one_by_one=True)
    event(f"refused: {any(isinstance(end, tuple) for item in expected[0] for end in item)}")
    assert outcome([10]) == expected
    assert outcome(first) == expected
    assert outcome(second) == expected


def test_the_items_of_a_block_are_told_by_their_rows():
    entries = [Entry(Head(k=1, a=1, up=None)), Entry(Line(k=1, head=1, c=1, u=1), same_item=True)]

    assert [len(item) for item in items_of(entries * 2)] == [2, 2]
