"""Law 8: for any records, any cut and any path the table and the refusals are those of writing one by one.

A table is drawn from the rules that Postgres knows, rows are stored in it, a list of entries is written three times:
one by one (the oracle), and by the fast path in two different cuts.
"""

from decimal import Decimal
from itertools import cycle

import psycopg
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from lovelace_streams.rows import UNSET, Row
from lovelace_streams.settings import PostgresSettings
from lovelace_streams.writers import Entry, Refusal, RowOutcome, sequence_of
from lovelace_streams.writers.postgres import PostgresWriter, transaction
from lovelace_streams.writers.postgres import writer as postgres
from tests.columns import column_block, encode_at_once
from tests.examples import examples

COLUMNS = "k, a, b, mail, parent, ref, note, amount, kind, v"

BASE = """
drop table if exists pointer, t, other cascade;
create table other (id int primary key);
insert into other values (1), (2), (3);
create table t (
  k bigint primary key, a int default 1, b int default 2, mail text, parent bigint, ref int,
  note text, amount numeric default 1, kind text, v int
);
"""

TRIGGER = """
create or replace function {name}() returns trigger language plpgsql as $$ begin {body} end $$;
create trigger {name} {when} insert or update on t for each {each} execute function {name}();
"""


def trigger(name: str, when: str, body: str, each: str = "row") -> str:
    return TRIGGER.format(name=name, when=when, body=body, each=each)


FEATURES = {
    "check": "alter table t add constraint positive check (a >= 1)",
    "check_two": "alter table t add constraint ordered check (a <= b)",
    "check_rounded": "alter table t alter amount type numeric(3,1); alter table t add check (amount <= 1.1)",
    "check_length": "alter table t alter note type varchar(3); alter table t add check (note <> 'abc')",
    "check_not_enforced": "alter table t add constraint lax check (b > 99) not enforced",
    "check_raises": "alter table t add constraint raising check (10 / a > 2)",
    "check_counts": """
        create or replace function counted() returns bigint language sql volatile as 'select count(*) from t';
        alter table t add constraint few check (counted() < 4)""",
    "not_null": "alter table t alter b set not null",
    "not_null_late": "alter table t alter mail set default 'w'; alter table t alter mail set not null",
    "unique": "alter table t add constraint mails unique (mail)",
    "unique_partial": "create unique index partly on t (mail) where a > 1",
    "unique_two": "create unique index two on t (a, coalesce(b, 0))",
    "exclusion": "alter table t add constraint excluded exclude using btree (mail with =)",
    "foreign": "alter table t add constraint refers foreign key (ref) references other (id)",
    "foreign_two": "alter table t add constraint also foreign key (b) references other (id)",
    "foreign_deferred": "alter table t add foreign key (ref) references other (id) deferrable initially deferred",
    "foreign_not_valid": "insert into t (k, ref) values (1, 5); "
    "alter table t add constraint late foreign key (ref) references other (id) not valid",
    "self": "alter table t add constraint has_parent foreign key (parent) references t (k)",
    "self_deferred": "alter table t add foreign key (parent) references t (k) deferrable initially deferred",
    "unique_deferred": "alter table t add constraint lazy unique (mail) deferrable initially deferred",
    "pointed_at": "alter table t add constraint aim unique (mail); "
    "create table pointer (mail text references t (mail)); insert into pointer values (null)",
    "before_raises": trigger("before_raises", "before", "if new.a = 3 then raise 'no'; end if; return new;"),
    "before_null": trigger("before_null", "before", "if new.a = 2 then return null; end if; return new;"),
    "before_fills": trigger("before_fills", "before", "new.b := coalesce(new.b, 2); return new;"),
    "before_looks": trigger(
        "before_looks",
        "before",
        "if exists (select from t where mail = new.mail and k <> new.k) then raise 'no'; end if; return new;",
    ),
    "after_raises": trigger("after_raises", "after", "if new.b = 3 then raise 'no'; end if; return null;"),
    "after_looks": trigger(
        "after_looks",
        "after",
        "if new.parent is not null and not exists (select from t where k = new.parent) then raise 'no'; end if;"
        " return null;",
    ),
    "after_statement": trigger(
        "after_statement", "after", "if (select sum(a) from t) > 8 then raise 'no'; end if; return null;", "statement"
    ),
    "varchar": "alter table t alter note type varchar(3)",
    "char": "alter table t alter note type char(3)",
    "numeric": "alter table t alter amount type numeric(3,1)",
    "enum": "drop type if exists mood; create type mood as enum ('happy', 'sad'); "
    "alter table t alter kind type mood using kind::mood",
    "domain": "drop domain if exists small; create domain small as numeric(3,1) check (value < 50); "
    "alter table t alter amount type small",
    "int2": "alter table t alter ref type int2",
    "key_rounded": "alter table t alter k type numeric(3,0)",
    "check_key": "alter table t add check (k <> 3)",
}


