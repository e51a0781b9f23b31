"""One contract, all writers: memory, Postgres, ClickHouse (these two also one by one and by columns), and a page's.

What a writer can't do (`capabilities`) is part of the contract: then the test says what holds instead.
"""

from datetime import UTC, datetime
from itertools import groupby

import clickhouse_connect
import msgspec
import psycopg
import pytest

from lovelace_streams.columns import Chunk, Columns, Run, Slice
from lovelace_streams.delivery.blocks import block_of
from lovelace_streams.errors import DeploymentFault
from lovelace_streams.records import Envelope, Origin, Reason, Record
from lovelace_streams.rows import UNSET, Row
from lovelace_streams.settings import ClickHouseSettings, PostgresSettings
from lovelace_streams.writers import Entry, Refusal, RowOutcome, check_capabilities, sequence_of
from lovelace_streams.writers.clickhouse import ClickHouseWriter
from lovelace_streams.writers.clickhouse import ddl as clickhouse_ddl
from lovelace_streams.writers.column_block import ColumnBlock, SupportsColumns
from lovelace_streams.writers.memory import MemoryWriter
from lovelace_streams.writers.postgres import PostgresWriter, parallel
from lovelace_streams.writers.postgres.ddl import create_table
from tests.columns import column_block, encode_at_once
from tests.pages import names_of

W, S = RowOutcome.WRITTEN, RowOutcome.SUPERSEDED


class Member(Row, table="members", primary_key=("guild", "user"), version="seen_at"):
    """Keeps what it does not mention."""

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


class Reading(Row, table="readings", primary_key=("sensor", "place"), version="seen_at"):
    """Replaced whole, by version."""

    sensor: int
    place: str
    value: str | None = None
    seen_at: datetime


class Note(Row, table="notes", primary_key="id"):
    """Replaced whole, by the order read."""

    id: int
    text: str | None = None


def adult(row):
    return row["text"] != "bad"


def at(minute):
    return datetime(2024, 5, 1, 12, minute, tzinfo=UTC)


def member(user, minute, name="n", nick=UNSET, roles=UNSET):
    return Entry(Member(guild=1, user=user, name=name, nick=nick, roles=roles, left_at=UNSET, seen_at=at(minute)))


def reading(minute, value, offset=0, **more):
    return Entry(Reading(sensor=1, place="x", value=value, seen_at=at(minute)), sequence=sequence_of(offset, 0), **more)


def note(offset, number, text, **more):
    return Entry(Note(id=number, text=text), sequence=sequence_of(offset, 0), **more)


def as_columns(writer, block):
    """The same rows as slices of columns, encoded if the writer can; replays lie between them as single items."""
    if isinstance(block, ColumnBlock) or any(entry.same_item for entry in block):
        return block
    parts = []
    for (_, only_new), run in groupby(block, key=lambda entry: (type(entry.row), entry.only_new)):
        entries = list(run)
        parts += [replayed(entry) for entry in entries] if only_new else [slice_of(entries)]
    columns = block_of(parts)
    if columns is None:
        return block
    assert [(e.row, e.only_new, e.sequence) for e in columns] == [(e.row, e.only_new, e.sequence) for e in block]
    return writer.encode_columns(columns) if isinstance(writer, SupportsColumns) else columns


