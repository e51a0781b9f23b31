"""Whose fault a refusal is, on a real Postgres: a value's, a statement's, a session's, or nobody's yet."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from lovelace_streams.delivery.retry import BlockRetry
from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.records import Reason
from lovelace_streams.rows import Row
from lovelace_streams.writers import Entry, Refusal, RowOutcome
from lovelace_streams.writers.postgres import PostgresWriter
from tests.servers.pgbouncer import PgBouncer

WRITTEN = RowOutcome.WRITTEN


class Thing(Row, table="things", primary_key="id"):
    id: int
    text: str | None


def things(*texts: Any) -> list[Entry]:
    return [Entry(Thing(id=n, text=text)) for n, text in enumerate(texts)]


Open = Callable[..., PostgresWriter]


@pytest.fixture
def opened(open_writer: Open) -> Open:
    return partial(open_writer, Thing)


# -- a value's ---------------------------------------------------------------------------------------------------------

REFUSING = {
    "jsonpath": ("$.a", "$.a[", "42601"),
    "tsquery": ("a & b", "a &", "42601"),
    "tsvector": ("a b", "'a", "42601"),
    "way": ("$.a", "$.a[", "42601"),  # a domain over jsonpath
    "shape": ("square", "boom", "XX000"),  # as PostGIS and hstore do
    "code": ("fine", "boom", "0A000"),
    "own": ("fine", "boom", "MY001"),
}
"""Type → a value that it takes, one that it refuses, and with which code: none is the record's by its class."""
TYPES = """
create domain way as jsonpath;
create function refuse(value text, code text) returns bool language plpgsql immutable as $$begin
  if value = 'boom' then raise 'refused' using errcode = code; end if; return true; end$$;
create domain shape as text check (refuse(value, 'XX000'));
create domain code as text check (refuse(value, '0A000'));
create domain own as text check (refuse(value, 'MY001'));
"""
SOFT = [kind for kind, (_, _, code) in REFUSING.items() if code == "42601"]


@pytest.mark.parametrize("kind", REFUSING)
@pytest.mark.parametrize("one_by_one", [False, True])
def test_a_value_that_its_type_refuses_is_the_records_whatever_the_code(
    run: Callable[..., Any], opened: Open, kind: str, one_by_one: bool
) -> None:
    good, bad, code = REFUSING[kind]
    run(TYPES)
    run(f"create table things (id bigint primary key, text {kind})")
    writer = opened(one_by_one=one_by_one)
    refused = Refusal(Reason.BAD_VALUE, code, "text")

    assert writer.dry_run(things(good, bad)) == [WRITTEN, refused]
    assert writer.write(things(good, bad, None, bad, good)) == [WRITTEN, refused, WRITTEN, refused, WRITTEN]
    assert writer.write(things(*[good] * 20, bad)) == [*[WRITTEN] * 20, refused]
    assert writer.write(things(bad)) == [refused], "alone, told by a value that the table holds"
    assert run("select count(*) from things").fetchone() == (20,)


@pytest.mark.parametrize("kind", SOFT)
def test_a_bad_value_as_the_first_record_of_a_quiet_topic_stops_nobody(
    run: Callable[..., Any], opened: Open, kind: str
) -> None:
    _, bad, code = REFUSING[kind]
    run(TYPES)
    run(f"create table things (id bigint primary key, text {kind})")

    assert opened().write(things(bad)) == [Refusal(Reason.BAD_VALUE, code, "text")]


@pytest.mark.parametrize("code", ["0A000", "42883"])
def test_a_type_that_refuses_every_value_is_the_deployments(run: Callable[..., Any], opened: Open, code: str) -> None:
    run(f"""create function never(value text) returns bool language plpgsql immutable as $$begin
            if value is not null then raise 'broken' using errcode = '{code}'; end if; return true; end$$;
            create domain broken as text check (never(value));
            create table things (id bigint primary key, text broken)""")
    writer = opened()

    with pytest.raises(DeploymentFault) as caught:
        writer.write(things("a", "b"))
    assert caught.value.code == code


def test_an_internal_error_for_every_value_is_an_outage(run: Callable[..., Any], opened: Open) -> None:
    run("""create function never(value text) returns bool language plpgsql immutable as $$begin
           if value is not null then raise 'broken' using errcode = 'XX000'; end if; return true; end$$;
           create domain broken as text check (never(value));
           create table things (id bigint primary key, text broken)""")

    with pytest.raises(DestinationFault) as caught:
        opened().write(things("a", "b"))
    assert caught.value.code == "XX000"


# -- a statement's, a table's ------------------------------------------------------------------------------------------


def test_a_publication_without_replica_identity_dead_letters_no_sound_row(
    run: Callable[..., Any], opened: Open
) -> None:
    run("create table things (id bigint primary key, text text)")
    writer = opened()
    run("alter table things replica identity nothing; create publication p for table things")
    assert writer.write(things(*"abcdefghij")) == [WRITTEN] * 10  # new rows are copied

    for block in (things("b"), things(*"abcdefghijk")):
        with pytest.raises(DeploymentFault) as caught:
            writer.write(block)
        assert caught.value.code == "55000"
        assert "REPLICA IDENTITY" in str(caught.value)