TOGETHER = [
    {"foreign", "unique"},  # which one is tested first?
    {"foreign", "exclusion", "check"},
    {"not_null", "before_fills"},  # what is null as given is not null as stored
    {"check_two", "not_null", "before_fills"},
    {"self", "unique", "check"},
    {"foreign", "foreign_two", "check_two"},
    {"after_looks", "foreign"},
    {"before_null", "unique", "foreign"},
    {"check_rounded", "varchar", "not_null"},
    {"foreign_not_valid", "not_null"},
    {"self_deferred", "foreign_deferred"},
]
"""Rules that have a say about one another: drawn often enough to be met."""
features_of_a_table = st.one_of(
    st.sets(st.sampled_from(sorted(FEATURES)), max_size=4), st.sampled_from(TOGETHER).map(set)
)


class Whole(Row, table="t", primary_key="k"):
    k: int
    a: int | None
    b: int | None
    mail: str | None
    parent: int | None
    ref: int | None
    note: str | None
    amount: Decimal | None
    kind: str | None
    v: int | None = None


class Part(Row, table="t", primary_key="k"):
    k: int
    a: int | None


class Versioned(Row, table="t", primary_key="k", version="v"):
    k: int
    a: int | None
    b: int | None
    mail: str | None
    parent: int | None
    ref: int | None
    note: str | None
    amount: Decimal | None
    kind: str | None
    v: int


class VersionedPart(Row, table="t", primary_key="k", version="v"):
    k: int
    a: int | None
    v: int


VALUES = {
    "a": [0, 1, 1, 1, 2, 3, 4],
    "b": [1, 2, 2, 2, 3, 5],
    "mail": ["x", "y", "z", 'q"\\{},', ""],
    "parent": [1, 2, 3, 4],
    "ref": [1, 1, 2, 3, 5, 70_000],
    "note": ["a", "abc", "abcd", "ab     "],
    "amount": [Decimal(1), Decimal("1.14"), Decimal("1.16"), Decimal("99.95"), Decimal("49.96")],
    "kind": ["happy", "sad", "angry", "n\0l", "\ud800"],
}
RARELY_BAD = {"kind": 3, "note": 2}


@st.composite
def fields(draw: st.DrawFn, *, absent: bool, careful: bool) -> dict[str, object]:
    """A row's values; `careful` ones seldom break a rule, so that long runs are accepted."""
    row: dict[str, object] = {}
    for name, values in VALUES.items():
        nothing = [None, *([UNSET] if absent else [])]
        if careful:
            usual = {"a": 1, "b": 2, "ref": 1, "note": "a", "amount": Decimal(1), "kind": "sad"}.get(name)
            row[name] = draw(st.sampled_from([usual] * 12 + values[:3]))
        else:
            row[name] = draw(st.sampled_from([*values, *nothing]))
    return row


@st.composite
def entries(draw: st.DrawFn, *, versioned: bool) -> list[Entry]:
    absent = draw(st.booleans())
    careful = draw(st.booleans())
    keys = draw(st.sampled_from([3, 5, 40]))
    block = []
    for sequence in range(draw(st.integers(1, 14))):
        row = {"k": draw(st.integers(1, keys)), **draw(fields(absent=absent, careful=careful))}
        version = draw(st.integers(1, 4))
        if absent and draw(st.integers(0, 5)) == 0:
            row = {"k": row["k"], "a": row["a"]}
            part = VersionedPart(**row, v=version) if versioned else Part(**row)
            block.append(Entry(part, sequence=sequence_of(sequence, 0)))
        elif versioned:
            only_new = draw(st.integers(0, 9)) == 0
            block.append(Entry(Versioned(**row, v=version), only_new, sequence_of(sequence, 0)))
        else:
            only_new = draw(st.integers(0, 5)) == 0
            block.append(Entry(Whole(**row), only_new, sequence_of(sequence, 0)))
    return block


