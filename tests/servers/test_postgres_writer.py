"""The Postgres writer on a real server: types, the check at start, whose fault, and what it leaves behind."""

import threading
import time
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from random import Random
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import msgspec
import psycopg
import pytest

from lovelace_streams.columns import Columns
from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.records import Reason
from lovelace_streams.rows import UNSET, Row
from lovelace_streams.settings import PostgresSettings
from lovelace_streams.writers import Entry, Refusal, RowOutcome, sequence_of
from lovelace_streams.writers.postgres import PostgresWriter, parallel, subtransactions, transaction
from lovelace_streams.writers.postgres import writer as postgres
from lovelace_streams.writers.postgres.catalog import RowOrder
from lovelace_streams.writers.postgres.ddl import create_table
from lovelace_streams.writers.postgres.isolation import SUBTRANSACTION_ROWS
from lovelace_streams.writers.postgres.parallel import PartitionedBlock
from tests.columns import column_block

SECRET = "secret-value"


class Thing(Row, table="things", primary_key="id"):
    id: int
    text: str | None = None


class Tier(Enum):
    GOLD = "gold"
    IRON = "iron"


class Address(msgspec.Struct):
    street: str


class Everything(Row, table="everything", primary_key=("id", "tier")):
    id: int
    tier: Tier
    text: str | None
    flag: bool
    amount: Decimal
    ratio: float
    at: datetime
    day: date
    uid: UUID
    tags: list[str]
    ids: list[int] | None
    data: dict[str, Any]
    where: Address
    parts: list[Address]
    kind: Literal["a", "b"] | None


def everything(**changes):
    values = {
        "id": -(2**63), "tier": Tier.GOLD, "text": 'q" \\ {,} NULL ü 🦊\n', "flag": True, "amount": Decimal("-1.50"),
        "ratio": 0.1, "at": datetime(2024, 2, 29, 12, tzinfo=timezone(timedelta(hours=5, minutes=30))),
        "day": date(1, 1, 1), "uid": UUID(int=7), "tags": ["", 'a"b', "NULL", "{}", "c\\"], "ids": None,
        "data": {"k": ['"', None, 1.5]}, "where": Address("x"), "parts": [Address("y"), Address("z")], "kind": "a",
    }  # fmt: skip
    return Everything(**{**values, **changes})


@pytest.fixture
def things(run, writer_of):
    """A writer of `things`, open, after the given DDL."""

    def make(ddl="create table things (id bigint primary key, text text)", **options):
        run(ddl)
        writer = writer_of(Thing, **options)
        writer.open()
        return writer

    return make


def entries(*texts):
    return [Entry(Thing(id=n, text=text)) for n, text in enumerate(texts)]


def as_user(dsn, name, password=""):
    parts = urlsplit(dsn)
    host = parts.netloc.rsplit("@", 1)[-1]
    return urlunsplit(parts._replace(netloc=f"{name}:{password}@{host}"))


# -- types -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copy_rows", [1, 100])
def test_every_declared_type_comes_back_as_it_was(run, writer_of, monkeypatch, copy_rows):
    monkeypatch.setattr(postgres, "COPY_ROWS_MIN", copy_rows)
    run(create_table(Everything))
    writer = writer_of(Everything)
    writer.open()
    rows = [everything(), everything(tier=Tier.IRON, text=None, flag=False, amount=Decimal("1E+3"), ids=[1, 2**63 - 1])]
    rows.append(everything(id=1, tags=[], parts=[], data={}, ratio=float("inf"), kind=None, ids=[]))
    rows.append(everything(id=2, text="\\N \\. \t\r\n\\", tags=["\\N\t"], ids=[-(2**63)]))
    rows += [everything(id=n, text=text, at=datetime(2024, 2, 29, tzinfo=UTC)) for n, text in ((3, "\\."), (4, None))]

    assert writer.write([Entry(row) for row in rows]) == [RowOutcome.WRITTEN] * len(rows)
    assert writer._copy_heuristic.is_likely  # of straight COPY, where that was tried
    stored = run("select * from everything").fetchall()
    plain = [
        tuple(msgspec.to_builtins(v) if isinstance(v, list | msgspec.Struct | Enum) else v for v in row)
        for row in map(msgspec.structs.astuple, rows)
    ]
    assert sorted(stored, key=str) == sorted(plain, key=str)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/St_Johns"])
