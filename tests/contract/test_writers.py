"""One contract, all writers: Postgres, Postgres one by one, memory."""

from datetime import UTC, datetime

import psycopg
import pytest

from lovelace_streams.ddl import create_table
from lovelace_streams.records import Reason
from lovelace_streams.rows import UNSET, Row
from lovelace_streams.settings import PostgresSettings
from lovelace_streams.writers import End, Entry, Refusal
from lovelace_streams.writers.memory import MemoryWriter
from lovelace_streams.writers.postgres import PostgresWriter

W, S = End.WRITTEN, End.SUPERSEDED


class Member(Row, table="members", primary_key=("guild", "user"), version="seen_at"):
    guild: int
    user: int
    name: str = "?"
    nick: str | None
    roles: list[int] | None
    left_at: datetime | None
    seen_at: datetime


class MemberLeft(Row, table="members", primary_key=("guild", "user"), version="seen_at"):
    guild: int
    user: int
    left_at: datetime | None
    seen_at: datetime


class Note(Row, table="notes", primary_key="id"):
    id: int
    text: str | None


def adult(row):
    return row["text"] != "bad"


def at(minute):
    return datetime(2024, 5, 1, 12, minute, tzinfo=UTC)


def member(user, minute, name="n", nick=UNSET, roles=UNSET):
    return Entry(Member(guild=1, user=user, name=name, nick=nick, roles=roles, left_at=UNSET, seen_at=at(minute)))


class PostgresCase:
    def __init__(self, dsn, **options):
        self.dsn, self.options = dsn, options

    def make(self, *rows, check=None):
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(
                create_table(*rows).replace('"name" text NOT NULL', "\"name\" text NOT NULL DEFAULT '?'")
            )
            if check:
                connection.execute("alter table notes add constraint adult check (text <> 'bad')")
        return PostgresWriter(PostgresSettings(self.dsn), *rows, **self.options)

    def table(self, writer):
        columns = [column.name for column in writer.rows[0].__table__.columns]
        key = len(writer.rows[0].__table__.key)
        with psycopg.connect(self.dsn) as connection:
            rows = connection.execute(
                psycopg.sql.SQL("select {} from {}").format(
                    psycopg.sql.SQL(", ").join(map(psycopg.sql.Identifier, columns)),
                    psycopg.sql.Identifier(writer.rows[0].__table__.name),
                )
            )
            return {row[:key]: dict(zip(columns, row, strict=True)) for row in rows}


class MemoryCase:
    def make(self, *rows, check=None):
        return MemoryWriter(*rows, check=check)

    def table(self, writer):
        return writer.table


@pytest.fixture(params=["memory", "postgres", "one_by_one"])
def case(request):
    if request.param == "memory":
        return MemoryCase()
    dsn = request.getfixturevalue("database")
    return PostgresCase(dsn, one_by_one=request.param == "one_by_one")


@pytest.fixture
def opened(case):
    made = []

    def make(*rows, check=None):
        writer = case.make(*rows, check=check)
        writer.open()
        made.append(writer)
        return writer

    yield make
    for writer in made:
        writer.close()


def test_nothing_is_nothing(opened):
    assert opened(Note).write([]) == []


def test_rows_are_written_and_overwritten(case, opened):
    writer = opened(Note)

    assert writer.write([Entry(Note(id=n, text=f"t{n}")) for n in (3, 1, 2)]) == [W, W, W]
    assert writer.write([Entry(Note(id=1, text=None))]) == [W]
    assert case.table(writer)[1,] == {"id": 1, "text": None}
    assert case.table(writer)[3,] == {"id": 3, "text": "t3"}


def test_of_a_key_in_one_block_the_last_one_wins_and_the_others_are_superseded(case, opened):
    writer = opened(Note)

    assert writer.write([Entry(Note(id=1, text=text)) for text in "abc"]) == [S, S, W]
    assert case.table(writer) == {(1,): {"id": 1, "text": "c"}}