@st.composite
def cuts(draw: st.DrawFn) -> list[int]:
    return draw(st.lists(st.integers(1, 14), min_size=14, max_size=14))


stored_rows = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.sampled_from([1, 2]),
        st.just(2),
        st.sampled_from(["x", "y", "z", None]),
        st.none(),
        st.sampled_from([1, None]),
        st.just("a"),
        st.just(Decimal(1)),
        st.just("sad"),
        st.sampled_from([1, 2, 3, None]),
    ),
    max_size=3,
    unique_by=(lambda row: row[0], lambda row: row[3]),
)


def written(writer: PostgresWriter, block: list[Entry], sizes: list[int]) -> list[object]:
    """Write a block in parts, by turns as columns, as it is, encoded before, and cut of columns encoded at once."""
    whole = encode_at_once(column_block(block), writer) if not any(entry.same_item for entry in block) else block
    ways = (
        lambda start, stop: writer.encode_columns(column_block(block[start:stop])),
        lambda start, stop: block[start:stop],
        lambda start, stop: writer.encode(block[start:stop]),
        lambda start, stop: writer.encode(whole[start:stop]),
    )
    results: list[object] = []
    for size, way in zip(sizes, cycle(ways), strict=False):
        if (done := len(results)) < len(block):
            results += writer.write(way(done, done + size))
    return results


def comparable(results: list[object]) -> list[object]:
    """What has to be equal: who was refused and why, and who was suppressed. Superseded or written is the cut's."""
    return [(r.reason, r.code) if isinstance(r, Refusal) else r is RowOutcome.SUPPRESSED for r in results]


@pytest.fixture
def world(database: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(postgres, "COPY_ROWS_MIN", 1)  # whatever a block is, straight COPY is tried first
    monkeypatch.setattr(transaction, "UNTOLD_ROWS_MIN", 1)
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection, PostgresSettings(database)


@pytest.mark.slow
@settings(
    max_examples=examples(120),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data(), features=features_of_a_table, versioned=st.booleans())
def test_any_cut_on_any_table_ends_as_one_by_one(world, data, features, versioned):
    connection, database = world
    rows = (Versioned, VersionedPart) if versioned else (Whole, Part)
    connection.execute(BASE)
    stored = data.draw(stored_rows, label="stored")
    for feature in sorted(features):
        try:
            connection.execute(FEATURES[feature])
        except psycopg.Error:  # two rules that do not go together
            event("features clash")
            return
    block = data.draw(entries(versioned=versioned), label="block")
    first, second = data.draw(cuts(), label="cut"), data.draw(cuts(), label="other cut")

    def outcome(sizes: list[int], *, one_by_one: bool = False) -> tuple[list[object], list[object]]:
        connection.execute("set session_replication_role = replica; delete from t; delete from other;")
        connection.execute("insert into other values (1), (2), (3)")
        connection.execute("set session_replication_role = origin")
        for row in stored:
            try:
                connection.execute(f"insert into t ({COLUMNS}) values ({', '.join(['%s'] * 10)})", row)
            except psycopg.Error:
                continue
        if "foreign_not_valid" in features:
            connection.execute("set session_replication_role = replica")
            connection.execute("update t set ref = 5")
            connection.execute("set session_replication_role = origin")
        writer = PostgresWriter(database, *rows, one_by_one=one_by_one)
        writer.open()
        try:
            results = written(writer, block, sizes)
        finally:
            writer.close()
        table = connection.execute(f"select {COLUMNS} from t order by k").fetchall()
        return comparable(results), table

    expected = outcome([14], one_by_one=True)
    event(f"refused: {sum(1 for result in expected[0] if isinstance(result, tuple)) > 0}")
    assert outcome([14]) == expected
    assert outcome(first) == expected
    assert outcome(second) == expected