def test_instants_do_not_depend_on_the_time_zone_of_the_server(run, writer_of, database, zone):
    run(create_table(Everything))
    run(f"alter role current_user in database {urlsplit(database).path[1:]} set timezone = '{zone}'")
    writer = writer_of(Everything)
    writer.open()
    writer.write([Entry(everything())])

    assert run("select extract(epoch from at) from everything").fetchone()[0] == everything().at.timestamp()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("text", "nul \0"),
        ("text", "surrogate \ud800"),
        ("text", 7),
        ("tags", ["x", "\0"]),
        ("tags", "no list"),
        ("at", datetime(2024, 1, 1)),  # noqa: DTZ001 - that is the point
        ("id", "1,2"),
        ("id", [1]),
        ("flag", "yes"),
        ("data", {"k": "\ud800"}),
        ("data", {"k": object()}),
    ],
)
def test_a_value_that_cannot_be_sent_is_refused_alone(run, writer_of, column, value):
    run(create_table(Everything))
    writer = writer_of(Everything)
    writer.open()
    block = [Entry(everything(id=1)), Entry(everything(**{"id": 2, column: value})), Entry(everything(id=3))]

    assert writer.write(block) == [RowOutcome.WRITTEN, Refusal(Reason.BAD_VALUE, "22000", column), RowOutcome.WRITTEN]


def test_a_value_too_long_is_refused_and_never_cut(run, things):
    writer = things("create table things (id bigint primary key, text varchar(3))")
    results = writer.write(entries("abc", "abcd", "ab   "))

    assert results == [RowOutcome.WRITTEN, Refusal(Reason.BAD_VALUE, "22001"), RowOutcome.WRITTEN]
    assert run("select text from things order by id").fetchall() == [("abc",), ("ab ",)]


# -- the check at start ------------------------------------------------------------------------------------------------


class Partly(Row, table="things", primary_key="id"):
    id: int
    text: str | None


class Moment(Row, table="things", primary_key="id"):
    id: int
    text: datetime


@pytest.mark.parametrize(
    ("row", "ddl", "said"),
    [
        (Thing, "select 1", "there is no such table"),
        (Thing, "create table things (id bigint primary key)", "the table has no column text"),
        (Thing, "create table things (id bigint, text text)", "no primary key or unique index on (id)"),
        (Thing, "create table things (id bigint, text text, primary key (id, text))", "no primary key or unique"),
        (Thing, "create table things (id bigint unique deferrable, text text)", "deferrable"),
        (Thing, "create table things (id bigint primary key, text bigint)", "column text is bigint and can't hold str"),
        (Thing, "create table things (id text primary key, text text)", "column id is text and can't hold int"),
        (Thing, "create table things (id bigint primary key, text text, more int not null)", "column more is NOT NULL"),
        (
            Thing,
            "create table things (id bigint primary key, text text generated always as ('x') stored)",
            "column text is generated",
        ),
        (
            Thing,
            "create table things (id bigint generated always as identity primary key, text text)",
            "column id is generated",
        ),
        (Thing, "create view things as select 1::bigint as id, ''::text as text", "it is not a table"),
        (Partly, "create table things (id bigint primary key, text text not null)", "text may be absent"),
        (Moment, "create table things (id bigint primary key, text timestamp)", "can't hold datetime"),
    ],
)
def test_a_table_that_does_not_match_stops_with_one_line_that_names_both_sides(run, writer_of, row, ddl, said):
    run(ddl)
    with pytest.raises(DeploymentFault) as caught:
        writer_of(row).open()

    message = str(caught.value)
    assert said in message
    assert row.__name__ in message
    assert "things" in message
    assert "lovelace ddl FLOW" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "ddl",
    [
        "create table things (id int primary key, text text not null default 'x')",
        "create table things (id bigint, text varchar(9), more int default 3 not null, unique (id))",
        "create table things (text text, id bigserial primary key)",
        """create table things (id bigint primary key, text text) partition by range (id);
        create table part partition of things for values from (0) to (99)""",
    ],
)
def test_tables_that_will_do(things, ddl):
    assert things(ddl).write(entries("a", "b")) == [RowOutcome.WRITTEN] * 2


def test_a_table_of_another_schema_and_odd_names(run, writer_of):
    class Odd(Row, table='my schema.T "x"', primary_key="select"):
        select: int
        t: int | None
        s: int | None
        n: str | None

    run('create schema "my schema"')
    run(create_table(Odd))
    run('alter table "my schema"."T ""x""" add constraint "100%" check (n <> \'%s\')')
    writer = writer_of(Odd)
    writer.open()
    block = [Entry(Odd(select=n, t=1, s=UNSET if n == 2 else 2, n="%s" if n == 1 else "n")) for n in range(4)]

    assert [type(result) for result in writer.write(block)] == [RowOutcome, Refusal, RowOutcome, RowOutcome]


def test_row_classes_of_one_table_agree():
    class Other(Row, table="things", primary_key="text"):
        text: str

    with pytest.raises(TypeError, match="differ in table, primary key or version"):
        PostgresWriter(PostgresSettings("postgresql://"), Thing, Other)


