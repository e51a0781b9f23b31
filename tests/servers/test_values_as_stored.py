"""What is compared, counted and explained is what the server stored, however a row is written and whatever changes it.

A column may round a value, a domain or a trigger may change it, and a trigger may come while a worker runs. Each way to
write has to end as the table says.
"""

from datetime import UTC, date, datetime, timedelta
from enum import Enum
from typing import Any
from uuid import UUID

import pytest

from lovelace_streams.records import Reason
from lovelace_streams.rows import UNSET, Row
from lovelace_streams.writers import Entry, Refusal, RowOutcome
from lovelace_streams.writers.postgres import writer as postgres

WRITTEN, SUPERSEDED, SUPPRESSED = RowOutcome.WRITTEN, RowOutcome.SUPERSEDED, RowOutcome.SUPPRESSED
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def at(microseconds: int) -> datetime:
    return NOON + timedelta(microseconds=microseconds)


# -- versions ----------------------------------------------------------------------------------------------------------


class Seen(Row, table="seen", primary_key="id", version="at"):
    id: int
    a: int | None
    at: datetime


class Priced(Row, table="seen", primary_key="id", version="at"):
    id: int
    a: int | None
    at: float


class Named(Row, table="seen", primary_key="id", version="at"):
    id: int
    a: int | None
    at: str


VERSIONS = {
    "timestamptz(3)": (Seen, at(123_600), [at(123_900), at(123_600)], at(122_000)),
    "timestamptz(0)": (Seen, at(900_000), [at(1_300_000), at(600_000)], at(0)),
    "numeric(10,2)": (Priced, 1.006, [1.008, 1.005001], 0.99),
    "varchar(3)": (Named, "b", ["ab     ", "b  "], "a"),
    "char(4)": (Named, "b", ["b", "b  "], "a"),
    "instant": (Seen, at(123_600), [at(123_900), at(123_600)], at(122_000)),
}
"""The column's type: a row class, what is stored, versions that are equal to it as stored (or newer), an older one."""


@pytest.mark.parametrize("one_by_one", [True, False])
@pytest.mark.parametrize("rows", [1, 20])
@pytest.mark.parametrize("kind", VERSIONS)
def test_equal_as_the_column_rounds_it_overwrites_however_the_row_is_written(run, open_writer, kind, rows, one_by_one):
    row, stored, overwriting, older = VERSIONS[kind]
    run("drop domain if exists instant; create domain instant as timestamptz(3)")
    run(f"create table seen (id bigint primary key, a int default 7 check (a > 0), b int, at {kind})")
    writer = open_writer(row, one_by_one=one_by_one)
    if kind == "varchar(3)":
        overwriting = ["b     ", "b  "]

    for version in overwriting:
        for absent in (True, False):
            run("truncate seen")
            block = [Entry(row(id=n, a=1, at=stored)) for n in range(rows)]
            assert writer.write(block) == [WRITTEN] * rows
            later = [Entry(row(id=n, a=UNSET if absent else 2, at=version)) for n in range(rows)]
            assert writer.write(later) == [WRITTEN] * rows
            former = [Entry(row(id=n, a=UNSET if absent else 3, at=older)) for n in range(rows)]
            assert writer.write(former) == [SUPERSEDED] * rows
            assert run("select distinct a from seen").fetchall() == [(1 if absent else 2,)]


@pytest.mark.parametrize("one_by_one", [True, False])
def test_a_replay_does_not_overwrite_what_is_equal_as_stored(run, open_writer, one_by_one):
    run("create table seen (id bigint primary key, a int default 7 check (a > 0), at timestamptz(3))")
    writer = open_writer(Seen, one_by_one=one_by_one)
    writer.write([Entry(Seen(id=n, a=1, at=at(123_600))) for n in range(9)])

    for a in (UNSET, 2):
        block = [Entry(Seen(id=n, a=a, at=at(123_900 if n else 124_900)), only_new=True) for n in range(9)]
        assert writer.write(block) == [WRITTEN] + [SUPERSEDED] * 8
        run("update seen set at = at - interval '1 ms' where id = 0")


# -- keys --------------------------------------------------------------------------------------------------------------


class Code(Row, table="codes", primary_key="code"):
    code: str
    name: str
    parent: str | None = None


class Short(Row, table="codes", primary_key="code"):
    code: str
    name: str | None


class Sum(Row, table="codes", primary_key="code"):
    code: float
    name: str


class Instant(Row, table="codes", primary_key="code"):
    code: datetime
    name: str


class TouchedCode(Row, table="codes", primary_key="code"):
    code: str
    n: int | None


class TouchedSum(Row, table="codes", primary_key="code"):
    code: float
    n: int | None