def test_a_trigger_that_refuses_some_rows_with_such_a_code_speaks_of_the_row(
    run: Callable[..., Any], opened: Open
) -> None:
    run("""create table things (id bigint primary key, text text);
           create function closed() returns trigger language plpgsql as $$begin
             if new.text = 'closed' then raise 'closed' using errcode = '55000'; end if; return new; end$$;
           create trigger closed before insert or update on things for each row execute function closed()""")
    writer = opened()
    refused = Refusal(Reason.REFUSED, "55000")

    assert writer.write(things("a", "closed", "b")) == [WRITTEN, refused, WRITTEN]
    assert writer.write(things("closed")) == [refused]


# -- nobody's yet ------------------------------------------------------------------------------------------------------

OWN_CODE = """
create table things (id bigint primary key, text text);
create function mine() returns trigger language plpgsql as $$begin
  if new.text like {like} then raise 'mine' using errcode = 'MY001'; end if; return new; end$$;
create trigger mine before insert or update on things for each row execute function mine()
"""


def test_a_code_that_is_not_listed_is_the_records_if_another_row_passes(run: Callable[..., Any], opened: Open) -> None:
    run(OWN_CODE.format(like="'bad%'"))
    writer = opened()
    refused = Refusal(Reason.REFUSED, "MY001")

    assert writer.write(things("a", "bad")) == [WRITTEN, refused]
    assert writer.write(things("bad", "bad 2")) == [refused, refused], "the row that was written before still passes"


def test_a_code_that_is_not_listed_is_the_destinations_if_no_row_passes(run: Callable[..., Any], opened: Open) -> None:
    run(OWN_CODE.format(like="'bad%'"))
    writer = opened()
    assert writer.write(things("a", "b")) == [WRITTEN, WRITTEN]
    run("create or replace function mine() returns trigger language plpgsql as $$begin"
        " raise 'away' using errcode = 'MY001'; end$$")  # fmt: skip

    with pytest.raises(DestinationFault) as caught:
        writer.write(things("a", "b"))
    assert (caught.value.code, caught.value.unproven) == ("MY001", False)


def test_a_code_that_is_not_listed_waits_for_another_row_where_there_is_none(
    run: Callable[..., Any], opened: Open
) -> None:
    run(OWN_CODE.format(like="'bad%'"))
    writer = opened()
    waits: list[float] = []
    retry = BlockRetry(lambda block: writer.write(block), writer.probe, lambda s: bool(waits.append(s)))
    [bad, good] = things("bad", "good")

    assert retry.write([bad]) is None
    assert retry.inconclusive
    assert retry.write([bad], [good]) == [Refusal(Reason.REFUSED, "MY001")]
    assert run("select count(*) from things").fetchone() == (0,)


# -- a session's -------------------------------------------------------------------------------------------------------


@pytest.fixture
def pooled(postgres_server: Any, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The test's database behind a pooler that gives each transaction another session."""
    pooler = PgBouncer(tmp_path_factory.mktemp("pooler"), postgres_server).start()
    yield pooler.dsn_of(database.rsplit("/", 1)[-1])
    pooler.stop()


def test_statements_that_a_pooler_loses_are_prepared_no_more(
    run: Callable[..., Any], opened: Open, pooled: str
) -> None:
    run("create table things (id bigint primary key, text text)")
    first, second = opened(dsn=pooled, prepare=True), opened(dsn=pooled, prepare=True)
    waits: list[float] = []

    for round_ in range(4):
        for writer in (first, second):
            retry = BlockRetry(
                lambda block, w=writer: reopened(w).write(block), writer.probe, lambda s: not waits.append(s)
            )
            assert retry.write(things(f"{round_}", "b")) == [WRITTEN, WRITTEN]
    assert waits, "the pooler never lost a statement"
    assert len(waits) <= 2, "once a writer"
    assert first._connection.prepared is None or second._connection.prepared is None


def reopened(writer: PostgresWriter) -> PostgresWriter:
    """As a worker does after a fault, and each time here."""
    if writer._connection.prepared is None:
        writer.open()
    return writer


def test_a_table_that_changes_under_prepared_statements_is_written(run: Callable[..., Any], opened: Open) -> None:
    run("create table things (id int primary key, text text)")
    writer = opened(prepare=True)
    for n in range(3):
        writer.write([Entry(Thing(id=1, text=f"{n}")), Entry(Thing(id=1, text="x"))])
    run("alter table things alter id type bigint")

    results = None
    for _ in range(2):
        try:
            results = writer.write(things("a", "b"))
        except DestinationFault:
            writer.open()
    assert results == [WRITTEN, WRITTEN]