def test_wrong_database_is_the_deployments_and_nobody_listening_the_destinations(database, writer_of):
    gone = urlunsplit(urlsplit(database)._replace(path="/no_such_database"))
    with pytest.raises(DeploymentFault) as caught:
        writer_of(Thing, dsn=gone).open()
    assert caught.value.code == "3D000"

    with pytest.raises(DeploymentFault) as caught:
        writer_of(Thing, dsn=as_user(database, "nobody_here", SECRET)).open()
    assert SECRET not in str(caught.value)

    with pytest.raises(DeploymentFault) as caught:
        writer_of(Thing, dsn=as_user(database, "postgres")).open()
    assert (caught.value.code, "has none" in str(caught.value)) == ("28P01", True)

    with pytest.raises(DestinationFault):
        writer_of(Thing, dsn=f"postgresql://u:{SECRET}@127.0.0.1:1/x").open()
    with pytest.raises(DeploymentFault):
        writer_of(Thing, dsn=f"postgresql://u:{SECRET}@127.0.0.1/x?no_such_option=1").open()


@pytest.mark.parametrize(
    ("ddl", "order"),
    [
        ("create table things (id bigint primary key, text text check (text <> ''))", RowOrder.ANY),
        ("create table things (id bigint primary key, text text unique)", RowOrder.AS_READ),
        ("create table things (id bigint primary key, text text unique deferrable)", RowOrder.ONE_BY_ONE),
        ("create table things (id numeric(3) primary key, text text)", RowOrder.ONE_BY_ONE),
        ("create table things (id bigint primary key, text text, up bigint references things)", RowOrder.ONE_BY_ONE),
    ],
)
def test_how_much_of_a_block_may_share_a_statement_is_read_from_the_catalogue(things, ddl, order):
    assert things(ddl).tables.declared[0].schema.row_order is order


# -- whose fault -------------------------------------------------------------------------------------------------------


def test_an_error_never_quotes_a_value(things, caplog):
    writer = things("create table things (id bigint primary key, text text check (text <> 'secret-value'))")
    results = writer.write(entries("a", SECRET))

    assert results[1] == Refusal(Reason.CHECK, "23514", "things_text_check")
    assert SECRET not in caplog.text


def test_rules_of_a_set_are_told_in_two_writes_not_in_twenty(run, things, monkeypatch):
    writer = things("create table things (id bigint primary key, text text not null check (text <> 'bad'))")
    attempts = []
    write = writer._copy_or_upsert
    monkeypatch.setattr(
        writer, "_copy_or_upsert", lambda rows, *more, **how: attempts.append(len(rows[0])) or write(rows, *more, **how)
    )
    results = writer.write(entries(*[{3: "bad", 5: None}.get(n % 10, "ok") for n in range(1000)]))

    assert [n % 10 for n, result in enumerate(results) if isinstance(result, Refusal)] == [3, 5] * 100
    assert {result.reason for result in results if isinstance(result, Refusal)} == {Reason.CHECK, Reason.NOT_NULL}
    assert attempts == [1000, 800]


def test_while_blocks_hold_bad_rows_they_are_checked_first_and_the_rest_is_copied(run, things, monkeypatch):
    """Each block costs one query and one COPY, whatever share of it is refused."""
    writer = things("create table things (id bigint primary key, text text not null check (text <> 'bad'))")
    block = entries(*["bad" if n % 3 else "ok" for n in range(300)])
    writer.write(block[:100])
    attempts = []
    write = writer._copy_or_upsert
    monkeypatch.setattr(
        writer, "_copy_or_upsert", lambda rows, *more, **how: attempts.append(len(rows[0])) or write(rows, *more, **how)
    )
    results = [result for at in (100, 200) for result in writer.write(writer.encode(block[at : at + 100]))]

    assert [isinstance(result, Refusal) for result in results] == [n % 3 > 0 for n in range(100, 300)]
    assert {result for result in results if isinstance(result, Refusal)} == {
        Refusal(Reason.CHECK, "23514", "things_text_check")
    }
    assert attempts == [33, 33]
    assert writer._copy_heuristic.is_likely
    assert run("select count(*) from things").fetchone() == (100,)


def test_a_full_picture_of_what_is_there_is_merged_after_a_few_failed_copies(run, things, monkeypatch):
    writer = things()
    tried = []
    copy_in = transaction.copy_in
    monkeypatch.setattr(transaction, "copy_in", lambda *args: tried.append(args) or copy_in(*args))
    block = entries(*"abcdefghij")
    for _ in range(40):
        assert writer.write(block) == [RowOutcome.WRITTEN] * 10

    assert len(tried) == 7  # the first one succeeded, the others come after ever longer pauses
    assert run("select count(*) from things").fetchone() == (10,)