class TouchedInstant(Row, table="codes", primary_key="code"):
    code: datetime
    n: int | None


KEYS = {
    "varchar(3)": (Code, TouchedCode, "ab ", "ab     "),
    "char(3)": (Code, TouchedCode, "ab", "ab     "),
    "numeric(10,2)": (Sum, TouchedSum, 1.006, 1.008),
    "timestamptz(3)": (Instant, TouchedInstant, at(123_600), at(123_900)),
    "timestamptz(0)": (Instant, TouchedInstant, at(0), at(300_000)),
}


@pytest.mark.parametrize("one_by_one", [True, False])
@pytest.mark.parametrize("kind", KEYS)
def test_a_key_is_found_as_the_column_rounds_it(run, open_writer, kind, one_by_one):
    """A row without a column that has no default updates the stored one; a new row of it would be refused."""
    row, touched, stored, sent = KEYS[kind]
    run(f"create table codes (code {kind} primary key, name text not null, n int default 1, parent text)")
    writer = open_writer(row, one_by_one=one_by_one)
    writer.write([Entry(row(code=stored, name="x"))])

    touching = open_writer(row, touched, one_by_one=one_by_one)
    assert touching.write([Entry(touched(code=sent, n=2))]) == [WRITTEN]
    assert run("select name, n from codes").fetchall() == [("x", 2)]


class Tier(Enum):
    """A key that is sent by its value."""

    A, B, C, D = "a", "b", "c'", 'd\\"{,}'


MIXED: dict[str, tuple[Any, list[Any]]] = {
    "bigint": (int, [1, -(2**63), 3, 2**63 - 1]),
    "text": (str, ["a", 'b"\\,{}', "NULL", ""]),
    "varchar(3)": (str, ["a", "ab       ", "abc  ", "b"]),
    "uuid": (UUID, [UUID(int=n) for n in range(4)]),
    "date": (date, [date(1, 1, 1), date(2024, 2, 29), date(2024, 3, 1), date(9999, 12, 31)]),
    "timestamptz": (datetime, [at(0), at(1), at(-1), at(10**9)]),
    "double precision": (float, [0.1, 1e300, -2.5, 5e-324]),
    'text collate "C"': (Tier, list(Tier)),
}


@pytest.mark.parametrize("kind", MIXED)
def test_which_rows_of_a_statement_were_written_is_told_for_keys_of_any_type(run, open_writer, kind):
    hint, keys = MIXED[kind]
    body = {"__annotations__": {"a": int, "key": hint, "v": int}, "__module__": __name__}
    row = type(Row)("Mixed", (Row,), body, table="mixed", primary_key=("a", "key"), version="v")
    run(f"create table mixed (a bigint, key {kind}, v bigint, primary key (a, key))")
    writer = open_writer(row)
    writer.write([Entry(row(a=1, key=key, v=5)) for key in keys])

    block = [Entry(row(a=1, key=key, v=v)) for key, v in zip(keys, [6, 4, 5, 3], strict=True)]
    assert writer.write([*block, Entry(row(a=2, key=keys[0], v=1))]) == [
        WRITTEN,
        SUPERSEDED,
        WRITTEN,
        SUPERSEDED,
        WRITTEN,
    ]
    assert sorted(v for (v,) in run("select v from mixed").fetchall()) == [1, 5, 5, 5, 6]


@pytest.mark.parametrize("one_by_one", [True, False])
@pytest.mark.parametrize("kind", ["varchar(3)", "char(3)", "short"])
def test_a_value_too_long_is_refused_and_never_compared_as_cut(run, open_writer, kind, one_by_one):
    run("drop domain if exists short; create domain short as varchar(3)")
    run(f"create table codes (code {kind} primary key, name text default '' check (name <> 'n'))")
    writer = open_writer(Short, one_by_one=one_by_one)
    writer.write([Entry(Short(code="abc", name="x"))])

    for name in (UNSET, "y"):
        block = [Entry(Short(code=code, name=name)) for code in ("abcd", "abc", "abce")]
        results = writer.write(block)
        assert [r if r is WRITTEN else (r.reason, r.code) for r in results] == [
            (Reason.BAD_VALUE, "22001"),
            WRITTEN,
            (Reason.BAD_VALUE, "22001"),
        ]
    assert run("select code, name from codes").fetchall() == [("abc", "y")]


class Level(Enum):
    TOP = "top"
    LOW = "low"


class Node(Row, table="nodes", primary_key="id"):
    id: Level
    parent: Level | None


