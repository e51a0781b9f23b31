"""What roles, databases and the environment set, and what a database's encoding can't hold, on a real Postgres."""

import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg import sql

from lovelace_streams.errors import DeploymentFault, DestinationFault
from lovelace_streams.records import Reason
from lovelace_streams.rows import Row
from lovelace_streams.writers import Entry, Refusal, RowOutcome
from lovelace_streams.writers.postgres import PostgresWriter

WRITTEN = RowOutcome.WRITTEN
JAPAN = "日本"


class Thing(Row, table="things", primary_key="id"):
    id: int
    text: str | None


def things(*texts: str | None) -> list[Entry]:
    return [Entry(Thing(id=n, text=text)) for n, text in enumerate(texts)]


Make = Callable[[str], str]


@pytest.fixture
def encoded(postgres_server: Any) -> Iterator[Make]:
    """Make a database of an encoding; gives its DSN."""
    made = []

    def make(encoding: str) -> str:
        name = f"test_{uuid.uuid4().hex}"
        with psycopg.connect(postgres_server.dsn, autocommit=True) as admin:
            admin.execute(
                sql.SQL("create database {} encoding {} locale_provider libc locale 'C' template template0").format(
                    sql.Identifier(name), encoding
                )
            )
        made.append(name)
        dsn = postgres_server.dsn_of(name)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("create table things (id bigint primary key, text text)")
        return dsn

    yield make
    with psycopg.connect(postgres_server.dsn, autocommit=True) as admin:
        for name in made:
            admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def role(database: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The DSN of a role of the test's own that may write `things`, and the administrator's `execute`."""
    name = f"worker_{uuid.uuid4().hex}"
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("create table things (id bigint primary key, text text)")
        admin.execute(f"create role {name} login password 'x'; grant all on things to {name}")
        host = database.partition("@")[2]
        yield f"postgresql://{name}:x@{host}", lambda text: admin.execute(text.replace("ROLE", name))
        admin.execute(f"drop owned by {name}; drop role {name}")


@pytest.fixture
def opened(open_writer: Callable[..., PostgresWriter]) -> Callable[..., PostgresWriter]:
    return partial(open_writer, Thing)


def stored(dsn: str) -> list[Any]:
    with psycopg.connect(dsn, client_encoding="UTF8") as connection:
        return [text for (text,) in connection.execute("select text from things order by id")]


@pytest.mark.parametrize("count", [1, 100])
@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "WIN1252"])
def test_the_environment_does_not_choose_the_encoding(
    encoded: Make, opened: Callable[..., PostgresWriter], monkeypatch: pytest.MonkeyPatch, encoding: str, count: int
) -> None:
    dsn = encoded("UTF8")
    monkeypatch.setenv("PGCLIENTENCODING", encoding)

    assert opened(dsn=dsn).write(things(*[JAPAN] * count)) == [WRITTEN] * count
    assert stored(dsn) == [JAPAN] * count


@pytest.mark.parametrize("count", [1, 100])
@pytest.mark.parametrize("encoding", ["LATIN1", "WIN1252"])
def test_what_a_database_can_not_hold_is_the_records(
    encoded: Make, opened: Callable[..., PostgresWriter], encoding: str, count: int
) -> None:
    dsn = encoded(encoding)
    writer = opened(dsn=dsn)

    results = writer.write(things(*["é"] * count, JAPAN, None))

    assert results == [*[WRITTEN] * count, Refusal(Reason.BAD_VALUE, "22P05"), WRITTEN]
    assert writer.write(things(JAPAN)) == [Refusal(Reason.BAD_VALUE, "22P05")]
    assert stored(dsn) == [*["é"] * count, None]


def test_a_database_without_an_encoding_holds_everything(encoded: Make, opened: Callable[..., PostgresWriter]) -> None:
    dsn = encoded("SQL_ASCII")

    assert opened(dsn=dsn).write(things(JAPAN, "é")) == [WRITTEN, WRITTEN]
    assert stored(dsn) == [JAPAN, "é"]


def test_a_value_that_the_driver_can_not_encode_is_the_records(
    encoded: Make, opened: Callable[..., PostgresWriter], caplog: pytest.LogCaptureFixture
) -> None:
    dsn = encoded("UTF8")
    writer = opened(dsn=dsn)
    writer._connection.driver.execute("set client_encoding to latin1")  # as a function of the database may do

    assert writer.write(things("é", JAPAN, "é")) == [WRITTEN, Refusal(Reason.BAD_VALUE, "22000"), WRITTEN]
    assert JAPAN not in caplog.text
    assert stored(dsn) == ["é", "é"]
    assert (
        writer.write([Entry(Thing(id=n, text=JAPAN)) for n in range(10, 110)]) == [WRITTEN] * 100
    )  # COPY says its own
    assert stored(dsn)[2:] == [JAPAN] * 100


def test_limits_of_the_role_do_not_end_what_the_writer_allows(
    role: tuple[str, Callable[..., Any]], opened: Callable[..., PostgresWriter]
) -> None:
    dsn, admin = role
    admin("""create function slow() returns trigger language plpgsql as
             $$begin perform pg_sleep(0.6); return new; end$$;
             create trigger slow before insert on things for each row execute function slow()""")
    for name in ("statement_timeout", "transaction_timeout", "idle_in_transaction_session_timeout"):
        admin(f"alter role ROLE set {name} = '400ms'")

    assert opened(dsn=dsn).write(things("a", "b")) == [WRITTEN, WRITTEN]


def test_triggers_and_foreign_keys_hold_although_the_role_is_a_replica(
    role: tuple[str, Callable[..., Any]], opened: Callable[..., PostgresWriter]
) -> None:
    dsn, admin = role
    admin("create table parents (name text primary key); insert into parents values ('there');"
          " alter table things add constraint parent foreign key (text) references parents")  # fmt: skip
    admin(
        "alter role ROLE set session_replication_role = replica;"
        " grant set on parameter session_replication_role to ROLE"
    )

    assert opened(dsn=dsn).write(things("there", "not there")) == [
        WRITTEN,
        Refusal(Reason.FOREIGN_KEY, "23503", "parent"),
    ]


def test_a_role_that_must_be_a_replica_stops_the_worker(
    role: tuple[str, Callable[..., Any]], opened: Callable[..., PostgresWriter]
) -> None:
    dsn, admin = role
    admin("alter role ROLE set session_replication_role = replica")

    with pytest.raises(DeploymentFault, match="session_replication_role is replica"):
        opened(dsn=dsn)


def test_a_read_only_role_is_waited_for_as_a_full_disk_is(
    role: tuple[str, Callable[..., Any]], opened: Callable[..., PostgresWriter]
) -> None:
    dsn, admin = role
    admin("alter role ROLE set default_transaction_read_only = on")
    writer = opened(dsn=dsn)

    with pytest.raises(DestinationFault) as caught:
        writer.write(things("a"))
    assert caught.value.code == "25006"


def test_nothing_is_left_in_the_session(database: str, opened: Callable[..., PostgresWriter]) -> None:
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("create table things (id bigint primary key, text text)")
    writer = opened(dsn=f"{database}?options=-c%20timezone%3DAsia/Kolkata")

    writer.write(things("a"))
    writer.dry_run(things("b"))

    [(zone,)] = writer._connection.driver.execute("show timezone").fetchall()
    assert zone == "Asia/Kolkata", "behind a pooler the session is another client's"