def test_row_security_refuses_rows_not_the_deployment(run, things, database):
    """42501 is the deployment's by its code, the record's where neighbours are written."""
    things("create table things (id bigint primary key, text text)").close()
    run("drop role if exists tenant; create role tenant login password 'tenant'; grant all on things to tenant")
    run("alter table things enable row level security; create policy p on things using (text <> 'theirs')")
    writer = PostgresWriter(PostgresSettings(as_user(database, "tenant", "tenant")), Thing)
    writer.open()
    try:
        with pytest.raises(DeploymentFault):
            writer.write(entries("theirs"))
        refused = Refusal(Reason.REFUSED, "42501")
        assert writer.write(entries("mine", "theirs", "mine")) == [RowOutcome.WRITTEN, refused, RowOutcome.WRITTEN]
        assert writer.write(entries("theirs")) == [refused]  # the probe succeeds
        run("revoke all on things from tenant")
        with pytest.raises(DeploymentFault) as caught:
            writer.write(entries("mine", "mine"))
        assert caught.value.code == "42501"
    finally:
        writer.close()
        run("drop owned by tenant; drop role tenant")


def test_a_table_that_is_dropped_under_a_writer_stops_it(run, things):
    writer = things()
    writer.write(entries("a"))
    run("drop table things")

    assert writer.probe() is False
    with pytest.raises(DeploymentFault) as caught:
        writer.write(entries("a", "b"))
    assert caught.value.code == "42P01"


def test_a_statement_that_takes_too_long_is_the_destinations(things, database):
    writer = things(write_seconds=0.2)
    writer.write(entries("a"))
    with psycopg.connect(database) as other:
        other.execute("lock table things")
        with pytest.raises(DestinationFault) as caught:
            writer.write(entries("a"))
        assert caught.value.code == "57014"
        assert writer.probe() is False
    assert writer.write(entries("a")) == [RowOutcome.WRITTEN]


def test_asking_which_keys_are_new_takes_no_longer_than_a_block_may(run, writer_of, database):
    """The query precedes the block's own transaction, and a lock on the table must not hold it for ever."""
    run("create table tagged (id bigint primary key, name text not null default 'n', tag text unique, more int)")
    writer = writer_of(Tagged, Retagged, write_seconds=0.2)
    writer.open()
    with psycopg.connect(database) as other:
        other.execute("lock table tagged")
        with pytest.raises(DestinationFault) as caught:
            writer.write([Entry(Retagged(id=n, tag="x")) for n in range(2)])
        assert caught.value.code == "57014"


def test_a_read_only_server_is_waited_for(run, things, database):
    writer = things()
    run(f"alter database {urlsplit(database).path[1:]} set default_transaction_read_only = on")
    writer.open()
    with pytest.raises(DestinationFault) as caught:
        writer.write(entries("a"))
    assert caught.value.code == "25006"


def test_a_terminated_backend_is_opened_again(run, things):
    writer = things()
    writer.write(entries("a"))
    run("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'lovelace_streams'")
    with pytest.raises(DestinationFault):
        writer.write(entries("a"))
    with pytest.raises(DestinationFault):
        writer.write(entries("a"))
    assert writer.probe() is False
    writer.open()
    assert writer.write(entries("a")) == [RowOutcome.WRITTEN]


@pytest.mark.parametrize("pool", [1, 2])
def test_abort_from_another_thread_ends_a_write(run, things, database, pool):
    writer = things(pool=pool)
    block = entries(*["a"] * 200)
    faults = []

    def write():
        try:
            writer.write(block)
        except DestinationFault as fault:
            faults.append(fault.code)

    with psycopg.connect(database) as other:
        other.execute("lock table things")
        thread = threading.Thread(target=write)
        thread.start()
        deadline = time.monotonic() + 60
        waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
        while run(waiting).fetchone() == (0,) and time.monotonic() < deadline:
            thread.join(0.01)
        writer.abort()
        thread.join(60)
    assert faults == ["08006" if pool == 1 else "08003"]
    writer.open()
    assert writer.write(block) == [RowOutcome.WRITTEN] * 200


class Tagged(Row, table="tagged", primary_key="id"):
    id: int
    name: str
    tag: str | None
    more: int | None


class Retagged(Row, table="tagged", primary_key="id"):
    id: int
    tag: str | None