@pytest.mark.parametrize("one_by_one", [True, False])
def test_a_reference_to_a_later_row_of_the_block_is_refused_whatever_its_type(run, open_writer, one_by_one):
    """The later row is found by what is stored: an Enum's value, a text without the blanks that the column drops."""
    run("create table nodes (id text primary key, parent text references nodes)")
    run("create table codes (code varchar(3) primary key, name text, parent varchar(3) references codes)")
    nodes, codes = open_writer(Node, one_by_one=one_by_one), open_writer(Code, one_by_one=one_by_one)

    results = nodes.write([Entry(Node(id=Level.LOW, parent=Level.TOP)), Entry(Node(id=Level.TOP, parent=None))])
    assert [isinstance(result, Refusal) for result in results] == [True, False]
    block = [Entry(Code(code="a", name="", parent="ab     ")), Entry(Code(code="ab ", name="", parent=None))]
    assert [isinstance(result, Refusal) for result in codes.write(block)] == [True, False]


# -- triggers that change rows -----------------------------------------------------------------------------------------


class Mail(Row, table="mails", primary_key="mail", version="v"):
    mail: str
    name: str | None
    v: int


class Numbered(Row, table="mails", primary_key="mail", version="v"):
    mail: float
    name: str | None
    v: int


LOWER = (
    "create function lower_mail() returns trigger language plpgsql as"
    " $$ begin if new.name = 'none' then return null; end if; new.mail := lower(new.mail); return new; end $$;"
    "create trigger lower_mail before insert or update on mails for each row execute function lower_mail()"
)
CHANGED_KEYS = {
    "trigger": ("text", LOWER, ["Ada", "ADA", "Bob", "aDa", "Dan"]),
    "domain": ("tag", "", ["a   ", "a     ", "b", "a       ", "d   "]),
    "char(4)": ("char(4)", "", ["a", "a ", "b", "a       ", "d "]),
    "inet": ("inet", "", ["::1", "0::1", "::2", "0:0::1", "0::3"]),
    "numeric": ("numeric", LOWER.replace("lower(new.mail)", "new.mail::int"), ["1", "1.2", "2", "1.1", "3"]),
}
"""The column, what else the table has, and keys: of the stored row, of it, a new one, of it, a new one."""


@pytest.mark.parametrize("absent", [True, False])
@pytest.mark.parametrize("one_by_one", [True, False])
@pytest.mark.parametrize("kind", CHANGED_KEYS)
def test_rows_whose_key_the_table_changes_end_as_the_server_says(run, open_writer, capfd, kind, one_by_one, absent):
    column, more, (stored, *keys) = CHANGED_KEYS[kind]
    run("drop domain if exists tag; create domain tag as varchar(4)")
    run(f"create table mails (mail {column} primary key, name text default 'd' check (name <> ''), v int)")
    run(more)
    number = column == "numeric"
    row = Numbered if number else Mail
    writer = open_writer(row, one_by_one=one_by_one)
    assert writer.write([Entry(row(mail=float(stored) if number else stored, name="first", v=5))]) == [WRITTEN]

    names = [UNSET] * 4 if absent else ["ann", "bob", "cy", "dan"]
    sent = [{"mail": float(key) if number else key, "name": name} for key, name in zip(keys, names, strict=True)]
    results = writer.write([Entry(row(**each, v=v)) for each, v in zip(sent, [3, 1, 6, 1], strict=True)])

    assert results == [SUPERSEDED, WRITTEN, WRITTEN, WRITTEN]
    assert run("select v, name from mails order by v desc, mail limit 1").fetchall() == [
        (6, "first" if absent else "cy")
    ]
    assert run("select count(*) from mails").fetchall() == [(3,)]
    assert not any(key in "".join(capfd.readouterr()) for key in ("Ada", "aDa", "0:0::1"))


@pytest.mark.parametrize("one_by_one", [True, False])
def test_a_newer_row_under_the_changed_key_supersedes_and_what_returns_null_is_suppressed(run, open_writer, one_by_one):
    run("create table mails (mail text primary key, name text, v int)")
    run(LOWER)
    writer = open_writer(Mail, one_by_one=one_by_one)
    writer.write([Entry(Mail(mail=f"{n}@X", name="x", v=5)) for n in range(20)])

    kinds = [(3, "x", SUPERSEDED), (7, "none", SUPPRESSED), (7, "y", WRITTEN), (5, "z", WRITTEN)]
    block = [Entry(Mail(mail=f"{n}@X", name=kinds[n % 4][1], v=kinds[n % 4][0])) for n in range(20)]
    assert writer.write(block) == [kinds[n % 4][2] for n in range(20)]
    replay = [Entry(Mail(mail=f"{n}@X", name="r", v=5), only_new=True) for n in range(0, 20, 4)]
    assert writer.write(replay) == [SUPERSEDED] * 5