def slice_of(entries):
    offsets = [entry.sequence // sequence_of(1, 0) for entry in entries]
    count = len(entries)
    chunk = Chunk("t", 0, 1, offsets, [None] * count, [b"{}"] * count, [-1] * count, [Run(0, count, offsets[0], 0, [])])
    chunk.items = [1] * count
    row = type(entries[0].row)
    values = {name: [getattr(entry.row, name) for entry in entries] for name in row.__struct_fields__}
    return Slice(Columns(chunk, row, values, range(count)), 0, count)


def replayed(entry):
    origin = Origin("id", "t", 0, entry.sequence // sequence_of(1, 0), -1)
    return Envelope(Record("t.replay", 0, 0, 0, 1, None, b"{}", [], -1, items=1, origin=origin), 0, entry.row)


class PostgresCase:
    partial_updates = True

    def __init__(self, dsn, settings=None, **options):
        self.dsn, self.options = dsn, options
        self.settings = settings or PostgresSettings(dsn)

    def make(self, *rows, check=None):
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(
                create_table(*rows).replace('"name" text NOT NULL', "\"name\" text NOT NULL DEFAULT '?'")
            )
            if check:
                connection.execute("alter table notes add constraint adult check (text <> 'bad')")
        return PostgresWriter(self.settings, *rows, **self.options)

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

    violated = "23514"


class MemoryCase:
    partial_updates = True
    violated = "23514"

    def make(self, *rows, check=None):
        return MemoryWriter(*rows, check=check)

    def table(self, writer):
        return writer.table


class PageCase:
    """The writer of docs/contributing/writer.md: a JSON file."""

    partial_updates = False
    violated = "rule"

    def __init__(self, folder):
        self.folder = folder

    def make(self, *rows, check=None):
        def adult(row):
            return check is None or check(msgspec.structs.asdict(row))

        return names_of("docs/contributing/writer.md")["JsonFileWriter"](self.folder / "table.json", rows[0], adult)

    def table(self, writer):
        table = writer.rows[0].__table__
        rows = msgspec.json.decode((self.folder / "table.json").read_bytes(), type=list[writer.rows[0]])
        return {tuple(getattr(row, name) for name in table.key): msgspec.structs.asdict(row) for row in rows}


class ClickHouseCase:
    partial_updates = False
    violated = "469"

    def __init__(self, dsn, **options):
        self.dsn, self.options = dsn, options
        self.client = clickhouse_connect.get_client(dsn=dsn)

    def make(self, *rows, check=None):
        try:
            ddl = clickhouse_ddl.create_table(*rows)
        except (
            TypeError
        ):  # an Array can't be NULL, and classes have the same columns: refused before any table is asked
            return ClickHouseWriter(ClickHouseSettings(self.dsn), *rows)
        if check:
            ddl = ddl.replace("\n) ENGINE", ",\n  CONSTRAINT adult CHECK text != 'bad'\n) ENGINE")
        self.client.command(ddl.rstrip(";"))
        return ClickHouseWriter(ClickHouseSettings(self.dsn), *rows, **self.options)

    def table(self, writer):
        table = writer.rows[0].__table__
        names = [column.name for column in table.columns]
        rows = self.client.query(f"select {', '.join(names)} from {table.name} final", query_tz=None, tz_mode="aware")
        return {row[: len(table.key)]: dict(zip(names, row, strict=True)) for row in rows.result_rows}


class ByColumns:
    """A case whose writer is given each block as columns, as far as a block can be: an item's rows are one."""

    def __init__(self, case, *, at_once=False):
        self.case, self.at_once = case, at_once
        self.partial_updates, self.violated, self.table = case.partial_updates, case.violated, case.table

    def make(self, *rows, **options):
        writer = self.case.make(*rows, **options)
        write = writer.write

        def write_columns(block):
            may_be = type(block) is list and block and not any(entry.same_item for entry in block)
            if not may_be:
                return write(block)
            columns = column_block(block)
            if self.at_once:
                columns = encode_at_once(columns, writer)
            return write(writer.encode_columns(columns))

        writer.write = write_columns
        return writer


@pytest.fixture(
    params=[
        "memory", "page", "postgres", "postgres one by one", "postgres pool", "postgres columns", "postgres at once",
        "clickhouse",
        "clickhouse one by one", "clickhouse columns",
    ]
)  # fmt: skip
def case(request, monkeypatch):
    kind, _, how = request.param.partition(" ")
    one_by_one = how == "one by one"
    if kind == "memory":
        yield MemoryCase()
    elif kind == "page":
        yield PageCase(request.getfixturevalue("tmp_path"))
    elif how == "pool":
        monkeypatch.setattr(parallel, "ROWS_MIN", 1)
        dsn = request.getfixturevalue("database")
        yield PostgresCase(dsn, PostgresSettings(dsn, pool=3, block_rows=2))
    elif kind == "postgres":
        made = PostgresCase(request.getfixturevalue("database"), one_by_one=one_by_one)
        yield ByColumns(made, at_once=how == "at once") if how in ("columns", "at once") else made
    else:
        made = ClickHouseCase(request.getfixturevalue("clickhouse"), one_by_one=one_by_one)
        yield ByColumns(made) if how == "columns" else made
        made.client.close()  # a process opens another folder of the engine only when none is open


@pytest.fixture(params=["entries", "columns"])
def as_block(request):
    """What a test's entries are written as."""
    return (lambda _, block: block) if request.param == "entries" else as_columns


@pytest.fixture
def opened(case, as_block):
    made = []

    def make(*rows, check=None):
        writer = case.make(*rows, check=check)
        check_capabilities(writer)
        writer.open()
        made.append(writer)
        write = writer.write
        writer.write = lambda block: write(as_block(writer, block))
        return writer

    yield make
    for writer in made:
        writer.close()


@pytest.fixture
def keeping(case, opened):
    """A writer of `Member`; None, once it was refused, where absent fields do not keep what is stored."""

    def make(*rows):
        if case.partial_updates:
            return opened(*rows)
        with pytest.raises(DeploymentFault, match=r"members replaces rows whole, but .*Member\.nick"):
            opened(*rows)
        return None

    return make


def older(writer):
    """What becomes of a row that is older than what is stored."""
    return S if writer.capabilities.reports_superseded else W


def test_nothing_is_nothing(opened):
    assert opened(Note).write([]) == []


def test_rows_are_written_and_overwritten(case, opened):
    writer = opened(Note)

    assert writer.write([note(offset, n, f"t{n}") for offset, n in enumerate((3, 1, 2))]) == [W, W, W]
    assert writer.write([note(3, 1, None)]) == [W]
    assert case.table(writer)[1,] == {"id": 1, "text": None}
    assert case.table(writer)[3,] == {"id": 3, "text": "t3"}


def test_of_a_key_in_one_block_the_last_one_wins_and_the_others_are_superseded(case, opened):
    writer = opened(Note)

    assert writer.write([note(offset, 1, text) for offset, text in enumerate("abc")]) == [S, S, W]
    assert case.table(writer) == {(1,): {"id": 1, "text": "c"}}


def test_a_block_that_is_written_again_changes_nothing(case, opened):
    """What a restart repeats: the older of two blocks of one key, after the newer one."""
    writer = opened(Reading)
    first, second = [reading(1, "one", 1), reading(2, "two", 2)], [reading(2, "again", 3), reading(1, "late", 4)]
    writer.write(first)
    writer.write(second)
    stored = case.table(writer)

    writer.write(first)
    writer.write(second)
    assert case.table(writer) == stored
    assert stored[1, "x"]["value"] == "again"


def test_a_replaced_row_that_is_refused_alone_is_refused_in_a_block(case, opened):
    """Writing only the last row of a key would hide it, and dead letters would depend on where batches are cut."""
    writer = opened(Note, check=adult)
    refusal = Refusal(Reason.CHECK, case.violated, "adult")

    assert writer.write([note(offset, 1, text) for offset, text in enumerate(("bad", "ok"))]) == [refusal, W]
    assert writer.write([note(offset, 2, text) for offset, text in enumerate(("ok", "bad"))]) == [W, refusal]
    assert {row["text"] for row in case.table(writer).values()} == {"ok"}


def test_an_older_row_without_a_version_overwrites_where_the_writer_says_so(case, opened):
    """As after a rewind: the older record is written again, in a transaction of its own."""
    writer = opened(Note)
    writer.write([note(1, 1, "older")])
    writer.write([note(2, 1, "newer")])

    assert writer.write([note(1, 1, "older")]) == [W]

    kept = "older" if writer.capabilities.older_overwrites else "newer"
    assert case.table(writer)[(1,)]["text"] == kept


def test_an_older_version_never_overwrites_and_an_equal_one_does(case, opened):
    writer = opened(Reading)

    assert writer.write([reading(5, "five", 1), reading(4, "four", 2)]) == [W, S]
    assert writer.write([reading(4, "four again", 3)]) == [older(writer)]
    assert writer.write([reading(5, "five again", 4)]) == [W]
    assert case.table(writer)[1, "x"]["value"] == "five again"


def test_absent_keeps_what_is_stored_and_null_does_not(case, keeping):
    writer = keeping(Member)
    if writer is None:
        return
    writer.write([member(7, 1, nick="nick", roles=[1, 2])])
    writer.write([member(7, 2, nick=None)])

    assert case.table(writer)[1, 7]["nick"] is None
    assert case.table(writer)[1, 7]["roles"] == [1, 2]


def test_a_stale_field_does_not_ride_in_under_a_newer_version(case, keeping):
    """Stored v7; v5 brings a nick, v9 roles: folded, the nick of v5 would be written."""
    writer = keeping(Member)
    if writer is None:
        return
    writer.write([member(7, 7, nick="v7", roles=[])])

    assert writer.write([member(7, 5, nick="v5"), member(7, 9, roles=[9])]) == [S, W]
    assert (case.table(writer)[1, 7]["nick"], case.table(writer)[1, 7]["roles"]) == ("v7", [9])


def test_a_class_with_fewer_columns_leaves_the_others_alone(case, keeping):
    writer = keeping(Member, MemberLeft)
    if writer is None:
        return
    gone = Entry(MemberLeft(guild=1, user=7, left_at=at(9), seen_at=at(9)))

    assert writer.write([member(7, 1, "kept"), gone]) == [S, W]
    assert case.table(writer)[1, 7] == {
        "guild": 1, "user": 7, "name": "kept", "nick": None, "roles": None, "left_at": at(9), "seen_at": at(9),
    }  # fmt: skip


def test_a_replay_of_a_row_without_version_never_overwrites(case, opened):
    """`only_new`: it is inserted where its key is absent; its order is that of where it was first read."""
    writer = opened(Note)
    writer.write([note(9, 1, "stored")])

    assert writer.write([note(n, n, "replayed", only_new=True) for n in (1, 2)]) == [older(writer), W]
    assert sorted(row["text"] for row in case.table(writer).values()) == ["replayed", "stored"]


def test_a_replay_of_a_row_with_a_version_overwrites_only_what_is_older(case, opened):
    """An equal version is no reason: messages of one millisecond have one, and the stored one may be the later."""
    writer = opened(Reading)
    writer.write([reading(1, "old", 1)])

    assert writer.write([reading(1, "replayed", 0, only_new=True)]) == [older(writer)]
    assert case.table(writer)[1, "x"]["value"] == "old"
    assert writer.write([reading(2, "new", 0, only_new=True)]) == [W]
    assert case.table(writer)[1, "x"]["value"] == "new"


def test_a_refused_row_costs_its_neighbours_nothing(case, opened):
    writer = opened(Note, check=adult)
    texts = ["ok", "bad", "ok", "ok", "bad"] * 20
    results = writer.write([note(n, n, text) for n, text in enumerate(texts)])

    assert [isinstance(result, Refusal) for result in results] == [text == "bad" for text in texts]
    assert len(case.table(writer)) == 60


def test_a_probe_knows_nothing_before_the_first_row_and_changes_nothing_after_it(case, opened):
    writer = opened(Note)
    assert writer.probe() is None
    writer.write([note(1, 1, "a")])
    before = case.table(writer)

    assert writer.probe() is True
    assert case.table(writer) == before


def test_many_rows_of_several_parts(case, opened):
    """Slices, and between them replays; keys that come twice, across the parts; rows that are refused."""
    writer = opened(Note, check=adult)
    texts = ["bad" if n % 50 == 7 else f"{n}\t\\N'é\"" if n % 3 else "" for n in range(200)]
    block = [note(n, n % 150, text, only_new=n in (60, 61, 90)) for n, text in enumerate(texts)]
    results = writer.write(block)

    assert [isinstance(result, Refusal) for result in results] == [text == "bad" for text in texts]
    assert {key: row["text"] for key, row in case.table(writer).items()} == {
        (n % 150,): text for n, text in enumerate(texts) if text != "bad"
    }


def test_the_name_says_where_without_a_password(case, opened):
    assert opened(Note).name.endswith("/notes")


def test_a_dry_run_returns_what_a_write_would_and_changes_nothing(case, opened):
    writer = opened(Note, check=adult)
    writer.write([Entry(Note(id=1, text="stored"))])
    before = case.table(writer)
    block = [Entry(Note(id=1, text="new")), Entry(Note(id=2, text="bad")), Entry(Note(id=3, text="nul \0"))]

    dry = writer.dry_run(block)
    assert case.table(writer) == before
    if writer.capabilities.can_dry_run:
        assert dry == writer.write(block)
    else:
        assert [isinstance(result, Refusal) for result in dry] == [
            isinstance(result, Refusal) and result.reason is Reason.BAD_VALUE for result in writer.write(block)
        ]


def test_rows_of_one_item_are_written_together_or_not_at_all(case, opened):
    writer = opened(Note, check=adult)
    items = [["ok", "bad", "ok"], ["ok"], ["ok", "ok"], ["bad"], ["ok", "bad"]]
    number = iter(range(100))
    block = [
        Entry(Note(id=(n := next(number)), text=text), sequence=sequence_of(n, at), same_item=at > 0)
        for item in items
        for at, text in enumerate(item)
    ]
    results = writer.write(block)

    assert [isinstance(result, Refusal) for result in results] == [True] * 3 + [False] * 3 + [True] * 3
    assert len({result.reason for result in results[:3]}) == 1
    assert sorted(case.table(writer)) == [(3,), (4,), (5,)]


class Heading(Row, table="headings", primary_key="id"):
    id: int
    title: str = "t"


@pytest.mark.parametrize("kind", ["memory", "postgres", "postgres one by one"])
def test_an_item_is_written_in_all_its_tables_or_in_none(request, kind):
    """A ClickHouse writer has one table."""
    if kind == "memory":
        writer = MemoryWriter(Heading, Note, check=lambda row: row.get("text") != "bad")
    else:
        dsn = request.getfixturevalue("database")
        with psycopg.connect(dsn) as connection:
            connection.execute(create_table(Note).replace('"text" text', "\"text\" text check (text <> 'bad')"))
            connection.execute(create_table(Heading))
        writer = PostgresWriter(PostgresSettings(dsn), Heading, Note, one_by_one=kind.endswith("one by one"))
    writer.open()
    items = [
        [Heading(id=1), Note(id=1, text="a"), Note(id=2, text="b")],
        [Heading(id=2), Note(id=3, text="bad")],
        [Note(id=4, text="bad"), Heading(id=3)],
        [Heading(id=4)],
    ]
    try:
        results = writer.write([Entry(row, same_item=at > 0) for item in items for at, row in enumerate(item)])

        assert [isinstance(result, Refusal) for result in results] == [False] * 3 + [True] * 4 + [False]
        assert {result.reason for result in results if isinstance(result, Refusal)} == {Reason.CHECK}
        if kind == "memory":
            stored = [sorted(writer.tables["headings"]), sorted(writer.tables["notes"])]
        else:
            with psycopg.connect(dsn) as connection:
                stored = [connection.execute(f"select id from {name} order by id").fetchall() for name in writer_tables]
        assert stored == [[(1,), (4,)], [(1,), (2,)]]
    finally:
        writer.close()


writer_tables = ("headings", "notes")