@pytest.mark.parametrize("one_by_one", [True, False])
def test_a_row_that_leaves_a_column_without_default_out_updates_the_stored_one(run, writer_of, one_by_one):
    run("create table tagged (id bigint primary key, name text not null, tag text, more int)")
    run("insert into tagged values (1, 'n', 'x', 1)")
    writer = writer_of(Tagged, Retagged, one_by_one=one_by_one)
    writer.open()

    block = [Entry(Retagged(id=1, tag="y")), Entry(Retagged(id=2, tag="z"))]
    assert writer.write(block) == [RowOutcome.WRITTEN, Refusal(Reason.NOT_NULL, "23502", "name")]
    assert run("table tagged").fetchall() == [(1, "n", "y", 1)]


@pytest.mark.parametrize("one_by_one", [True, False])
def test_a_key_that_the_block_itself_made_is_not_new_any_more(run, writer_of, one_by_one):
    """Its tag is free only after its second row, not before."""
    run("create table tagged (id bigint primary key, name text not null, tag text unique, more int check (more > 0))")
    writer = writer_of(Tagged, Retagged, one_by_one=one_by_one)
    writer.open()
    block = [
        Entry(Tagged(id=1, name="n", tag="x", more=1)),
        Entry(Tagged(id=5, name="n", tag="x", more=UNSET)),
        Entry(Tagged(id=1, name="n", tag="y", more=UNSET)),
    ]

    assert writer.write(block) == [
        RowOutcome.SUPERSEDED,
        Refusal(Reason.UNIQUE, "23505", "tagged_tag_key"),
        RowOutcome.WRITTEN,
    ]


# -- what is left behind -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prepare", [False, True])
def test_a_session_is_left_as_it_was_found(things, prepare):
    """A transaction pooler hands it to another client."""
    writer = things(prepare=prepare, write_seconds=7)
    connection = writer._connection.driver
    before = connection.execute("select name, setting from pg_settings", prepare=False).fetchall()
    writer.write(entries("a", "b"))
    writer.write(entries("a", None))

    assert connection.execute("select name, setting from pg_settings", prepare=False).fetchall() == before
    prepared = connection.execute("select count(*) from pg_prepared_statements", prepare=False).fetchone()
    assert (prepared != (0,)) is prepare
    assert connection.execute("select count(*) from pg_class where relpersistence = 't'", prepare=False).fetchone() == (
        0,
    )