class Plain(Row, table="mails", primary_key="mail"):
    mail: str
    name: str | None


def test_a_replay_without_a_version_finds_the_row_under_the_changed_key(run, open_writer):
    run("create table mails (mail text primary key, name text)")
    run(LOWER)
    writer = open_writer(Plain)
    writer.write([Entry(Plain(mail="A@X", name="x"))])

    block = [Entry(Plain(mail=mail, name="y"), only_new=True) for mail in ("A@X", "B@X")]
    assert writer.write([*block, Entry(Plain(mail="C@X", name="none"), only_new=True)]) == [
        SUPERSEDED,
        WRITTEN,
        SUPPRESSED,
    ]
    assert run("select mail, name from mails order by 1").fetchall() == [("a@x", "x"), ("b@x", "y")]


# -- triggers that come while a worker runs ----------------------------------------------------------------------------


class Thing(Row, table="things", primary_key="id"):
    id: int
    text: str | None


class Version(Row, table="things", primary_key="id", version="v"):
    id: int
    text: str | None
    v: int = 1


QUIET = (
    "create function quiet() returns trigger language plpgsql as"
    " $$ begin if new.text = 'quiet' then return null; end if; return new; end $$;"
    "create trigger quiet before insert or update on things for each row execute function quiet()"
)


def block_of(row: type[Row], *, absent: bool = False, **options: Any) -> list[Entry]:
    first = {"v": 1} if row is Version else {}
    block = [Entry(row(id=n, text="quiet" if n % 2 else "loud", **first), **options) for n in range(20)]
    return block + ([Entry(row(id=20, text=UNSET, **first), **options)] if absent else [])


WAYS = ["copy", "merge", "pairs", "subtransactions", "halves", "one by one", "parallel", "replay"]


@pytest.mark.parametrize("row", [Thing, Version])
@pytest.mark.parametrize("way", WAYS)
def test_a_trigger_added_while_the_worker_runs_is_counted_as_it_answers(run, open_writer, monkeypatch, way, row):
    run("create table things (id bigint primary key, text text default 'd' check (text <> 'bad'), v int)")
    run("insert into things select n, 'old', 0 from generate_series(100, 300) n")
    if way not in ("copy", "parallel"):
        monkeypatch.setattr(postgres, "COPY_ROWS_MIN", 1_000)
    options = {"pool": 3} if way == "parallel" else {}
    writer = open_writer(row, one_by_one=way == "one by one", **options)
    writer._isolation.subtransactions.are_available = way != "halves"
    run(QUIET)

    block = block_of(row, absent=way == "pairs", only_new=way == "replay")
    expected = [SUPPRESSED if n % 2 else WRITTEN for n in range(20)] + [WRITTEN] * (len(block) - 20)
    if way in ("subtransactions", "halves"):  # a value that can't be stored begins the isolation
        block = [*block, Entry(row(id=2**40 + 1, text="\0"))]
        expected = [*expected, Refusal(Reason.BAD_VALUE, "22000", "text")]
    if way == "parallel":
        block = [*block, *(Entry(row(id=n, text="more")) for n in range(100, 300))]
        expected = [*expected, *[WRITTEN] * 200]
    results = writer.write(block)
    if way == "replay":  # what was written before the trigger was noticed is there when it is written again
        expected = [SUPERSEDED if end is WRITTEN else end for end in expected]
    assert results == expected
    assert run("select count(*) from things where id < 100 and text = 'loud'").fetchall() == [(10,)]
    assert (
        writer.write(block)[:20] == [SUPERSEDED if way == "replay" and end is WRITTEN else end for end in expected][:20]
    )


# -- rules that look at what the own transaction did -------------------------------------------------------------------


@pytest.mark.parametrize("one_by_one", [True, False])
def test_a_stored_row_that_breaks_a_key_of_old_may_be_updated_twice_in_a_block(run, open_writer, one_by_one):
    """Postgres tests a foreign key that an update leaves alone only of a row that its own transaction has made."""
    run(
        "create table others (id int primary key);"
        "create table things (id bigint primary key, text text, ref int, v int);"
        "insert into things values (1, 'old', 5), (2, 'old', 5);"
        "alter table things add foreign key (ref) references others (id) not valid;"
    )
    run(QUIET)
    writer = open_writer(Thing, one_by_one=one_by_one)

    results = writer.write([Entry(Thing(id=n % 2 + 1, text=str(n))) for n in range(20)])
    assert results == [SUPERSEDED] * 18 + [WRITTEN] * 2
    assert run("select text from things order by id").fetchall() == [("18",), ("19",)]