def test_a_loser_that_is_refused_alone_is_refused_in_a_block(case, opened):
    """Folding rows of one key to the winner would hide it, and dead letters would depend on where batches are cut."""
    writer = opened(Note, check=adult)
    refusal = Refusal(Reason.CHECK, "23514", "adult")

    assert writer.write([Entry(Note(id=1, text=text)) for text in ("bad", "ok")]) == [refusal, W]
    assert writer.write([Entry(Note(id=2, text=text)) for text in ("ok", "bad")]) == [W, refusal]
    assert {row["text"] for row in case.table(writer).values()} == {"ok"}


def test_an_older_version_never_overwrites_and_an_equal_one_does(case, opened):
    writer = opened(Member)

    assert writer.write([member(7, 5, "five"), member(7, 4, "four")]) == [W, S]
    assert writer.write([member(7, 4, "four again")]) == [S]
    assert writer.write([member(7, 5, "five again")]) == [W]
    assert case.table(writer)[1, 7]["name"] == "five again"


def test_absent_keeps_what_is_stored_and_null_does_not(case, opened):
    writer = opened(Member)
    writer.write([member(7, 1, nick="nick", roles=[1, 2])])
    writer.write([member(7, 2, nick=None)])

    assert case.table(writer)[1, 7]["nick"] is None
    assert case.table(writer)[1, 7]["roles"] == [1, 2]


def test_a_stale_field_does_not_ride_in_under_a_newer_version(case, opened):
    """Stored v7; v5 brings a nick, v9 roles: folded, the nick of v5 would be written."""
    writer = opened(Member)
    writer.write([member(7, 7, nick="v7", roles=[])])

    assert writer.write([member(7, 5, nick="v5"), member(7, 9, roles=[9])]) == [S, W]
    assert (case.table(writer)[1, 7]["nick"], case.table(writer)[1, 7]["roles"]) == ("v7", [9])


def test_a_class_with_fewer_columns_leaves_the_others_alone(case, opened):
    writer = opened(Member, MemberLeft)
    gone = Entry(MemberLeft(guild=1, user=7, left_at=at(9), seen_at=at(9)))

    assert writer.write([member(7, 1, "kept"), gone]) == [S, W]
    assert case.table(writer)[1, 7] == {
        "guild": 1, "user": 7, "name": "kept", "nick": None, "roles": None, "left_at": at(9), "seen_at": at(9),
    }  # fmt: skip


def test_only_new_inserts_where_the_key_is_absent(case, opened):
    writer = opened(Note)
    writer.write([Entry(Note(id=1, text="stored"))])

    assert writer.write([Entry(Note(id=n, text="replayed"), only_new=True) for n in (1, 2)]) == [S, W]
    assert [row["text"] for row in case.table(writer).values()] == ["stored", "replayed"]


def test_only_new_means_nothing_where_a_version_decides(case, opened):
    writer = opened(Member)
    writer.write([member(7, 1, "old")])

    assert writer.write([Entry(member(7, 2, "new").row, only_new=True)]) == [W]


def test_a_refused_row_costs_its_neighbours_nothing(case, opened):
    writer = opened(Note, check=adult)
    texts = ["ok", "bad", "ok", "ok", "bad"] * 20
    results = writer.write([Entry(Note(id=n, text=text)) for n, text in enumerate(texts)])

    assert [isinstance(result, Refusal) for result in results] == [text == "bad" for text in texts]
    assert len(case.table(writer)) == 60


def test_a_probe_knows_nothing_before_the_first_row_and_changes_nothing_after_it(case, opened):
    writer = opened(Note)
    assert writer.probe() is None
    writer.write([Entry(Note(id=1, text="a"))])
    before = case.table(writer)

    assert writer.probe() is True
    assert case.table(writer) == before


def test_the_name_says_where_without_a_password(case, opened):
    assert opened(Note).name.endswith("/notes")