def test_two_writers_of_the_same_keys_do_not_deadlock(things, writer_of):
    """Rows of a block are written in the order of their keys, whatever order they were read in."""
    forward = things()
    backward = writer_of(Thing)
    backward.open()
    block = [Entry(Thing(id=n, text="x")) for n in range(200)]
    faults = []

    def write(writer, rows):
        try:
            for _ in range(20):
                writer.write(rows)
        except DestinationFault as fault:
            faults.append(fault)

    threads = [
        threading.Thread(target=write, args=(forward, block)),
        threading.Thread(target=write, args=(backward, block[::-1])),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


def test_partial_rows_that_race_for_a_new_key_both_count(run, things, writer_of):
    """Neither is lost: the second writer updates the row that the first one inserted."""
    run("create table pairs (id bigint primary key, a text, b text)")

    class Pair(Row, table="pairs", primary_key="id"):
        id: int
        a: str | None
        b: str | None

    writers = [writer_of(Pair), writer_of(Pair)]
    for writer in writers:
        writer.open()
    sides = [
        [Entry(Pair(id=n, a="a", b=UNSET)) for n in range(300)],
        [Entry(Pair(id=n, a=UNSET, b="b")) for n in range(300)],
    ]
    ends = []
    threads = [
        threading.Thread(target=lambda w, rows: ends.extend(w.write(rows)), args=pair)
        for pair in zip(writers, sides, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert ends == [RowOutcome.WRITTEN] * 600
    assert run("select count(*) from pairs where a = 'a' and b = 'b'").fetchone() == (300,)


def test_a_trigger_that_returns_nothing_suppresses(run, things):
    run("create function quiet() returns trigger language plpgsql as "
        "$$ begin if new.text = 'quiet' then return null; end if; return new; end $$")  # fmt: skip
    writer = things(
        "create table things (id bigint primary key, text text);"
        "create trigger quiet before insert or update on things for each row execute function quiet()"
    )
    assert writer.write(entries("a", "quiet", "b")) == [RowOutcome.WRITTEN, RowOutcome.SUPPRESSED, RowOutcome.WRITTEN]


@pytest.mark.parametrize(
    ("column", "rule", "good", "bad"),
    [
        ('text collate "C"', "lower(text) <> 'é'", "É", None),  # which the "C" collation leaves as it is
        ("char(3)", "text like 'A__'", "A", "b"),  # padded
    ],
)
def test_a_rule_is_judged_as_the_column_sees_the_value(run, things, column, rule, good, bad):
    writer = things(f"create table things (id bigint primary key, text {column} not null check ({rule}))")
    writer.write(entries(*[bad] * 20))  # from now on blocks are checked against the rule first
    results = writer.write([Entry(Thing(id=n, text=good if n % 3 else bad)) for n in range(20, 40)])

    assert [isinstance(result, Refusal) for result in results] == [n % 3 == 0 for n in range(20, 40)]


def test_what_a_trigger_refuses_is_found_in_subtransactions_not_by_halving(run, things, monkeypatch):
    """Within the server: a hundred bad rows in two hundred cost one write, and the next block none before that."""
    writer = things(
        "create table things (id bigint primary key, text text); create function no() returns trigger language plpgsql"
        " as $$ begin if new.text = 'bad' then raise 'no' using constraint = 'c'; end if;"
        " return case when new.text <> 'none' then new end; end $$;"
        " create trigger no before insert or update on things for each row execute function no()"
    )
    attempts = []
    attempt = writer._isolation._attempt
    monkeypatch.setattr(
        writer._isolation, "_attempt", lambda rows, **options: attempts.append(len(rows)) or attempt(rows)
    )
    results = writer.write(entries(*[{0: "ok", 1: "none"}.get(n % 4, "bad") for n in range(200)]))

    kinds = {0: RowOutcome.WRITTEN, 1: RowOutcome.SUPPRESSED}
    assert results == [kinds.get(n % 4, Refusal(Reason.REFUSED, "P0001", "c")) for n in range(200)]
    assert attempts == [200]
    assert run("select count(*) from things").fetchone() == (50,)

    results = writer.write([Entry(Thing(id=n, text="ok")) for n in range(200, 200 + SUBTRANSACTION_ROWS)])
    assert results == [RowOutcome.WRITTEN] * SUBTRANSACTION_ROWS
    assert writer.write([Entry(Thing(id=n, text="ok")) for n in range(2)]) == [RowOutcome.WRITTEN] * 2
    assert attempts == [200, 2]


def test_where_the_server_has_no_subtransactions_for_us_rows_are_found_all_the_same(run, things, database):
    run("revoke usage on language plpgsql from public")
    try:
        things(
            "create table things (id bigint primary key, text text); create unique index on things (text);"
            " drop role if exists tenant; create role tenant login password 'tenant'; grant all on things to tenant"
        ).close()
        writer = PostgresWriter(PostgresSettings(as_user(database, "tenant", "tenant")), Thing)
        writer.open()
        results = writer.write(entries(*["same" if n in (3, 60) else str(n) for n in range(100)]))
        writer.close()
    finally:
        run("grant usage on language plpgsql to public; drop owned by tenant; drop role tenant")

    assert [n for n, result in enumerate(results) if isinstance(result, Refusal)] == [60]
    assert not writer._isolation.subtransactions.are_available


# -- columns --------------------------------------------------------------------------------------------------------


class Label(Row, table="things", primary_key="id", version="at"):
    id: int
    text: str | None
    note: str | None
    at: int


class Gone(Row, table="things", primary_key="id", version="at"):
    id: int
    gone: bool
    at: int


def test_classes_absent_columns_and_repeated_keys_are_written_from_columns(run, open_writer, monkeypatch):
    """A statement for each class and set of absent columns, and one more round for the keys that come twice."""
    run("create table things (id bigint primary key, text text, note text, gone bool, at int)")
    one_by_one = open_writer(Label, Gone, one_by_one=True)
    rows = [
        *(Label(id=n, text="a", note="b", at=2) for n in range(20)),
        *(Gone(id=n, gone=True, at=3) for n in range(10, 30)),
        *(Label(id=n, text=UNSET, note="c", at=n % 5) for n in range(5)),
        *(Label(id=n, text="d", note=UNSET, at=4) for n in range(28, 40)),
    ]
    block = numbered([Entry(row) for row in rows])
    block[3].only_new = True
    expected = one_by_one.write(block), run("select * from things order by id").fetchall()
    run("truncate things")
    writer = open_writer(Label, Gone)
    statements = []
    write = writer._transactions.write
    monkeypatch.setattr(
        writer._transactions,
        "write",
        lambda given, *more, **how: statements.append(given) or write(given, *more, **how),
    )
    made = rows_made(monkeypatch)

    assert writer.write(writer.encode_columns(column_block(block))) == expected[0]
    assert run("select * from things order by id").fetchall() == expected[1]
    assert len(made) <= 1, "the row to probe with"
    [given] = statements
    assert [len(each.indexes) for each in given][:2] == [19, 10]
    assert sum(len(each.indexes) for each in given) == len(block)


def test_rows_that_are_all_written_are_not_told_one_by_one_and_others_are(run, open_writer, monkeypatch):
    """Where stored rows hold some off, the block is undone, written again, and which ones is asked for 16 blocks."""
    run("create table things (id bigint primary key, text text, note text, gone bool, at int)")
    run("insert into things select n, 'old', null, null, case when n % 7 = 0 then 5 end from generate_series(0, 599) n")
    monkeypatch.setattr(transaction, "TOLD_BLOCKS", 2)
    writer = open_writer(Label)
    tries = []
    write = writer._transactions._write_all_or_none
    monkeypatch.setattr(writer._transactions, "_write_all_or_none", lambda *all_: tries.append(1) or write(*all_))

    def labels(at):
        return column_block(numbered([Entry(Label(id=n, text=f"at {at}", note="b", at=at)) for n in range(600)]))

    newer, older = [RowOutcome.WRITTEN] * 600, [RowOutcome.SUPERSEDED] * 600
    some = [RowOutcome.WRITTEN if n % 7 else RowOutcome.SUPERSEDED for n in range(600)]
    for at, results, attempts in ((4, some, 1), (5, newer, 1), (3, older, 1), (6, newer, 2), (6, newer, 3)):
        assert writer.write(writer.encode_columns(labels(at))) == results
        assert len(tries) == attempts
    assert run("select count(*) from things where text = 'at 6'").fetchone() == (600,)


def numbered(block):
    """Entries of one chunk, in their order."""
    return [msgspec.structs.replace(entry, sequence=sequence_of(n, 0)) for n, entry in enumerate(block)]


def rows_made(monkeypatch):
    """A list that grows by each row that is made of columns."""
    made = []
    make = Columns.make
    monkeypatch.setattr(Columns, "make", lambda self, values: made.append(values) or make(self, values))
    return made


# -- several connections ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ddl",
    [
        "create table things (id bigint primary key, text text check (text <> 'bad'))",
        "create table things (id bigint primary key, text text unique check (text <> 'bad'))",
    ],
    ids=["partitioned", "by one connection"],
)
@pytest.mark.parametrize("columns", [False, True], ids=["items", "columns"])
def test_several_connections_end_as_one_by_one(run, things, database, ddl, columns):
    chance = Random(7)
    block = [
        Entry(Thing(id=chance.randrange(300), text=chance.choice(["bad", "x" * chance.randrange(9)]) + f" {n}"))
        if chance.random() < 0.95
        else Entry(Thing(id=chance.randrange(300), text="bad"))
        for n in range(900)
    ]
    expected = things(ddl, one_by_one=True).write(block), run("select * from things order by id").fetchall()
    run("truncate things")

    writer = PostgresWriter(PostgresSettings(database, pool=3, block_rows=40), Thing)
    try:
        writer.open()
        encoded = writer.encode_columns(column_block(numbered(block))) if columns else writer.encode(block)
        assert writer.write(encoded) == expected[0]
        assert run("select * from things order by id").fetchall() == expected[1]
        assert isinstance(encoded, PartitionedBlock) == ("unique" not in ddl)
    finally:
        writer.close()


def test_several_connections_are_driven_by_one_thread_without_a_row_made(run, database, monkeypatch):
    run("create table things (id bigint primary key, text text)")
    writer = PostgresWriter(PostgresSettings(database, pool=3, block_rows=100), Thing)
    monkeypatch.setattr(parallel.ParallelWriters, "_write_left", lambda _writers, left: list(left))
    made = rows_made(monkeypatch)
    try:
        writer.open()
        for texts in (map(str, range(900)), ["new"] * 900):  # by COPY, then by the statement that merges
            block = column_block(numbered(entries(*texts)))
            for _ in range(2):
                assert writer.write(writer.encode_columns(block)) == [RowOutcome.WRITTEN] * 900
        assert run("select count(*), min(text), max(text) from things").fetchall() == [(900, "new", "new")]
        assert len(made) <= 4 * 12, "a row of each transaction, to probe with"
    finally:
        writer.close()


def test_one_connection_that_is_lost_leaves_no_other_at_work(run, database):
    """All have ended when the fault is raised: a row that is tried again is in no other transaction."""
    run("create table things (id bigint primary key, text text)")
    writer = PostgresWriter(PostgresSettings(database, pool=2, block_rows=500), Thing)
    try:
        writer.open()
        lost = writer._connection.driver.info.backend_pid
        block = writer.encode_columns(column_block(numbered(entries(*map(str, range(200))))))
        run("select pg_terminate_backend(%s)", [lost])
        with pytest.raises(DestinationFault):
            writer.write(block)
        of_other = [rows.indexes for rows in block.partitions[1]]
        assert run("select count(*) from things").fetchall() == [(sum(map(len, of_other)),)]
    finally:
        writer.close()


def test_what_was_partitioned_for_connections_that_are_gone_is_partitioned_again(run, database):
    run("create table things (id bigint primary key, text text)")
    writer = PostgresWriter(PostgresSettings(database, pool=2, block_rows=60), Thing)
    try:
        writer.open()
        block = writer.encode(entries(*map(str, range(200))))
        [pids] = run(
            "select array_agg(pid) from pg_stat_activity where application_name = 'lovelace_streams'"
        ).fetchall()
        run("select pg_terminate_backend(%s)", [pids[0][-1]])
        with pytest.raises(DestinationFault):
            writer.write(block)

        writer.open()
        assert writer.write(block) == [RowOutcome.WRITTEN] * 200
        assert run("select count(*) from things").fetchall() == [(200,)]
        assert writer.probe() is True
    finally:
        writer.close()


@pytest.mark.parametrize("looking", ["policy", "domain", "trigger"])
def test_what_looks_at_other_rows_is_written_by_one_connection(run, database, looking):
    """An odd id refers to the even one before it: in a transaction of its own it would be refused for ever."""
    run("create table things (id bigint primary key, text text)")
    run(
        "create function has(text) returns bool language sql security definer as"
        " $$ select $1 is null or exists (select from things where id = $1::bigint) $$"
    )
    if looking == "policy":
        run(f"create role looked_at login password '{SECRET}'")
        run("grant all on things to looked_at; alter table things enable row level security")
        run("create policy parents on things using (true) with check (has(text))")
    elif looking == "domain":
        run("create domain parent as text check (has(value)); alter table things alter text type parent")
    else:
        run(
            "create function check_parent() returns trigger language plpgsql as"
            " $$ begin if not has(new.text) then raise 'none'; end if; return new; end $$"
        )
        run("create trigger parents before insert on things for each row execute function check_parent()")
    dsn = as_user(database, "looked_at", SECRET) if looking == "policy" else database
    writer = PostgresWriter(PostgresSettings(dsn, pool=2), Thing)
    try:
        writer.open()
        block = [Entry(Thing(id=n, text=str(n - 1) if n % 2 else None)) for n in range(200)]
        assert writer.write(writer.encode(block)) == [RowOutcome.WRITTEN] * 200
        assert writer.capabilities.block_rows == 2000
    finally:
        writer.close()
        if looking == "policy":
            run("drop owned by looked_at; drop role looked_at")


def test_a_key_that_is_none_is_refused_alone_whatever_the_number_of_connections(run, database):
    run("create table things (id bigint primary key, text text)")
    writer = PostgresWriter(PostgresSettings(database, pool=2), Thing)
    try:
        writer.open()
        block = [Entry(Thing(id=["a"] if n == 7 else n)) for n in range(150)]
        ends = writer.write(writer.encode(block))
        assert [index for index, end in enumerate(ends) if end != RowOutcome.WRITTEN] == [7]
        assert ends[7].reason is Reason.BAD_VALUE
    finally:
        writer.close()


def test_connections_that_were_opened_are_let_go_where_one_is_refused(run, database):
    run("create table things (id bigint primary key, text text)")
    run(f"create role few login connection limit 2 password '{SECRET}'; grant all on things to few")
    writer = PostgresWriter(PostgresSettings(as_user(database, "few", SECRET), pool=4), Thing)
    try:
        with pytest.raises(DestinationFault):
            writer.open()
        settled = "select count(*) from pg_stat_activity where usename = 'few'"
        deadline = time.monotonic() + 10
        while run(settled).fetchone() != (0,):
            assert time.monotonic() < deadline
    finally:
        writer.close()
        run("drop owned by few; drop role few")


@pytest.mark.parametrize("count", [subtransactions.CALL_ROWS + 1, subtransactions.CALL_ROWS + 2])
def test_what_one_call_of_subtransactions_leaves_over_is_tried_by_the_next(things, run, count):
    """One row, or two, behind as many as are sent at a time."""
    writer = things("create table things (id bigint primary key, text text unique)")
    texts = ["same", "same", *map(str, range(count - 2))]
    assert [isinstance(end, Refusal) for end in writer.write(entries(*texts))] == [False, True] + [False] * (count - 2)
    assert run("select count(*) from things").fetchall() == [(count - 1,)]


def test_subtransactions_of_slow_rows_end_within_the_servers_timeout(things, run):
    run(
        "create function slow() returns trigger language plpgsql as"
        " $$ begin perform pg_sleep(0.06); if new.text = 'bad' then raise 'no'; end if; return new; end $$"
    )
    writer = things(
        "create table things (id bigint primary key, text text);"
        " create trigger slow before insert or update on things for each row execute function slow()",
        write_seconds=2,
    )
    ends = writer.write(entries(*["good"] * 29, "bad"))
    assert [isinstance(end, Refusal) for end in ends] == [False] * 29 + [True]
    assert run("select count(*) from things").fetchall() == [(29,)]
